"""How much of the device a step uses: its number format, how many tokens it is given at once, what else is moved."""

from __future__ import annotations

from collections.abc import Iterator

from ganeum import units
from ganeum.config.batch import divisors
from ganeum.plan.critique.facts import Step, Warning

MUCH = 0.15  # of a step, for the update of the weights
WIDTH = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}  # bytes of a number that is multiplied
AMPERE = (8, 0)
OVERFLOW = ("t5", "mt5", "umt5")  # families whose activations pass fp16's range


def slow_precision(step: Step) -> Iterator[Warning]:
    """fp32 where the device multiplies something narrower far faster."""
    fast = step.device.fast_precision
    now, then = step.device.peak(step.precision), step.device.peak(fast)
    if step.precision_chosen or step.precision not in ("fp32", "tf32") or not now or not then or then < 1.5 * now:
        return
    if fast == "fp16" and step.architecture.family in OVERFLOW:
        return
    yield Warning(
        "warning",
        f"{step.precision} leaves most of this device unused",
        f"it multiplies {fast} {then / now:.2g} times as fast: {units.flops(then)}/s instead of {units.flops(now)}/s",
        f"{step.section}precision=auto",
        lost=1 - now / then,
    )


def absent_precision(step: Step) -> Iterator[Warning]:
    """A format that the device has no hardware for: emulated, or another one under its name."""
    device, capability, precision = step.device, step.device.capability, step.precision
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
        f"{step.section}precision=auto ({device.fast_precision} here)",
        lost=0.5,
    )


def narrow_range(step: Step) -> Iterator[Warning]:
    """fp16 where bf16 is as fast, or for a model that is known to leave its range."""
    device = step.device
    if step.precision != "fp16" or device.kind != "cuda":
        return
    bf16 = (device.capability or (0, 0)) >= AMPERE
    if step.architecture.family in OVERFLOW:
        yield Warning(
            "warning",
            f"{step.architecture.family} is known to overflow in fp16",
            "its makers computed in bf16 alone, and activations of t5-base pass fp16's 65,504, in autocast too: "
            "what comes out may be nan (huggingface/transformers#5651, #10956; "
            "google-research/text-to-text-transfer-transformer#539)",
            f"{step.section}precision=bf16" if bf16 else f"{step.section}precision=fp32, or a GPU from Ampere on",
            lost=0.9,
        )
    elif bf16:
        yield Warning(
            "note",
            "fp16 where bf16 costs the same",
            f"fp16 ends at 65,504, so the loss is scaled and updates that overflow are left out; {device.name} "
            "multiplies bf16, which has fp32's range, as fast",
            f"{step.section}precision=bf16",
        )


def few_tokens_at_once(step: Step) -> Iterator[Warning]:
    """Fewer tokens at once than the weights' way through memory allows to multiply: a roofline.

    M tokens times a k × n matrix are 2·M·k·n FLOP, for which the matrix is read once: M FLOP a byte in two bytes a
    number, M / 2 in four (Williams, Waterman and Patterson 2009, doi 10.1145/1498765.1498785). Of two streams the
    longer one counts: the other's weights are used even less.
    """
    device, way, width = step.device, step.execution, WIDTH[step.precision]
    peak, bandwidth = device.peak(step.precision), device.memory_bandwidth_gb_s
    if device.kind != "cuda" or way.purpose != "training" or not peak or not bandwidth:
        return
    length, ridge = max(way.length, way.source_length), peak / (bandwidth * 1e9)
    share = way.micro_batch_size * length * 2 / width / ridge
    if share >= 1:
        return
    enough = [size for size in divisors(step.batch_size) if size * length * 2 / width >= ridge]
    larger = -(-round(ridge * width / 2) // length)
    if not step.fitting(micro_batch_size=enough[0] if enough else larger, accumulation=1):
        more = f"room for more at once: {step.section}activation_checkpointing=auto, or another lever of memory"
    elif enough:
        more = f"{step.section}micro_batch_size={enough[0]}"
    else:
        more = f"{step.section}batch_size={larger * way.devices}, with the learning rate for it"
    yield Warning(
        "warning",
        "too few tokens at once for this GPU",
        f"{way.micro_batch_size} × {units.things(length, 'token')} at once do "
        f"{share * ridge:,.0f} FLOP for each byte of a weight that "
        f"is read, and it could do {ridge:,.0f}: at most {share:.0%} of its rate",
        more,
        lost=1 - share,
    )


def optimizer_traffic(step: Step) -> Iterator[Warning]:
    """An update moves every weight, however few tokens it is for."""
    way = step.execution
    if way.purpose != "training" or step.time is None:
        return
    update_s = step.time.parts.get("optimizer", 0.0)
    share = update_s / step.time.step_s
    if share < MUCH:
        return
    yield Warning(
        "note",
        "the batch is small for the model: much of each step goes into the update of the weights",
        f"{units.duration(update_s)} of {units.duration(step.time.step_s)} for "
        f"{units.things(step.batch_size * way.length, 'token')}: about {share:.0%} of the step",
        f"{step.section}batch_size={2 * step.batch_size * way.devices} with half the steps",
        lost=share / 2,
    )


def unknown_peak(step: Step) -> Iterator[Warning]:
    """A card that is in no catalogue."""
    if step.device.kind == "cpu" or step.device.peak(step.precision):
        return
    yield Warning(
        "note",
        "MFU will not be shown",
        f"{step.device.name} has no {step.precision} peak in the catalogue of GPUs",
        "tokens per second, which is measured all the same",
    )


OF_ANY_MODEL = (slow_precision, absent_precision, narrow_range, few_tokens_at_once, optimizer_traffic)
LOOKS = (*OF_ANY_MODEL, unknown_peak)
