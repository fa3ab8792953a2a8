"""The fastest way to run a model that fits: how many sequences at once, what is computed again, in what precision.

Every way is weighed by :func:`ganeum.plan.memory.of` and timed by :func:`ganeum.plan.time.of`. For one precision and
one level of checkpointing only the largest micro-batch that fits is looked at: more sequences at once never slow a GPU
down (each kernel does more, and there are fewer of them), and a CPU gets no more than keep it busy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ganeum import units
from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.config.keys import value_of
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import execution, memory, time
from ganeum.plan.architecture import Architecture, configured
from ganeum.plan.examples import rows_of
from ganeum.plan.execution import Checkpointing, Execution, Precision
from ganeum.plan.memory import Memory
from ganeum.plan.micro_batch import CPU_TOKENS
from ganeum.plan.time import StepTime

LEVELS: tuple[Checkpointing, ...] = ("none", "selective", "whole")  # the cheapest first
EQUAL = 0.03  # a way that is slower by so little is as fast: then the one with fewer tricks is taken
SURE = 0.10  # what another precision than the device's usual one must gain
SHORTEST = 64  # tokens: no context is cut below
MOST = 1 << 16  # sequences at once: nobody asks for more

Choice = dict[str, Any]


@dataclass(frozen=True)
class Open:
    """What may be chosen: the values of each, what is preferred first; one value where it is settled."""

    sizes: tuple[int, ...]  # sequences at once, rising
    checkpointing: tuple[Checkpointing, ...]
    precisions: tuple[Precision, ...]


@dataclass(frozen=True)
class Way:
    """One way to run it and what it takes; ``time`` is None where the device's rates are not known."""

    execution: Execution
    memory: Memory
    time: StepTime | None
    fits: bool

    @property
    def pace(self) -> float:
        """Tokens a second; 0 where they are not known."""
        return self.time.tokens_per_second if self.time else 0.0


@dataclass(frozen=True)
class Found:
    """``way``: the one to take; ``others``: what else fits, at its largest micro-batch; ``least``: the way with the
    fewest tricks and the smallest micro-batch, whether it fits or not."""

    way: Way
    others: tuple[Way, ...]
    least: Way


weigh = lru_cache(maxsize=4096)(memory.of)  # one way on many cards needs the same


def choose(config: Config, device: Device, *, may_shorten: bool = False) -> tuple[dict[str, Any], list[Choice]]:
    """What precision, checkpointing and micro-batch become where they are ``auto``: together the fastest that fits.

    ``batch_size`` stays as it is: it is what the model learns with.

    Args:
        config: with ``model.vocab_size`` resolved.
        may_shorten: the length (``length_key``) is halved until something fits.

    Returns:
        Dotted keys and their values, and the choices ``{key, value, reason}`` for plan.json; nothing for what is set.
    """
    settings: dict[str, Any] = {}
    choices: list[Choice] = []
    found = _of(config, device)
    if may_shorten and not found.way.fits and (shorter := _shortened(config, device)):
        length, found = shorter
        key = length_key(config)
        reason = f"{value_of(config, key):,} tokens fit in no way that is allowed: halved until they did"
        settings[key] = length
        choices.append({"key": key, "value": length, "reason": reason})
    way, train = found.way.execution, config.train
    for key, value, reason in (
        (
            "precision",
            way.precision,
            "train.weights is bf16" if train.weights == "bf16" else why_precision(found, device),
        ),
        ("activation_checkpointing", way.checkpointing, why_checkpointing(found, device)),
        ("micro_batch_size", way.micro_batch_size, why_size(found, device, sequences_of(config))),
    ):
        if getattr(train, key) == "auto":
            settings[f"train.{key}"] = value
            choices.append({"key": f"train.{key}", "value": value, "reason": reason})
    return settings, choices


def _of(config: Config, device: Device) -> Found:
    train, sequences = config.train, sequences_of(config)
    usual = execution.of(config, device, sequences)
    size, length = train.micro_batch_size, usual.length + usual.source_length
    sizes = (size,) if size != "auto" else not_too_many(divisors(sequences), length, device)
    level = train.activation_checkpointing
    return among(
        configured.of(config),
        usual,
        device,
        Open(
            sizes=sizes,
            checkpointing=LEVELS if level == "auto" else (level,),
            precisions=precisions(usual.precision, device)
            if train.precision == "auto" and train.weights == "fp32"
            else (usual.precision,),
        ),
    )


