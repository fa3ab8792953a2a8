"""A list in a directory of its own; whatever is left of its runs is ended with the test. And a driver with two GPUs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.queue import process
from ganeum.queue.process import Identity
from ganeum.queue.settle import identity
from ganeum.queue.store import Store

STUB = Path(__file__).parents[1] / "hardware" / "nvml_stub.c"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    with Store.default() as opened:
        yield opened
        for entry in opened.all():
            if entry.token and (first := identity(entry)) and first != Identity.of_this_process():
                process.kill(first, entry.token)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the stub in it, for LD_LIBRARY_PATH."""
    if shutil.which("gcc") is None or sys.platform != "linux":
        pytest.skip("the stub of NVML needs gcc, and Linux")
    directory = tmp_path_factory.mktemp("driver")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", directory / "libnvidia-ml.so.1", STUB], check=True)
    return directory


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
