"""What goes wrong while training: damaged checkpoints, a loss that is no number, no space."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from tiny_corpus import go, metrics

from ganeum import hardware
from ganeum.config import load
from ganeum.errors import CheckpointError, RunError
from ganeum.hardware import Device
from ganeum.record import RunDirectory
from ganeum.train import checkpoint
from ganeum.train.out_of_memory import Full


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["model.safetensors", "training_state.pt", "meta.json"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(yaml: Path, file: str) -> None:
    """One bit of the newest is wrong (meta.json: cut short): the file is named, and the end is the same as without."""
    constant = ["schedule=constant", "warmup_iters=2"]  # a schedule that a larger length leaves as it was
    go(yaml, *constant, "name=whole", "max_iters=24")
    expected = load_file("results/whole/checkpoints/step-00000024/model.safetensors")
    go(yaml, *constant)
    newest = Path("results/tiny/checkpoints/step-00000020")
    (damage if file != "meta.json" else lambda path: path.write_bytes(path.read_bytes()[:20]))(newest / file)
    _, shown = go(yaml, *constant, "max_iters=24")
    assert f"the checkpoint step-00000020 is damaged: {file} " in shown
    assert "going on from step 16" in shown
    ended = load_file("results/tiny/checkpoints/step-00000024/model.safetensors")
    assert expected.keys() == ended.keys()
    assert all(expected[name].equal(ended[name]) for name in expected)


def test_when_every_checkpoint_is_damaged_the_run_says_so(yaml: Path) -> None:
    """Nothing is started from scratch behind the user's back."""
    go(yaml)
    for path in Path("results/tiny/checkpoints").glob("step-*/model.safetensors"):
        damage(path)
    with pytest.raises(CheckpointError) as error:
        go(yaml, "max_iters=24")
    how = "model.safetensors is not what was written (its sha256 differs)"
    assert str(error.value) == (
        "CheckpointError: no checkpoint of this run can be used: 2 of 2 damaged\n"
        "  where  results/tiny/checkpoints\n"
        f"  why    the checkpoint step-00000020 is damaged: {how}\n"
        f"         the checkpoint step-00000016 is damaged: {how}\n"
        "  try    restore them from a copy, or start again with --overwrite"
    ).replace("results/tiny", str(Path("results/tiny").resolve()))
    assert json.loads(Path("results/tiny/status.json").read_text())["state"] == "finished"


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_checkpoint(yaml: Path) -> None:
    """A learning rate of 1e18 after two good steps: the weights blow up, the batch is kept, the checkpoint is whole."""
    overrides = [
        "learning_rate=1e18",
        "schedule=constant",
        "warmup_iters=0",
        "checkpoint_interval=1",
        "eval_interval=50",
    ]
    with pytest.raises(RunError) as error:
        go(yaml, *overrides, "eval_interval=50")
    run = RunDirectory(Path("results/tiny").resolve())
    step = int(str(error.value).partition("at step ")[2].split("\n")[0])
    kept = checkpoint.steps(run)[0]
    assert kept == step - 1
    assert str(error.value) == (
        f"RunError: the loss or its gradient is not a finite number at step {step}\n"
        f"  where  {run.logs_dir}/bad-batch-{step:08d}.safetensors "
        "(the batch: tokens x, targets y, their offsets in train.bin)\n"
        f"  why    the last good checkpoint is step-{kept:08d}, and was not touched\n"
        "  try    train.learning_rate below 1e+18, a longer train.warmup_iters, under another name"
    )
    batch = load_file(run.logs_dir / f"bad-batch-{step:08d}.safetensors")
    tokens = np.fromfile(load(yaml).data.directory + "/train.bin", "<u2").astype(np.int64)
    for x, y, offset in zip(batch["x"], batch["y"], batch["offsets"], strict=True):
        assert (x.numpy() == tokens[offset : offset + 32]).all()
        assert (y.numpy() == tokens[offset + 1 : offset + 33]).all()
    assert all(np.isfinite(t.numpy()).all() for t in checkpoint.load(run.checkpoint_dir(kept)).weights.values())
    status = json.loads(run.status_path.read_text())
    assert (status["state"], status["error"]) == ("failed", str(error.value))


def test_a_disk_without_space_is_refused_before_writing(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a checkpoint needs and what is free are said; nothing of it is on the disk."""
    from ganeum.train import disk

    monkeypatch.setattr(disk, "_free", lambda directory: 100_000)
    with pytest.raises(RunError) as error:
        go(yaml)
    lines = str(error.value).splitlines()
    assert lines[0].startswith("RunError: the disk is full: a checkpoint needs ")
    assert lines[0].endswith(", 97.7 KiB are free")
    assert lines[2:] == [
        "  why    nothing more can be written; no checkpoint had been written yet",
        "  try    free some space (old runs: `ganeum runs`), then give the same command again: it goes on from there",
    ]
    assert not list(Path("results/tiny/checkpoints").iterdir())


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
            "RunError: the model does not fit into the memory of a CPU\n"
            "  where  cpu, 1.00 GiB usable\n"
            "  why    about 0.19 GiB are needed by the estimate: framework 0.19\n"
            "         9 bytes more were refused\n"
            "  try    a far smaller model under another name",
        ),
        (
            OSError(27, "File too large", "/some/file"),
            "RunError: a file of the run could not be read or written: File too large\n"
            "  where  /some/file\n"
            "  try    when that is mended, give the same command again: it goes on from the last checkpoint",
        ),
    ],
    ids=["memory", "file too large"],
)
def test_what_the_machine_refuses_is_said(
    yaml: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, shown: str
) -> None:
    """No traceback: what was too much, where, and what to try."""
    from ganeum.train.loop import Loop

    def refuse(loop: Loop, plan: object) -> None:
        raise error

    monkeypatch.setattr(Loop, "run", refuse)
    monkeypatch.setattr(hardware, "detect", lambda name: Device("a CPU", "cpu", memory_gib=1.25, usable_gib=1.0))
    with pytest.raises(RunError) as found:
        go(yaml)
    assert str(found.value) == shown
    assert json.loads(Path("results/tiny/status.json").read_text())["error"] == shown


def test_no_memory_while_measuring_leaves_no_run(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """train.hours: the same words, before there is a directory."""
    from ganeum.train import pace

    monkeypatch.setattr(pace, "measure", lambda *_, **__: Full("9 bytes more were refused", "step"))
    with pytest.raises(RunError, match="the device's memory is full with a micro-batch of 4 sequences"):
        go(yaml, "hours=1")
    assert not Path("results/tiny").exists()


def test_a_full_disk_without_a_checkpoint_names_no_size(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How large one will be is not known then."""
    from ganeum.train import run

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "trackers", refuse)
    with pytest.raises(RunError, match=r"the disk is full: [\d.]+ \wiB are free"):
        go(yaml)


def test_skipped_updates_of_fp16_are_seen(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss scale beyond fp16's range: each halving skips an update, and the metrics count them."""
    from ganeum.step import optimizer_step

    monkeypatch.setattr(hardware, "with_measured_peak", lambda device, precision: device)  # slow in fp16 on a CPU
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

    monkeypatch.setattr(hardware, "with_measured_peak", lambda device, precision: device)  # slow in fp16 on a CPU
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
