"""`ganeum doctor run`: the command as a user calls it, on a training with one cause of slowness."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ganeum import cli
from ganeum.cli.doctor.answer import show
from ganeum.doctor.finding import Report
from ganeum.doctor.measured import diagnosis, waterfall
from ganeum.doctor.measured.answer import Course, Stair, report
from ganeum.doctor.measured.contest import of
from ganeum.doctor.measured.remedy import Remedy
from ganeum.errors import DataError, GaneumError

TRAININGS = Path(__file__).with_name("trainings.py")
FACTS = {  # what programs read of doctor.json
    *(
        "counted",
        "tokens_per_second",
        "step_s",
        "phases",
        "noise",
        "floor",
        "itself",
        "itself_again",
        "trials",
        "untried",
    ),
    *("waterfall", "together", "apply", "peak_gib", "limit", "seconds", "seen"),
}


def test_a_loader_that_is_waited_for_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches take 50 ms, steps one: the loader is named, thrice as fast at least without it, in text and JSON."""
    monkeypatch.setattr(diagnosis, "BUILDING_S", math.inf)  # a crowded machine takes longer
    words = [
        "doctor",
        "run",
        "--script",
        f"{TRAININGS}:waiting",
        "--minutes",
        "0.12",
        "-o",
        str(tmp_path / "doctor.json"),
    ]
    done = CliRunner().invoke(cli.build(), words)
    assert done.exit_code == 0, done.output
    assert "as it is" in done.output
    told = json.loads((tmp_path / "doctor.json").read_text(), parse_constant=pytest.fail)  # no NaN
    assert set(told) == {"subject", "headline", "findings", "ruled_out", "without_effect", "facts"}
    assert set(told["facts"]) == FACTS
    assert told["facts"]["limit"]["left"] > 1
    assert "limit of the device" in done.output
    loader = [finding for finding in told["findings"] if finding["cause"] == "loader" and finding["sure"] == "measured"]
    assert loader, done.output
    assert loader[0]["size"] > 2 / 3
    assert told["facts"]["together"]["ratio"] > 3
    assert told["facts"]["phases"]["data"] > 0.5


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "one config is asked for, or --script, which takes no keys"),
        (["a.yaml", "--script", "b.py:build"], "one config is asked for, or --script, which takes no keys"),
        (["--script", "b.py:build", "--apply", "c.yaml"], "--apply writes a config of ours, and --script has none"),
        (["--script", "b.py"], "--script names no function: b.py"),
        (["--script", "absent.py:build"], "there is no file absent.py"),
        (["--script", "b.py:build", "--quick", "--minutes", "3"], "--quick and --minutes say two things"),
        (["--script", "b.py:build", "--minutes", "inf"], "--minutes must be a number of minutes, not inf"),
        (["--script", "b.py:build", "-o", "absent/doctor.json"], "it cannot be written"),
        (["--script", "b.py:build", "-o", "."], "it cannot be written"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: list[str], told: str) -> None:
    """What is missing or too much is said before anything starts."""
    refused = CliRunner().invoke(cli.build(), ["doctor", "run", *words])
    assert isinstance(refused.exception, GaneumError)
    assert refused.exception.what == told


def test_what_is_no_number_is_null_in_json() -> None:
    """JSON has no NaN and no infinity, and other programs refuse them."""
    report = Report(subject="a run", facts={"loss": float("nan"), "times": (1.0, float("inf"))})
    assert json.loads(report.json(), parse_constant=pytest.fail)["facts"] == {"loss": None, "times": [1.0, None]}


def test_what_was_found_is_told_where_it_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that is full after minutes of measuring: the answer is printed all the same."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ganeum.record.files.write_atomic", full)
    with pytest.raises(DataError, match="the findings cannot be written: No space left on device"):
        show(Report(subject="a run", headline="fast enough"), False, tmp_path / "doctor.json")
    assert "a run: fast enough" in capsys.readouterr().out


def test_rows_are_called_rows() -> None:
    """Where a batch holds no tokens: in the headline and over the bars, and for programs."""
    ratio = of([math.log(2.0)] * 8, (1000.0, 2000.0), 1.0)
    told = report(Course("a run", facts={"counted": "rows"}, rate=1000.0, itself=ratio))
    assert "rows/s" in told.headline
    assert "rows/s" in told.drawn
    assert "tokens/s" not in told.headline + told.drawn
    assert told.facts["counted"] == "rows"


@pytest.mark.parametrize("columns", [40, 60, 80, 110])
def test_a_waterfall_is_no_wider_than_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bars shrink, and words that have no room go on below; no figure is lost."""
    monkeypatch.setenv("COLUMNS", str(columns))
    remedies = [Remedy(name, "loader", "") for name in ("batches held in memory", "8 at once")]
    ratio = of([math.log(2.0)] * 8, (1000.0, 2000.0), 1.0)
    course = Course("a run", rate=1000.0, itself=ratio, together=ratio, phases={"forward": 0.5, "data": 0.5})
    course.stairs, course.limit = [Stair(one, ratio) for one in remedies], (90_000.0, "1 GFLOP of products a step")
    drawn = waterfall.drawn(course)
    assert max(len(line) for line in drawn.splitlines()) <= columns
    assert " ".join(drawn.split()).count("(2.00 to 2.00)") == 3
    for told in ("1,000", "2,000", "4,000", "90,000", "× 45.00 is left;"):
        assert told in " ".join(drawn.split())