def precisions(usual: Precision, device: Device) -> tuple[Precision, ...]:
    """The device's usual one, and the plain one beside it."""
    plain: Precision = "tf32" if device.kind == "cuda" and (device.capability or (0, 0)) >= (8, 0) else "fp32"
    return (usual,) if usual == plain else (usual, plain)


def not_too_many(sizes: Sequence[int], length: int, device: Device) -> tuple[int, ...]:
    """The numbers of sequences that a device gets at once: on a CPU at most 4,096 tokens, or one sequence."""
    if device.kind != "cpu":
        return tuple(sizes)
    return tuple(size for size in sizes if size * length <= CPU_TOKENS) or tuple(sizes[:1])


def among(architecture: Architecture, base: Execution, device: Device, open_: Open) -> Found:
    """The fastest of the ways that fit; of those about as fast, the one with the fewest tricks.

    Args:
        base: what is settled; its micro-batch and accumulation say how many sequences a step has.

    Returns:
        What was found. Where nothing fits, ``way`` is the one that needs least, and says that it does not fit.
    """
    sequences = base.micro_batch_size * base.accumulation

    def weighed(precision: Precision, level: Checkpointing, size: int) -> Way:
        this = replace(
            base,
            precision=precision,
            attention=base.attention
            if precision == base.precision
            else execution.kernel(device, precision, architecture),
            checkpointing=level,
            micro_batch_size=size,
            accumulation=max(1, sequences // size),
        )
        needed = weigh(architecture, this)
        return Way(this, needed, None, needed.fits(device))

    fitting: list[Way] = []
    small: list[Way] = []
    for precision in open_.precisions:
        for level in open_.checkpointing:
            small.append(weighed(precision, level, open_.sizes[0]))
            if small[-1].fits:
                size = _last(open_.sizes, lambda size: weighed(precision, level, size).fits)  # noqa: B023 (called here)
                way = weighed(precision, level, size)
                fitting.append(replace(way, time=time.of(architecture, way.execution, device)))
    if not fitting:
        usual = [way for way in small if way.execution.precision == open_.precisions[0]]
        least = min(usual, key=lambda way: way.memory.total)
        return Found(replace(least, time=time.of(architecture, least.execution, device)), (), small[0])
    way = _fastest(fitting)
    return Found(way, tuple(other for other in fitting if other is not way), small[0])


def _fastest(ways: Sequence[Way]) -> Way:
    """Of ways in the order of their tricks: the first that none outruns by more than it must gain."""
    usual = [way for way in ways if way.execution.precision == ways[0].execution.precision]
    best = _first_of(usual)
    other = _first_of([way for way in ways if way not in usual] or usual)
    return other if 0 < best.pace * (1 + SURE) < other.pace else best


def _first_of(ways: Sequence[Way]) -> Way:
    most = max(way.pace for way in ways)
    return next(way for way in ways if way.pace * (1 + EQUAL) >= most)


def _last(sizes: Sequence[int], fits: Callable[[int], bool]) -> int:
    """The last of rising sizes that fits; the first one does, and what is larger needs more."""
    low, high = 0, len(sizes)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low]


def largest(architecture: Architecture, base: Execution, device: Device) -> int:
    """Sequences that fit at once, whatever the batch; 0 where not even one does."""

    def fits(size: int) -> bool:
        return weigh(architecture, replace(base, micro_batch_size=size)).fits(device)

    return _last(range(1, MOST + 1), fits) if fits(1) else 0


def _shortened(config: Config, device: Device) -> tuple[int, Found] | None:
    length = value_of(config, length_key(config)) // 2  # type: ignore[operator]
    while length >= SHORTEST:
        found = _of(change(config, {length_key(config): length}), device)
        if found.way.fits:
            return length, found
        length //= 2
    return None


def length_key(config: Config) -> str:
    """What says how long a sequence is at most: of a GPT of ours its context, else of a source or a text."""
    return "model.block_size" if config.model.source is None else "data.max_length"


