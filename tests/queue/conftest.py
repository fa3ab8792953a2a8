"""A list in a directory of its own; whatever is left of its runs is ended with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.queue import process
from ganeum.queue.process import Identity
from ganeum.queue.settle import identity
from ganeum.queue.store import Store


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    with Store.default() as opened:
        yield opened
        for entry in opened.all():
            if entry.token and (first := identity(entry)) and first != Identity.of_this_process():
                process.kill(first, entry.token)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two configs, and data that are there; nothing is trained."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    Path("one.yaml").write_text("train: {max_iters: 10}\n")
    Path("two.yaml").write_text("train: {max_iters: 20}\n")
    Path("data/tinystories").mkdir(parents=True)
    Path("data/tinystories/train.bin").touch()


@pytest.fixture
def queue(capsys: pytest.CaptureFixture[str]) -> object:
    """`ganeum queue …` → exit status, lines of standard output and of standard error, blanks at their ends cut off."""

    def call(*arguments: str) -> tuple[int, list[str], list[str]]:
        with pytest.raises(SystemExit) as exit:
            main(["queue", *arguments])
        out, err = capsys.readouterr()
        code = exit.value.code
        return (
            code if isinstance(code, int) else 0,
            [line.rstrip() for line in out.splitlines()],
            [line.rstrip() for line in err.splitlines()],
        )

    return call
