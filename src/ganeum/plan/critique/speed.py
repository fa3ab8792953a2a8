"""How much of the device a step uses: its number format, how many tokens it is given at once, what else is moved."""

from __future__ import annotations

from collections.abc import Iterator

from ganeum import units
from ganeum.config.batch import divisors
from ganeum.plan.critique.facts import Facts, Warning

USUAL_MFU = 0.4
ADAMW_BYTES = 28  # a parameter and step: reads weight, gradient, two moments, writes three of them, in fp32
WIDTH = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}  # bytes of a number that is multiplied
AMPERE, VOLTA = (8, 0), (7, 0)


def slow_precision(facts: Facts) -> Iterator[Warning]:
    """fp32 where the device multiplies something narrower far faster."""
    fast = facts.device.fast_precision
    now, then = facts.device.peak(facts.precision), facts.device.peak(fast)
    if facts.precision not in ("fp32", "tf32") or not now or not then or then < 1.5 * now:
        return
    yield Warning(
        "warning",
        f"{facts.precision} leaves most of this device unused",
        f"it multiplies {fast} {then / now:.2g} times as fast: {units.flops(then)}/s instead of {units.flops(now)}/s",
        "train.precision=auto",
        lost=1 - now / then,
    )


def absent_precision(facts: Facts) -> Iterator[Warning]:
    """A format that the device has no hardware for: emulated, or another one under its name."""
    device, capability, precision = facts.device, facts.device.capability, facts.precision
    if device.kind == "cuda" and capability is not None:
        where = f"compute capability {capability[0]}.{capability[1]}"
        absent = {"bf16": capability < AMPERE, "tf32": capability < AMPERE, "fp16": capability < (6, 0)}
        since = {"bf16": "8.0 (Ampere)", "tf32": "8.0 (Ampere)", "fp16": "6.0 (Pascal)"}
    elif device.kind == "cpu":
        where = "neither AVX512-BF16 nor AMX"
        absent = {"bf16": device.bf16_unit is None, "fp16": True}
        since = {"bf16": "a CPU with one of them", "fp16": "no CPU that torch multiplies it on"}
    else:
        return
    if not absent.get(precision):
        return
    yield Warning(
        "warning",
        f"this device has no hardware for {precision}",
        f"{device.name} ({where}) emulates it or computes in fp32; it takes {since[precision]}"
        if device.kind == "cuda" or precision == "bf16"
        else f"{device.name} converts every number there and back",
        f"train.precision=auto ({device.fast_precision} here)",
        lost=0.5,
    )


def narrow_range(facts: Facts) -> Iterator[Warning]:
    """fp16 where bf16 is as fast."""
    device = facts.device
    if facts.precision != "fp16" or device.kind != "cuda" or (device.capability or (0, 0)) < AMPERE:
        return
    yield Warning(
        "note",
        "fp16 where bf16 costs the same",
        f"fp16 ends at 65,504, so the loss is scaled and updates that overflow are left out; {device.name} multiplies "
        "bf16, which has fp32's range, as fast",
        "train.precision=bf16",
    )


def few_tokens_at_once(facts: Facts) -> Iterator[Warning]:
    """Fewer tokens at once than the weights' way through memory allows to multiply: a roofline.

    M tokens times a k × n matrix are 2·M·k·n FLOP, for which the matrix is read once: M FLOP a byte in two bytes a
    number, M / 2 in four (Williams, Waterman and Patterson 2009, doi 10.1145/1498765.1498785).
    """
    device, train = facts.device, facts.config.train
    peak, bandwidth = device.peak(facts.precision), device.memory_bandwidth_gb_s
    if device.kind != "cuda" or not peak or not bandwidth:
        return
    block, width = facts.config.model.block_size, WIDTH[facts.precision]
    tokens, ridge = facts.micro_batch_size * block, peak / (bandwidth * 1e9)
    share = tokens * 2 / width / ridge
    if share >= 1:
        return
    enough = [size for size in divisors(train.batch_size) if size * block * 2 / width >= ridge]
    fitting = [size for size in enough[:1] if facts.memory_with(facts.config, size).fits(device)]
    if fitting:
        more = f"train.micro_batch_size={fitting[0]}"
    elif enough:
        more = "room for more at once: train.activation_checkpointing=auto, or another lever of memory"
    else:
        more = f"train.batch_size={-(-round(ridge * width / 2) // block)}, with the learning rate for it"
    yield Warning(
        "warning",
        "too few tokens at once for this GPU",
        f"{facts.micro_batch_size} × {block} tokens at once do {tokens * 2 / width:,.0f} FLOP for each byte of a "
        f"weight that is read, and it could do {ridge:,.0f}: at most {share:.0%} of its rate",
        more,
        lost=1 - share,
    )


def optimizer_traffic(facts: Facts) -> Iterator[Warning]:
    """An update moves every weight, however few tokens it is for."""
    peak, bandwidth = facts.device.peak(facts.precision), facts.device.memory_bandwidth_gb_s
    if not peak or not bandwidth:
        return
    traffic = ADAMW_BYTES * facts.parameters.trainable
    update_s = traffic / (bandwidth * 1e9)
    compute_s = facts.flops.per_token * facts.lengths.tokens_per_step / (USUAL_MFU * peak)
    share = update_s / (update_s + compute_s)
    if share < 0.15:
        return
    yield Warning(
        "note",
        "the batch is small for the model: much of each step goes into the update of the weights",
        f"{units.size(traffic)} of weights, gradients and moments move for {facts.lengths.tokens_per_step:,} tokens: "
        f"about {share:.0%} of the step",
        f"train.batch_size={2 * facts.config.train.batch_size} with half the steps",
        lost=share / 2,
    )


def unknown_peak(facts: Facts) -> Iterator[Warning]:
    """A card that is in no catalogue."""
    if facts.device.kind == "cpu" or facts.device.peak(facts.precision):
        return
    yield Warning(
        "note",
        "MFU will not be shown",
        f"{facts.device.name} has no {facts.precision} peak in the catalogue of GPUs",
        "tokens per second, which is measured all the same",
    )


LOOKS = (slow_precision, absent_precision, narrow_range, few_tokens_at_once, optimizer_traffic, unknown_peak)
