"""`ganeum doctor` with words that do not go together: refused at once, with what to type instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.doctor.finding import Finding

SAMPLE = Path(__file__).parents[1] / "doctor" / "logs" / "one_book.txt"
REFUSED = [
    (f"gpu --from-text {SAMPLE} --index 1 --watch", "--index and --watch: of a GPU that is here"),
    (f"log {SAMPLE} --gpu L4", "none is named"),
    (f"log {SAMPLE} train.batch_size=3", "none is named"),
    ("run configs/demo.yaml --script mine.py:build", "doctor run configs/demo.yaml --script mine.py:build"),
]


@pytest.mark.parametrize(("words", "told"), REFUSED)
def test_what_does_not_go_together_is_refused(words: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["doctor", *words.split()])
    assert end.value.code == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("more", ["train.batch_size=3", "--config-section=large"])
def test_a_run_is_held_against_its_own_config_alone(
    more: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "config.yaml").write_text("name: run\n")
    (tmp_path / "logs" / "metrics.jsonl").write_text('{"step": 1, "loss": 5.0, "step_time_s": 3.0}\n')
    with pytest.raises(SystemExit) as end:
        main(["doctor", "log", str(tmp_path), more])
    assert end.value.code == 2
    assert "a run is held against the config that it ran" in capsys.readouterr().err


def test_without_a_config_a_log_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "log", str(SAMPLE)])
    assert "what it should take, the config" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (0.15123, "size   0.151 times"),
        (24.34, "size   24.3 times"),
        (999.7, "size   1,000 times"),
        (1262.4, "size   1,262 times"),
    ],
)
def test_a_size_has_three_digits_and_no_exponent(size: float, told: str) -> None:
    assert told in Finding(cause="loader", title="it waits", size=size, unit="times").text()
