"""`ganeum train` as a user types it: exit status, standard output and standard error."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ganeum.cli import main


@dataclass
class Done:
    returncode: int | str | None
    stdout: str
    stderr: str


@pytest.fixture
def ganeum(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*words: str) -> Done:
        with pytest.raises(SystemExit) as end:
            main(["train", *words])
        return Done(end.value.code, *capsys.readouterr())

    return run


def test_nanogpts_options_and_ours_mean_the_same(yaml: Path, ganeum: Callable[..., Done]) -> None:
    """--max_iters 4 --log.interval=2 seed=7, with --config; --json puts the summary alone on standard output."""
    done = ganeum("--config", str(yaml), "--max_iters", "4", "--log.interval=2", "seed=7", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 4
    assert "Training Finished!" in done.stderr
    again = ganeum(str(yaml), "max_iters=4", "log.interval=2", "seed=7")
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout.startswith("tiny is finished: 4 steps, 1.0k tokens, loss 5.")


def test_another_config_is_refused_until_overwritten(yaml: Path, ganeum: Callable[..., Done]) -> None:
    """The difference and a free name are said, exit status 2; --overwrite replaces the run."""
    assert ganeum(str(yaml), "max_iters=2").returncode == 0
    refused = ganeum(str(yaml), "max_iters=2", "learning_rate=1e-4")
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("RunError: the run tiny exists with another config\n")
    assert "train.learning_rate is 0.003 there and 0.0001 here" in refused.stderr
    assert "name=tiny-2" in refused.stderr
    assert ganeum(str(yaml), "max_iters=2", "learning_rate=1e-4", "--overwrite").returncode == 0


def test_without_a_config_it_says_so(ganeum: Callable[..., Done]) -> None:
    """Exit status 2."""
    done = ganeum()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "ConfigError: no config is named\n"
        "  where  ganeum train\n"
        "  try    ganeum train configs/demo.yaml, or `ganeum queue add` for several\n"
    )
