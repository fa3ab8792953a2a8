"""Checkpoints: complete or not there at all, checked by their sums, the best one never lost.

checkpoints/step-00001000/  model.safetensors   the weights, as `models/weights.py` gives them
                            training_state.pt   everything else that going on needs; torch.load(weights_only=True)
                            meta.json           step, versions, size and sha256 of the two others
checkpoints/damaged-step-…  the last one that was passed over; only one is kept
checkpoints/latest, best    text files with the name of such a directory (on Windows symbolic links take rights)

A checkpoint grows in `.new-…` and gets its name by one rename, after every byte of it is on the disk. One that goes is
renamed to `.old-…` before its files go. So whatever has the name `step-…` is whole, whenever the process dies;
what hands or disks do to it later, the sums tell.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import ganeum
from ganeum.errors import CheckpointError
from ganeum.record import RunDirectory, flush_directory, read_json, write_atomic, write_json
from ganeum.train import disk

MODEL, STATE, META = "model.safetensors", "training_state.pt", "meta.json"
POINTERS = ("latest", "best")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved: weights by name, and the training's state, all on the CPU."""

    step: int
    path: Path
    weights: dict[str, Tensor]
    state: dict[str, Any]


def save(
    run: RunDirectory,
    step: int,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    *,
    keep_last: int,
    best_step: int | None,
) -> Path:
    """Writes a checkpoint, points `latest` (and `best`) to it, and lets old ones go.

    Args:
        weights: name → tensor on any device; none may share memory with another.
        state: tensors and plain containers only, so that loading executes nothing.
        keep_last: this many are kept, the newest first; that of `best_step` besides.
    Raises:
        RunError: the disk is full; what was there before is untouched.
    """
    final = run.checkpoint_dir(step)
    growing = final.with_name(f".new-{final.name}")
    run.checkpoints_dir.mkdir(parents=True, exist_ok=True)
    held = "no checkpoint was lost" if steps(run) else "no checkpoint had been written yet"
    with disk.space_for(run.checkpoints_dir, size_bytes(weights, state), held):
        try:
            _write(growing, step, weights, state)
            if final.exists():  # a damaged one, passed over at the start
                _remove(final)
            growing.rename(final)
            flush_directory(run.checkpoints_dir)
            point(run, best_step)
        except BaseException:
            shutil.rmtree(growing, ignore_errors=True)
            raise
    for old in steps(run)[keep_last:]:
        if old not in (step, best_step):
            _remove(run.checkpoint_dir(old))
    return final


def _write(directory: Path, step: int, weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    model, training = directory / MODEL, directory / STATE
    with training.open("wb") as file:
        hashed = disk.HashedFile(file)
        torch.save(dict(state), hashed)  # type: ignore[arg-type]  # it needs no more than write and flush
        sums = {STATE: hashed.finish()}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, model)
    shutil.copymode(training, model)  # safetensors gives it to its owner alone
    disk.fsync(model)
    sums[MODEL] = disk.hash_file(model)
    files = {name: {"bytes": (directory / name).stat().st_size, "sha256": sums[name]} for name in (MODEL, STATE)}
    versions = {"ganeum_version": ganeum.__version__, "torch_version": torch.__version__}
    write_json(directory / META, {"step": step, "files": files, **versions})
    flush_directory(directory)


def point(run: RunDirectory, best_step: int | None) -> None:
    """`latest` and `best` name the newest checkpoint and the best one, where these exist."""
    there = steps(run)
    for name, step in zip(POINTERS, (there[0] if there else None, best_step), strict=True):
        if step in there:
            write_atomic(run.checkpoints_dir / name, run.checkpoint_dir(step).name + "\n")


def _remove(directory: Path) -> None:
    leaving = directory.with_name(f".old-{directory.name}")
    shutil.rmtree(leaving, ignore_errors=True)
    directory.rename(leaving)
    shutil.rmtree(leaving)


def tidy(run: RunDirectory) -> None:
    """Removes what a process that died was still writing or removing."""
    if run.checkpoints_dir.is_dir():
        for path in run.checkpoints_dir.iterdir():
            if path.name.startswith((".new-", ".old-")):
                shutil.rmtree(path, ignore_errors=True)


