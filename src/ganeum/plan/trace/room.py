"""What a device has room for: the most sequences at once, and the longest, from traces. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from ganeum import units
from ganeum.config import Config
from ganeum.hardware.device import Device
from ganeum.plan.architecture import configured
from ganeum.plan.execution import Execution
from ganeum.plan.fastest import weigh
from ganeum.plan.trace import affine
from ganeum.plan.trace.allocator import CachingAllocator
from ganeum.plan.trace.allocator_settings import Settings, of_environment
from ganeum.plan.trace.child import Answer, Child
from ganeum.plan.trace.events import Trace
from ganeum.plan.trace.replay import peaks, sizes

# Of what is free on a GPU this much is left to what no trace sees: kernels' own buffers, and the driver's rounding.
SPARE = 0.02

GRAIN = 64  # tokens: lengths are multiples of it
MOST = 1 << 20  # tokens: no row is longer


@dataclass(frozen=True)
class Room:
    """What a device has for tensors: bytes free, bytes in all, and how its allocator works."""

    free: int
    memory: int
    settings: Settings

    @classmethod
    def of(cls, device: Device, answer: Answer) -> Room:
        """The environment's settings hold where there are any, as for a run."""
        return cls(
            round(device.usable_gib * units.GIB * (1 - SPARE)),
            round(device.memory_gib * units.GIB),
            of_environment() or Settings(expandable_segments=answer.expandable),
        )

    def holds(self, events: list[tuple[int, int]]) -> bool:
        """Whether these requests go through, the allocator's own retries included."""
        return peaks(events, CachingAllocator(self.settings, capacity=self.free, memory=self.memory))


def largest(child: Child, config: Config, device: Device, way: Execution, guess: int) -> int:
    """The most sequences at once that fit: from traces at two sizes, proved by one at the size itself.

    Args:
        guess: about how many, as the closed form has it.

    Raises:
        NotTraced: with the reason.
    """

    def traced(size: int) -> Answer:
        return child.run(config, device, replace(way, micro_batch_size=size))

    low, high = _apart(way, max(guess, 2))
    one, other = traced(low), traced(high)
    room = Room.of(device, one)
    try:
        family = affine.fit({low: one.trace, high: other.trace})
    except affine.Unalike:
        return affine.largest(lambda size: _holds(room, traced(size).trace))
    size = affine.largest(lambda size: room.holds(family.events(size)))
    while size and not _holds(room, traced(size).trace):
        size -= 1
    return size


def longest(child: Child, config: Config, device: Device, way: Execution) -> int:
    """Tokens of the longest rows that fit, at as many at once as ``way`` has: a multiple of ``GRAIN``, 0 where not even
    that fits. Of pairs it is the source that grows. Looked for by traces, from where the closed form ends.

    Raises:
        NotTraced: with the reason.
    """
    architecture = configured.of(config)
    known = architecture.longest if config.model.source is not None else None
    most = (known or MOST) // GRAIN

    def of_length(grains: int) -> Execution:
        tokens = grains * GRAIN
        return replace(way, source_length=tokens) if way.source_length else replace(way, length=tokens)

    @cache
    def fits(grains: int) -> bool:
        if grains > most:
            return False
        answer = child.run(config, device, of_length(grains))
        return _holds(Room.of(device, answer), answer.trace)

    near = affine.largest(lambda grains: grains <= most and weigh(architecture, of_length(grains)).fits(device))
    return GRAIN * _last(fits, near)


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


def _holds(room: Room, trace: Trace) -> bool:
    return room.holds(sizes(trace))


def _apart(way: Execution, guess: int) -> tuple[int, int]:
    """Two sizes to trace, whose losses go around alike: of several whole chunks each, or both within the first."""
    rows, step = way.loss_chunk, 1
    if rows is not None and rows % way.length == 0:
        step = rows // way.length
    if 2 * step <= guess:
        low = max(2, 2 * step)
        return low, max(2 * low, guess // low * low)
    return (2, max(4, min(guess, step))) if step >= 4 else (1, 2)
