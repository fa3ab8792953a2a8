"""Runs that hands or disks have hurt, and readers who leave: an error that names the file, or the training goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


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


def test_skipped_updates_of_fp16_are_seen(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss scale beyond fp16's range: each halving skips an update, and the metrics count them."""
    from ganeum.step import optimizer_step

    monkeypatch.setattr(optimizer_step, "FIRST_SCALE", 2.0**30)
    go(yaml, "precision=fp16", "log.interval=1")
    first, last = (metrics("tiny")[place] for place in (0, -1))
    assert (first["skipped_updates"], first["loss_scale"]) == (1, 2.0**29)
    assert last["loss_scale"] == 2.0 ** (30 - last["skipped_updates"])
    go(yaml, "name=other")
    assert "loss_scale" not in metrics("other")[0]


def test_a_loss_scale_without_end_ends_the_run(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 2⁻¹⁴ nothing is learnt any more; fp32 is what to try."""
    from ganeum.step import optimizer_step

    monkeypatch.setattr(optimizer_step, "FIRST_SCALE", 2.0**-15)
    with pytest.raises(RunError) as error:
        go(yaml, "precision=fp16")
    assert str(error.value) == (
        "RunError: the gradient overflows fp16 at every loss scale: it is 3.05e-05 at step 1\n"
        f"  where  {Path('results/tiny/logs/metrics.jsonl').resolve()}\n"
        "  why    0 updates were skipped, and the weights no longer learn\n"
        "  try    train.learning_rate below 0.003, a longer train.warmup_iters, or train.precision=fp32, "
        "under another name"
    )
