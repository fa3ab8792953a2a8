"""Errors of torch and of the operating system as a user can act on them, where there is something to do."""

from __future__ import annotations

import os
import re

import torch

from ganeum.config import Config
from ganeum.errors import GaneumError, RunError
from ganeum.record import RunDirectory
from ganeum.train import checkpoint, disk


def explained(error: BaseException, run: RunDirectory, config: Config) -> BaseException:
    """What ended a run, in other words where these help; else itself."""
    if isinstance(error, GaneumError):
        return error
    if disk.is_full(error):
        newest = checkpoint.steps(run)
        if not newest:
            return disk.full(run.path, None, "no checkpoint had been written yet")
        return disk.full(run.path, checkpoint.size_on_disk(run.checkpoint_dir(newest[0])), "no checkpoint was lost")
    return out_of_memory(error, config, " under another name") or _refused(error, run) or error


def out_of_memory(error: BaseException, config: Config, how: str = "") -> RunError | None:
    """For a device whose memory is full, or a CPU that got no more; `how`: what smaller sizes take besides."""
    full = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
    size = config.train.micro_batch_size
    if not full or size == "auto":
        return None
    smaller = f"train.micro_batch_size={size // 2}{how} (the batch it learns with stays {config.train.batch_size})"
    return RunError(
        f"the device's memory is full with a micro-batch of {size} sequences of {config.model.block_size} tokens",
        where=config.device,
        why=(str(error).splitlines() or ["no more could be allocated"])[0],
        suggestion=smaller if size > 1 else f"a smaller model or model.block_size{how}",
    )


def _refused(error: BaseException, run: RunDirectory) -> RunError | None:
    """For what the operating system refuses; libraries written in Rust keep its number in their text alone."""
    where = str(run.path)
    if isinstance(error, OSError) and error.errno is not None:
        number, where = error.errno, str(error.filename or where)
    elif found := re.search(r"\(os error (\d+)\)", str(error)):
        number = int(found[1])
    else:
        return None
    return RunError(
        f"a file of the run could not be read or written: {os.strerror(number)}",
        where=where,
        suggestion="when that is mended, give the same command again: it goes on from the last checkpoint",
    )
