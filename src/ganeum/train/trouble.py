"""Errors of torch and of the operating system as a user can act on them, where there is something to do."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from ganeum import units
from ganeum.config import Config
from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.errors import GaneumError, RunError
from ganeum.hardware import Device, limits
from ganeum.plan import fastest, micro_batch
from ganeum.plan.levers import by_estimate, needs, table, that_fit
from ganeum.plan.memory import Memory
from ganeum.record import RunDirectory
from ganeum.train import checkpoint, disk, out_of_memory
from ganeum.train.out_of_memory import Full

LESS = 0.85  # of what was needed by a plan that memory has just run out with: a lever that saves less is none
ALL_THE_SAME = "\nor --force, which tries it all the same"  # said by whoever has such an option


def explained(error: BaseException, run: RunDirectory, config: Config, device: Device) -> BaseException:
    """What ended a run, in other words where these help; else itself."""
    if isinstance(error, GaneumError):
        return error
    if disk.is_full(error):
        newest = checkpoint.steps(run)
        if not newest:
            return disk.full(run.path, None, "no checkpoint had been written yet")
        return disk.full(run.path, checkpoint.size_on_disk(run.checkpoint_dir(newest[0])), "no checkpoint was lost")
    if out_of_memory.is_it(error):
        return too_large(out_of_memory.Full(out_of_memory.said(error), "start"), config, device, run)
    return limits.no_thread(error) or _refused(error, run) or error


def too_large(
    full: Full,
    config: Config,
    device: Device,
    run: RunDirectory | None = None,
    proven: Callable[[Config], bool] | None = None,
) -> RunError:
    """The error for memory that ran out where fewer sequences at once do not help, or are not ours to choose.

    Args:
        config: as it was tried; with a micro-batch of several sequences, a smaller one is what to type.
        device: as it was looked at before there was a model.
        run: where there is one, it goes on from its last checkpoint, and settings that change what it learns need
            another name.
        proven: tries a config; it then decides about the levers, and not the estimate.
    """
    how = " under another name" if run else ""
    size, length = config.train.micro_batch_size, _length(config)
    if full.part == "step" and isinstance(size, int) and size > 1:
        return RunError(
            f"the device's memory is full with a micro-batch of {size} sequences of {length} tokens",
            where=config.device,
            why=full.said,
            suggestion=f"train.micro_batch_size={smaller(config.train.batch_size, size)}{how} "
            f"(the batch it learns with stays {config.train.batch_size})",
        )
    if full.part == "evaluation":
        size = config.train.eval_batch_size
        return RunError(
            f"the device's memory is full in an evaluation of {size} sequences of {length} tokens at once",
            where=config.device,
            why=full.said,
            suggestion=f"train.eval_batch_size=auto{how}",
        )
    needed = micro_batch.needed(config, device, 1)
    most = min(device.usable_gib * units.GIB, LESS * needed.total)
    fits = by_estimate(most) if proven is None else lambda lever: proven(change(config, lever.settings))
    levers = that_fit(config, device, fits)
    each = "\neach under another name" if run else ""
    if run and any("train.activation_checkpointing" in lever.settings for lever in levers):
        each += "; train.activation_checkpointing also under this one"
    if full.part in ("start", "update"):
        what = {"start": "the model does not fit", "update": "the model's update does not fit"}[full.part]
    else:
        what = f"one sequence of {length} tokens does not fit"
    return RunError(
        f"{what} into the memory of {device.name}",
        where=f"{config.device}, {device.usable_gib:.2f} GiB usable",
        why=f"about {units.gib(needed.total)} are needed by the estimate: {needs(needed)}\n{full.said}",
        suggestion=table(levers) + each if levers else f"a far smaller model{how}",
    )


def impossible(needed: Memory, config: Config, device: Device) -> RunError:
    """The error for a run that cannot fit, before anything is allocated for it.

    Args:
        needed: what it takes with one sequence at once and everything computed twice that may be.
        config: as it was asked for; ``train.activation_checkpointing`` may be ``auto``.
    """
    config = change(config, {"train.micro_batch_size": 1})
    twice = ""
    if config.train.activation_checkpointing == "auto":
        config, twice = change(config, {"train.activation_checkpointing": fastest.LEVELS[-1]}), ", computed twice"
    levers = that_fit(config, device, by_estimate(device.usable_gib * units.GIB))
    return RunError(
        f"this run cannot fit into the memory of {device.name}",
        where=f"{config.device}, {device.usable_gib:.2f} GiB usable",
        why=f"at least {units.gib(needed.least)} are needed with one sequence of "
        f"{_length(config)} tokens at once{twice}: {needs(needed)}",
        suggestion=(table(levers) or "a far smaller model") + ALL_THE_SAME,
    )


def _length(config: Config) -> str:
    """Of a sequence, tokens; of examples the most that one may have, of pairs that of both sides."""
    data = config.data
    if config.model.source is None:
        return f"{config.model.block_size:,}"
    return f"{data.max_length:,}" + ("" if data.kind == "texts" else f" + {data.max_target_length:,}")


def smaller(batch_size: int, size: int) -> int:
    """The next divisor of the batch that is at most half of ``size``: 64, 16 → 8."""
    return max(divisor for divisor in divisors(batch_size) if 2 * divisor <= size)


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