def sequences_of(config: Config) -> int:
    """Sequences of a step, of ``batch_tokens`` as many as they come to."""
    if config.train.batch_tokens is None:
        return config.train.batch_size
    return rows_of(config, encoder_decoder=configured.of(config).encoder_decoder).sequences(config)


def why_precision(found: Found, device: Device) -> str:
    """Why this one, and what it gains over the plain one beside it."""
    way, value = found.way, found.way.execution.precision
    for other in found.others:
        if other.execution.precision != value and way.pace > other.pace > 0:
            gained = ", " + _faster(way, other, other.execution.precision)
            break
    else:
        gained = ""
    if value != device.fast_precision:
        return f"{device.fast_precision} would need more memory{gained}" if not gained else gained.removeprefix(", ")
    if device.kind == "cpu":
        unit = f"this CPU multiplies bf16 natively ({device.bf16_unit})" if device.bf16_unit else ""
        return (unit or "this CPU has neither AVX512-BF16 nor AMX, and would emulate bf16") + gained
    if device.kind == "mps":
        return "bf16 and fp16 were not measured on mps"
    return {
        "bf16": f"{device.name} has tensor cores for it, and its range is fp32's: no loss scaling{gained}",
        "fp16": f"{device.name} has tensor cores for fp16 but only emulates bf16; the loss is scaled{gained}",
    }.get(value, f"{device.name} has no tensor cores{gained}")


def why_checkpointing(found: Found, device: Device) -> str:
    """Why this level, and what the other one would give."""
    way, level = found.way, found.way.execution.checkpointing
    same = [one for one in found.others if one.execution.precision == way.execution.precision]
    if not way.fits:
        return f"{_at_once(way)} needs {_needs(way)}, and {_usable(device)}: computing twice is not enough"
    if level == "none":
        busier = [one for one in same if one.execution.micro_batch_size > way.execution.micro_batch_size]
        if not busier:
            return f"it fits without computing anything twice: {_room(way, device)}"
        most = busier[-1]
        said = f"{most.execution.checkpointing} fits {most.execution.micro_batch_size:,} at once instead of " + (
            f"{way.execution.micro_batch_size:,}"
        )
        return f"nothing is computed twice; {said}" + (f", but is {_slower(most, way)}" if most.pace else "")
    without = next((one for one in same if one.execution.checkpointing == "none"), None)
    if without is None:
        return f"without it {_at_once(found.least)} needs {_needs(found.least)}, and {_usable(device)}"
    return f"{level} fits {way.execution.micro_batch_size:,} at once, and is " + _faster(
        way, without, f"none with {without.execution.micro_batch_size:,}"
    )


def why_size(found: Found, device: Device, batch_size: int | None) -> str:
    """Why so many at once. ``batch_size``: sequences a step; None: as many as fit."""
    way, size = found.way, found.way.execution.micro_batch_size
    if not way.fits:
        return f"even {_at_once(way)} needs {_needs(way)}, and {_usable(device)}"
    if size == batch_size:
        return f"the whole batch fits at once: {_room(way, device)}"
    length = way.execution.length + way.execution.source_length
    if device.kind == "cpu" and batch_size and size == not_too_many(divisors(batch_size), length, device)[-1]:
        return f"{size * length:,} tokens at once keep this CPU busy; more bring no speed"
    return f"the largest that fits: {_room(way, device)}"


def _at_once(way: Way) -> str:
    size = way.execution.micro_batch_size
    return "one sequence" if size == 1 else f"{size:,} at once"


def _needs(way: Way) -> str:
    return f"about {units.gib(way.memory.total)}"


def _room(way: Way, device: Device) -> str:
    return f"{_needs(way)} of {device.usable_gib:.2f} GiB usable"


def _usable(device: Device) -> str:
    return f"{device.usable_gib:.2f} GiB are usable"


def _faster(way: Way, other: Way, whom: str) -> str:
    times = way.pace / other.pace
    return f"{times - 1:.0%} faster than {whom}" if times < 1.95 else f"{times:.1f} times as fast as {whom}"


def _slower(way: Way, other: Way) -> str:
    return f"{1 - way.pace / other.pace:.0%} slower" if way.pace < 0.995 * other.pace else "no faster"
