"""How long it takes, what it is counted in, and how much of it is something else than training."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ganeum import units
from ganeum.plan.critique.facts import Facts, Step, Warning
from ganeum.plan.memory import state

LONG_HOURS = 10
LARGE_BATCH = 8  # sequences: from here on steps and windows cannot be confused by chance
OFTEN, TOO_OFTEN, ENOUGH = 0.25, 0.5, 0.05  # of the run, spent on something else
DISK = 600e6  # bytes a second: what SATA's third generation carries


def windows_for_steps(facts: Facts) -> Iterator[Warning]:
    """A length in steps that was counted in windows: a step takes a whole batch of them."""
    length, train = facts.lengths, facts.config.train
    if train.max_iters is None or not length.epochs or not length.windows or train.batch_size < LARGE_BATCH:
        return
    if length.epochs < train.batch_size:
        return
    meant = max(1, round(train.max_iters / length.windows))
    assert length.steps_per_epoch is not None
    yield Warning(
        "warning",
        "the length in steps looks like one in windows",
        f"{train.max_iters:,} steps are {train.max_iters / length.windows:,.3g} times the {length.windows:,} windows, "
        f"but a step takes {train.batch_size} of them: these are {length.epochs:,.0f} epochs",
        f"train.max_iters={meant * length.steps_per_epoch} ({units.things(meant, 'epoch')} of "
        f"{length.steps_per_epoch:,} steps)",
        lost=1 - meant / length.epochs,
    )


def warm_up(facts: Facts) -> Iterator[Warning]:
    """A warm-up that the run hardly outlives."""
    warmup, steps = facts.config.train.warmup_iters, facts.lengths.steps
    if not isinstance(warmup, int) or not steps or warmup <= steps // 2:
        return
    reached = min(1.0, steps / warmup)
    yield Warning(
        "warning",
        "the warm-up is longer than the run" if warmup > steps else "the warm-up is most of the run",
        f"train.warmup_iters is {warmup:,}, and there are {steps:,} steps: the learning rate "
        + (f"ends at {reached:.0%} of its peak" if warmup > steps else "is at its peak only in the rest"),
        "train.warmup_iters=auto",
        lost=warmup / (2 * steps) if warmup <= steps else 1 - reached / 2,
    )


def long(step: Step) -> Iterator[Warning]:
    """Half a day and more."""
    peak = step.device.peak(step.precision)
    if not peak or not step.steps:
        return
    work = step.flops.per_step * step.steps
    least = work / peak / step.execution.devices
    expected = step.step_s * step.steps if step.step_s else least
    if expected < LONG_HOURS * 3600:
        return
    devices = f"these {step.execution.devices} devices'" if step.execution.devices > 1 else "this device's"
    figure = (
        f"{units.flops(work)} at {devices} {units.flops(peak * step.execution.devices)}/s are {units.duration(least)} "
        "at the very least"
    )
    if step.step_s:
        figure += f", and about {units.duration(expected)} at the {least / expected:.0%} of it that is expected"
    yield Warning(
        "warning",
        "it will take long",
        figure,
        "fewer steps, a smaller model, or a faster device (--gpu NAME plans for another)",
        lost=1 - LONG_HOURS * 3600 / expected,
    )


def evaluations(facts: Facts) -> Iterator[Warning]:
    """Evaluations that cost as much as what they judge: a third of a training step's arithmetic a token."""
    train, length, held_out = facts.config.train, facts.lengths, facts.held_out
    tokens = held_out if train.eval_tokens == "all" else min(train.eval_tokens, held_out or train.eval_tokens)
    if not length.steps or not length.tokens_seen or not tokens or held_out == 0:
        return
    times = math.ceil(length.steps / _interval(train.eval_interval, length.steps))
    once = tokens * facts.flops.forward_per_token
    training = length.tokens_seen * (facts.flops.per_token + facts.flops.recomputed_per_token)
    share = times * once / (times * once + training)
    if share < OFTEN:
        return
    affordable = int(ENOUGH * training / once)  # evaluations of that size
    advice = f"train.eval_interval={math.ceil(length.steps / affordable)}" if affordable > 1 else ""
    fewer = max(1, int(ENOUGH * training / times / facts.flops.forward_per_token / facts.config.model.block_size))
    yield Warning(
        "warning" if share > TOO_OFTEN else "note",
        "much of the run is evaluation",
        f"{units.things(times, 'evaluation')} of {tokens:,} tokens beside {length.tokens_seen:,} tokens of training: "
        f"{share:.0%} of the arithmetic",
        advice or f"train.eval_tokens={fewer * facts.config.model.block_size}",
        lost=share,
    )


def checkpoints(facts: Facts) -> Iterator[Warning]:
    """Checkpoints that take as long as the steps between them."""
    train, steps = facts.config.train, facts.lengths.steps
    if not steps or not facts.step_s:
        return
    interval = train.eval_interval if train.checkpoint_interval == "auto" else train.checkpoint_interval
    every = _interval(interval, steps)
    held = state.of(facts.architecture, facts.execution)
    size = 4 * facts.parameters.total + held.optimizer + held.host  # the optimizer's, wherever it lies
    share = size / DISK / (size / DISK + every * facts.step_s)
    if share < OFTEN:
        return
    rarer = math.ceil(size / DISK / (ENOUGH * facts.step_s))
    yield Warning(
        "warning" if share > TOO_OFTEN else "note",
        "much of the run is writing checkpoints",
        f"{units.size(size)} every {units.things(every, 'step')} of {units.duration(facts.step_s)}: {share:.0%} of the "
        f"time, on a disk that takes {units.size(DISK)} a second",
        f"train.checkpoint_interval={rarer}",
        lost=share,
    )


def _interval(value: int | float | str, steps: int) -> int:
    """Steps between two: ``auto`` is a tenth of all, below 1 it is a share of all."""
    if isinstance(value, int):
        return value
    return max(1, round(steps * (0.1 if isinstance(value, str) else value)))


OF_EXAMPLES = (warm_up, long, checkpoints)
LOOKS = (windows_for_steps, warm_up, long, evaluations, checkpoints)
