"""Runs that hands or disks have hurt, and readers who leave: an error that names the file, or the training goes on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_corpus import go

from ganeum.errors import CheckpointError, RunError


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
