"""Code that came with a model is run only where `ganeum train` is told so on its own command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ganeum.cli import main
from ganeum.config.trust import trusted


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    Path("a.yaml").write_text("model: {source: x}\ndata: {train: a.jsonl}\ntrain: {max_iters: 1}\n")


@pytest.mark.parametrize(
    ("words", "expected"), [([], False), (["--trust-remote-code"], True), (["--trust_remote_code"], True)]
)
def test_only_the_option_makes_it_trusted(words: list[str], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the time of that training, and no longer."""
    seen: list[bool] = []

    def train(*arguments: Any, **options: Any) -> dict[str, Any]:
        seen.append(trusted())
        return {}

    monkeypatch.setattr("ganeum.train.run.train", train)
    with pytest.raises(SystemExit) as end:
        main(["train", "a.yaml", *words])
    assert ([expected], 0, False) == (seen, end.value.code or 0, trusted())


@pytest.mark.parametrize(
    "words", [["train", "a.yaml", "trust_remote_code=true"], ["queue", "add", "a.yaml", "--trust-remote-code"]]
)
def test_neither_a_key_nor_the_queue_can_say_it(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A config may come from anybody, and a queue runs what it holds later."""
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code not in (0, None)
    assert capsys.readouterr().err == (
        "ConfigError: trust_remote_code: true has no meaning here\n"
        "  where  the command line: trust_remote_code=true\n"
        "  why    code that came with a model runs only by `ganeum train … --trust-remote-code`, not by a file or a "
        "queue\n"
    )
