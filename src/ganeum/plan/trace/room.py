"""What a device has room for: the most sequences at once, and the longest, from traces. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from ganeum import units
from ganeum.config import Config
from ganeum.hardware.device import Device
from ganeum.plan.architecture import configured
from ganeum.plan.execution import Execution
from ganeum.plan.fastest import weigh
from ganeum.plan.trace import affine
from ganeum.plan.trace.allocator import CachingAllocator
from ganeum.plan.trace.allocator_settings import Settings, of_environment
from ganeum.plan.trace.child import Answer, Child, OutOfTime
from ganeum.plan.trace.events import Trace
from ganeum.plan.trace.replay import peaks, sizes

# Of what is free on a GPU this much is left to what no trace sees: kernels' own buffers, and the driver's rounding.
SPARE = 0.02

GRAIN = 64  # tokens: lengths are multiples of it
MOST = 1 << 20  # tokens: no row is longer
MOST_AT_ONCE = 1 << 16  # sequences
PATIENCE = 6  # traces, after which sizes are halved rather than predicted


@dataclass(frozen=True)
class Room:
    """What a device has for tensors: bytes free, bytes in all, and how its allocator works; ``limit``: bytes that the
    user lets a process have, where that is less than all."""

    free: int
    memory: int
    settings: Settings
    limit: int | None = None

    @classmethod
    def of(cls, device: Device, answer: Answer) -> Room:
        """The environment's settings hold where there are any, as for a run."""
        settings = of_environment() or Settings(expandable_segments=answer.expandable)
        free, memory = round(device.usable_gib * units.GIB * (1 - SPARE)), round(device.memory_gib * units.GIB)
        if settings.per_process_memory_fraction == 1:
            return cls(free, memory, settings)
        limit = int(settings.per_process_memory_fraction * memory)
        return cls(min(free, limit), memory, settings, limit)

    def peaks(self, events: list[tuple[int, int]]) -> tuple[int, int]:
        """Bytes allocated and reserved at most, on a device without end."""
        allocator = CachingAllocator(self.settings, memory=self.memory)
        peaks(events, allocator)
        return allocator.peak_allocated, allocator.peak_reserved

    def holds(self, events: list[tuple[int, int]]) -> bool:
        """Whether these requests go through, the allocator's own retries included."""
        return peaks(events, CachingAllocator(self.settings, limit=self.limit, capacity=self.free, memory=self.memory))


@dataclass(frozen=True)
class Most:
    """The most that was found to fit.

    Attributes:
        size: sequences at once, or tokens of a row; a trace at it goes through. 0: none does.
        beyond: of the next size: a trace does not go through; other traces' events are predicted not to at it; it was
            not looked for, as so many are more than enough, or the time was over.
    """

    size: int
    beyond: Literal["traced", "predicted", "enough", "out of time"]

    @property
    def at_least(self) -> bool:
        """Whether more may fit."""
        return self.beyond in ("enough", "out of time")


