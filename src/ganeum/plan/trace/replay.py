"""What the allocator makes of a traced step: peaks, the curve between them, and what lies there at the peak.

Loads no torch. On a GPU every allocation and release goes through a model of torch's caching allocator
(:mod:`ganeum.plan.trace.allocator`); on a CPU, whose memory nobody caches, bytes are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ganeum.plan.trace.allocator import CachingAllocator, OutOfMemory
from ganeum.plan.trace.allocator_settings import Settings
from ganeum.plan.trace.events import Allocation, Kind, Release, Trace

POINTS = 240  # of a curve at most
Size = tuple[int, int]  # of an event: its key and the bytes asked for; -1 where it is a release


@dataclass(frozen=True)
class Part:
    """Some of what is there at the peak: ``bytes`` of ``count`` allocations of a kind in like layers
    (``blocks.*.mlp``; empty: in none), all asked for by one operation (``aten::mm``)."""

    kind: Kind
    layer: str
    operation: str
    bytes: int
    count: int


@dataclass(frozen=True)
class Moment:
    """A point of the curve: bytes after the event with that number."""

    event: int
    phase: str
    allocated: int
    reserved: int


@dataclass(frozen=True)
class Shortage:
    """Where memory ran out: what asked for ``wanted`` bytes, with so many given out and held."""

    allocation: Allocation
    wanted: int
    allocated: int
    reserved: int


@dataclass(frozen=True)
class Replayed:
    """The memory of a traced step, in bytes.

    Attributes:
        peak_allocated: the most that was given out at a time, in the allocator's blocks: what
            ``torch.cuda.max_memory_allocated`` says.
        peak_requested: the most that was asked for at a time.
        peak_reserved: the most that the driver had given: ``torch.cuda.max_memory_reserved``. 0 on a CPU.
        at: the allocation with which the peak is reached: operation, layer, source line, phase.
        step: the step in which it is, from 1; 0: before the first.
        parts: what is there then, the largest first; together ``peak_allocated``.
        by_layer: the same by layer as it is called, blocks apart from each other.
        curve: the step with the peak, event by event, thinned out to its highest points.
        retries: how often the allocator had to give everything free back to go on.
        shortage: where memory ran out; the peaks are those until then.
        uncertain: what the trace had to assume.
    """

    peak_allocated: int
    peak_requested: int
    peak_reserved: int
    at: Allocation
    step: int
    parts: tuple[Part, ...]
    by_layer: dict[str, int]
    curve: tuple[Moment, ...]
    retries: int = 0
    shortage: Shortage | None = None
    uncertain: tuple[str, ...] = ()

    @property
    def by_kind(self) -> dict[Kind, int]:
        """What is there at the peak, the largest first."""
        found: Counter[Kind] = Counter()
        for part in self.parts:
            found[part.kind] += part.bytes
        return dict(found.most_common())

    @property
    def fragmentation(self) -> float:
        """Share of the reserved peak that no tensor could use at the allocated peak."""
        return 1 - self.peak_allocated / self.peak_reserved if self.peak_reserved else 0.0


class Counted:
    """In place of the allocator on a CPU: bytes that are asked for and not given back."""

    retries = peak_reserved = reserved = 0

    def __init__(self) -> None:
        self.allocated = self.peak_allocated = 0
        self._sizes: dict[int, int] = {}

    @property
    def peak_requested(self) -> int:
        """The same: nothing is rounded."""
        return self.peak_allocated

    def allocate(self, key: int, size: int) -> int:
        """Counts them."""
        self._sizes[key] = size
        self.allocated += size
        self.peak_allocated = max(self.peak_allocated, self.allocated)
        return size

    def release(self, key: int) -> None:
        """No longer counts them."""
        self.allocated -= self._sizes.pop(key, 0)


def replay(
    trace: Trace, settings: Settings | None = None, *, capacity: int | None = None, memory: int | None = None
) -> Replayed:
    """What happens when these allocations and releases reach the allocator.

    Args:
        trace: with at least one allocation.
        settings: of the allocator.
        capacity: bytes that there are for it; None: enough.
        memory: bytes of the whole device.
    """
    allocator = Counted() if trace.device == "cpu" else CachingAllocator(settings, capacity=capacity, memory=memory)
    blocks: dict[int, int] = {}
    course: list[tuple[int, int]] = []
    peak, highest, shortage = 0, -1, None
    for number, event in enumerate(trace.events):
        if isinstance(event, Release):
            allocator.release(event.key)
        else:
            try:
                blocks[event.key] = allocator.allocate(event.key, event.bytes)
            except OutOfMemory as out:
                shortage = Shortage(event, out.wanted, out.allocated, out.reserved)
                break
            if allocator.allocated > highest:
                peak, highest = number, allocator.allocated
        course.append((allocator.allocated, allocator.reserved))
    at = trace.events[peak]
    assert isinstance(at, Allocation), "a peak is reached by an allocation"
    step = sum(start <= peak for start in trace.steps)
    there = list(_there(trace, peak))
    return Replayed(
        peak_allocated=allocator.peak_allocated,
        peak_requested=allocator.peak_requested,
        peak_reserved=allocator.peak_reserved,
        at=at,
        step=step,
        parts=_parts(there, blocks),
        by_layer=_by_layer(there, blocks),
        curve=_curve(trace, course, step),
        retries=allocator.retries,
        shortage=shortage,
        uncertain=trace.uncertain,
    )


def sizes(trace: Trace) -> list[Size]:
    """The events without words, for many replays of one trace (:func:`peaks`)."""
    return [(e.key, e.bytes) if isinstance(e, Allocation) else (e.key, -1) for e in trace.events]


def peaks(events: Sequence[Size], allocator: CachingAllocator) -> bool:
    """Whether they go through; the allocator has their peaks then."""
    try:
        for key, size in events:
            if size < 0:
                allocator.release(key)
            else:
                allocator.allocate(key, size)
    except OutOfMemory:
        return False
    return True


def last_step(trace: Trace) -> Trace:
    """The last step alone, on what is there before it: an evaluation without the training that made its state."""
    start = trace.steps[-1]
    before = tuple(_there(trace, start - 1))
    return replace(trace, events=(*before, *trace.events[start:]), steps=(len(before),), loops=())


def like_layers(layer: str) -> str:
    """The layer's path with a star for its number: what all blocks have in common.

    >>> like_layers("blocks.11.mlp.up")
    'blocks.*.mlp.up'
    """
    return re.sub(r"(?<=\.)\d+(?=\.|$)|^\d+(?=\.)", "*", layer)


def _there(trace: Trace, peak: int) -> Iterator[Allocation]:
    live: dict[int, Allocation] = {}
    for event in trace.events[: peak + 1]:
        if isinstance(event, Allocation):
            live[event.key] = event
        else:
            live.pop(event.key, None)
    yield from live.values()


def _parts(there: Sequence[Allocation], blocks: dict[int, int]) -> tuple[Part, ...]:
    size: Counter[tuple[Kind, str, str]] = Counter()
    count: Counter[tuple[Kind, str, str]] = Counter()
    for one in there:
        what = one.kind, like_layers(one.layer), one.operation
        size[what] += blocks[one.key]
        count[what] += 1
    return tuple(Part(*what, bytes=total, count=count[what]) for what, total in size.most_common() if total)


def _by_layer(there: Sequence[Allocation], blocks: dict[int, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for one in there:
        found[one.layer] += blocks[one.key]
    return {layer: total for layer, total in found.most_common() if total}


def _curve(trace: Trace, course: Sequence[tuple[int, int]], step: int) -> tuple[Moment, ...]:
    """Of one step, or of what is before the first: the highest point of each of as many stretches as it may have."""
    borders = (0, *trace.steps, len(trace.events))
    start, end = borders[step], min(borders[step + 1], len(course))
    width = max(1, -(-(end - start) // POINTS))
    found, phase, at = [], "", start
    phases = []
    for event in trace.events[start:end]:
        phase = event.phase if isinstance(event, Allocation) else phase
        phases.append(phase)
    for at in range(start, end, width):
        top = max(range(at, min(at + width, end)), key=lambda number: course[number])
        found.append(Moment(top, phases[top - start], *course[top]))
    return tuple(found)
