"""Runs that hands or disks have hurt, and readers who leave: an error that names the file, or the training goes on."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_corpus import go

from ganeum.cli.plan import command as plan
from ganeum.config.arguments import split_arguments
from ganeum.errors import CheckpointError, ConfigError, RunError
from ganeum.train.trackers.wandb import _key


def test_a_reader_who_leaves_does_not_end_the_training(yaml: Path) -> None:
    """`ganeum train … | head -1`: a real pipe, closed before the first line; all is in console.log, exit status 0."""
    words = [sys.executable, "-m", "ganeum", "train", str(yaml)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "")
    assert json.loads(Path("results/tiny/status.json").read_text())["state"] == "finished"
    assert "Training Finished!" in Path("results/tiny/logs/console.log").read_text(encoding="utf-8")


def test_a_file_system_that_cannot_flush_directories(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EINVAL for a directory, as some network file systems answer: the run trains, with its checkpoints."""
    fsync = os.fsync

    def refusing(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    go(yaml)
    assert Path("results/tiny/checkpoints/latest").read_text() == "step-00000020\n"


DAMAGE = ["", "\x00{", "[]", "null", '{"a": 1}']


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_summary(yaml: Path, content: str) -> None:
    """The same command still says that the run is finished, from the metrics, and that summary.json is damaged."""
    go(yaml)
    _, whole = go(yaml)
    Path("results/tiny/summary.json").write_text(content)
    ended, shown = go(yaml)
    head, *rest = whole.splitlines()
    note = "(summary.json is damaged: these are the figures of logs/metrics.jsonl)"
    assert shown.splitlines() == [head, note, *rest]
    assert ended["steps"] == 20


@pytest.mark.parametrize("content", DAMAGE)
def test_a_damaged_plan_is_written_anew(yaml: Path, content: str) -> None:
    """Extending the run works, and plan.json is whole afterwards."""
    go(yaml)
    Path("results/tiny/plan.json").write_text(content)
    go(yaml, "max_iters=24")
    assert json.loads(Path("results/tiny/plan.json").read_text())["data"]["steps"] == 24


def test_a_refused_extension_leaves_the_run_as_it_was(yaml: Path) -> None:
    """Every checkpoint is damaged: config.yaml and status.json stay, and the old command still finds a finished run."""
    go(yaml)
    kept = [Path("results/tiny") / name for name in ("config.yaml", "status.json")]
    before = [path.read_bytes() for path in kept]
    for path in Path("results/tiny/checkpoints").glob("step-*/model.safetensors"):
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no checkpoint of this run can be used"):
        go(yaml, "max_iters=24")
    assert [path.read_bytes() for path in kept] == before
    assert go(yaml)[1].startswith("tiny is finished")


def test_a_finished_run_without_checkpoints_is_not_extended(yaml: Path) -> None:
    """It would begin at step 0 without a word."""
    go(yaml)
    shutil.rmtree("results/tiny/checkpoints")
    with pytest.raises(RunError) as error:
        go(yaml, "max_iters=24")
    assert str(error.value) == (
        "RunError: the run tiny cannot be extended: it ended at step 20, and its checkpoints are gone\n"
        f"  where  {Path('results/tiny/checkpoints').resolve()}\n"
        "  why    it would be trained again from step 0\n"
        "  try    name=tiny-2 for a new run, or --overwrite to replace this one"
    )
    assert go(yaml)[1].startswith("tiny is finished")


def test_a_shorter_length_than_the_runs_own(yaml: Path) -> None:
    """Before anything that throws it away, the command that goes on with it is said."""
    go(yaml, "max_iters=4")
    with pytest.raises(RunError) as error:
        go(yaml, "max_iters=2")
    assert error.value.suggestion == (
        "max_iters=4, as it has now; name=tiny-2 for a new run, or --overwrite to replace this one"
    )


def test_a_damaged_config_names_the_run(yaml: Path) -> None:
    """The advice is for a run's own file, not for one that a user writes."""
    go(yaml, "max_iters=2")
    path = Path("results/tiny/config.yaml")
    path.write_text("")
    with pytest.raises(RunError) as error:
        go(yaml, "max_iters=2")
    assert str(error.value) == (
        "RunError: the config of the run tiny is damaged: the config is empty\n"
        "  where  results/tiny/config.yaml\n"
        "  try    restore the file from a copy; or take the run's directory away and train anew"
    )


def test_words_that_are_no_files(here: Path) -> None:
    """A value longer than any file's name is a value; a plan that has no directory to go to is refused."""
    assert split_arguments([f"name={'a' * 300}"]) == ([], [f"name={'a' * 300}"])
    Path("a.yaml").write_text("model: {n_layer: 1}\ntrain: {max_iters: 2}\n")
    with pytest.raises(ConfigError, match="the plan cannot be written: No such file or directory"):
        plan(["a.yaml"], tokens="1M", out=Path("nodir/x.json"))


def test_a_key_file_that_is_not_utf_8(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """.env is named."""
    pytest.importorskip("dotenv")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    Path(".env").write_bytes(b"WANDB_API_KEY=\xff")
    with pytest.raises(RunError, match="the file with WANDB_API_KEY is not UTF-8"):
        _key()