def split(way: Execution, sequences: int, at_once: int) -> Execution:
    """``way`` with so many at once, of a batch of ``sequences``; or of one as large, where that is smaller."""
    return replace(way, micro_batch_size=at_once, accumulation=max(1, -(-sequences // at_once)))


def largest(
    child: Child, config: Config, device: Device, way: Execution, guess: int, enough: int, *, operations: bool = False
) -> Most:
    """The most sequences at once that fit: from traces at two sizes near the guess, proved by one at the size itself,
    whose peaks are those that the two had said, or by one more that does not fit.

    Args:
        way: its batch is split (:func:`split`).
        guess: about how many, as the closed form has it.
        enough: no more are looked for.
        operations: traced with them, for whoever asks for the same traces again.

    Raises:
        OutOfTime: before the first trace.
        NotTraced: with the reason.
    """
    enough, sequences = min(enough, MOST_AT_ONCE), way.micro_batch_size * way.accumulation
    room: Room | None = None
    known: dict[int, Trace] = {}
    said: tuple[int, int] | None = None  # what the family had said of the size that is traced next: its peaks
    low, high, size = 0, enough + 1, min(max(guess, 1), enough)
    try:
        while high - low > 1:
            answer = child.run(config, device, split(way, sequences, size), operations=operations)
            room = room or Room.of(device, answer)
            events = sizes(answer.trace)
            known[size] = answer.trace
            exact = said is not None and said == room.peaks(events)
            low, high = (size, high) if room.holds(events) else (low, size)
            if high - low == 1:
                break
            if len(known) == 1:  # a neighbour, so that kernels that are chosen by the size are those of the first
                aside = max(1, size // 8)
                size = min(size + aside, enough) if low else max(1, size - aside)
                continue
            found, family = _between(child, room, known, low, high)
            if exact and family is not None and found in (low, size):
                return Most(low, "enough" if low == enough else "predicted")
            size = min(max(found, low + 1), high - 1) if len(known) < PATIENCE else (low + high) // 2
            said = room.peaks(family.events(size)) if family is not None else None
    except OutOfTime:
        if not known:
            raise
        return Most(low, "out of time")
    return Most(low, "traced" if high in known else "enough")


def _between(
    child: Child, room: Room, known: Mapping[int, Trace], low: int, high: int
) -> tuple[int, affine.Family | None]:
    """The largest size that seems to fit, by the two traces that are nearest to where it stops fitting: their family,
    or, where they are unalike, the line through their peaks."""
    near = sorted(known, key=lambda size: min(abs(size - low), abs(size - high)))[:2]
    one, other = sorted(near)
    lower, upper = (room.peaks(sizes(known[size]))[1] for size in (one, other))
    straight = one + math.floor((room.free - lower) / max(1.0, (upper - lower) / (other - one)))

    @cache
    def fits(size: int) -> bool:
        child.in_time()
        return size < high and (size <= low or room.holds(family.events(size)))

    try:
        family = affine.fit({one: known[one], other: known[other]})
        return _last(fits, min(max(straight, low), high - 1)), family
    except affine.Unalike:
        return straight, None


def longest(child: Child, config: Config, device: Device, way: Execution) -> Most:
    """Tokens of the longest rows that fit, at as many at once as ``way`` has: a multiple of ``GRAIN``, 0 where not even
    that fits. Of pairs it is the source that grows. Looked for by traces, from where the closed form ends.

    Raises:
        OutOfTime: before the first trace.
        NotTraced: with the reason.
    """
    architecture = configured.of(config)
    known = architecture.longest if config.model.source is not None else None
    most = (known or MOST) // GRAIN
    seen: dict[int, bool] = {}

    def of_length(grains: int) -> Execution:
        tokens = grains * GRAIN
        return replace(way, source_length=tokens) if way.source_length else replace(way, length=tokens)

    def fits(grains: int) -> bool:
        if grains <= most and grains not in seen:
            answer = child.run(config, device, of_length(grains))
            seen[grains] = Room.of(device, answer).holds(sizes(answer.trace))
        return seen.get(grains, False)

    near = affine.largest(lambda grains: grains <= most and weigh(architecture, of_length(grains)).fits(device))
    try:
        found = _last(fits, near)
    except OutOfTime:
        if not seen:
            raise
        return Most(GRAIN * max((grains for grains, held in seen.items() if held), default=0), "out of time")
    return Most(GRAIN * found, "enough" if found == most else "traced")


def _last(fits: Callable[[int], bool], near: int) -> int:
    """The largest number that fits, 0 where none does, when it is not far from ``near``.

    >>> [_last(lambda number: number <= 37, near) for near in (0, 1, 36, 37, 38, 90)]
    [37, 37, 37, 37, 37, 37]
    >>> _last(lambda number: False, 3)
    0
    """
    low, step = max(near, 0), 1
    while low and not fits(low):
        low, step = max(0, low - step), 2 * step
    high, step = low + 1, 1
    while fits(high):
        low, step = high, 2 * step
        high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