def steps(run: RunDirectory) -> list[int]:
    """The steps that have a checkpoint, newest first."""
    paths = (path for path in run.checkpoints_dir.glob("step-*") if path.is_dir() and path.name[5:].isdecimal())
    names = (re.fullmatch(r"step-(\d{8,})", path.name) for path in paths)  # not a copy that somebody made beside it
    return sorted((int(name[1]) for name in names if name), reverse=True)


def set_aside(run: RunDirectory, step: int, say: Callable[[str], None] = print) -> None:
    """Takes the name from the damaged checkpoints after `step`, which training goes on from; the newest is kept."""
    passed_over = [later for later in steps(run) if later > step]
    if not passed_over:
        return
    for earlier in run.checkpoints_dir.glob("damaged-step-*"):
        _remove(earlier)
    newest, *others = (run.checkpoint_dir(later) for later in passed_over)
    kept = newest.rename(newest.with_name(f"damaged-{newest.name}"))
    for other in others:
        _remove(other)
    say(f"{newest.name} is kept as {kept.name}, until another one is damaged")


def load_latest(run: RunDirectory, say: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest checkpoint that is as it was written; damaged ones are named through `say` and passed over.

    Raises:
        CheckpointError: there are checkpoints and every one is damaged.
    """
    damage: list[CheckpointError] = []
    for step in steps(run):
        try:
            checkpoint = load(run.checkpoint_dir(step))
        except CheckpointError as error:
            damage.append(error)
            continue
        for found in damage:
            say(f"{found.what}: passed over ({found.where}); going on from step {checkpoint.step:,}")
        return checkpoint
    if damage:
        raise CheckpointError(
            f"no checkpoint of this run can be used: {len(damage)} of {len(damage)} damaged",
            where=str(run.checkpoints_dir),
            why="\n".join(error.what for error in damage),
            suggestion="restore them from a copy, or start again with --overwrite",
        )
    return None


def load(directory: Path) -> Checkpoint:
    """Reads and checks one checkpoint.

    Raises:
        CheckpointError: a file is missing, shorter or longer than written, or of another sum; it is named.
    """
    meta = check(directory)
    return Checkpoint(
        meta["step"],
        directory,
        load_file(directory / MODEL),
        torch.load(directory / STATE, map_location="cpu", weights_only=True),
    )


def check(directory: Path) -> dict[str, Any]:
    """Compares every file with what meta.json says of it → meta.json's content; raises CheckpointError."""
    path = directory / META
    try:
        meta: dict[str, Any] = read_json(path)
        expected = {name: (meta["files"][name]["bytes"], meta["files"][name]["sha256"]) for name in (MODEL, STATE)}
        int(meta["step"])
    except FileNotFoundError:
        raise _damaged(path, "is missing") from None
    except (ValueError, KeyError, TypeError):
        raise _damaged(path, "cannot be read") from None
    for name, (size, digest) in expected.items():
        path = directory / name
        if not path.is_file():
            raise _damaged(path, "is missing")
        if path.stat().st_size != size:
            raise _damaged(path, f"has {path.stat().st_size:,} bytes, {size:,} were written")
        if disk.hash_file(path) != digest:
            raise _damaged(path, "is not what was written (its sha256 differs)")
    return meta


def _damaged(path: Path, how: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint {path.parent.name} is damaged: {path.name} {how}",
        where=str(path),
        suggestion="another checkpoint of the run, or a copy of this one",
    )


def size_on_disk(directory: Path) -> int:
    """Bytes that a checkpoint takes there."""
    return sum(path.stat().st_size for path in directory.iterdir())


def size_bytes(weights: Mapping[str, Tensor], state: Mapping[str, Any]) -> int:
    """What a checkpoint will take on the disk, a little more rather than less."""

    def count(value: Any) -> int:
        if isinstance(value, Tensor):
            return value.numel() * value.element_size() + 512
        if isinstance(value, Mapping):
            return sum(map(count, value.values()))
        return sum(map(count, value)) if isinstance(value, (list, tuple)) else 64

    return count(weights) + count(state) + (1 << 16)
