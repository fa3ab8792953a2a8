"""From two or three traces at some sizes to any size: the bytes of every event as a line or a parabola. Loads no torch.

What a step asks for grows linearly with the sequences at once, and with their length at most quadratically (the
weights of attention where no kernel keeps them in blocks). The *events* are fitted and then replayed: what an allocator
reserves for them is no line.

The traces must be of the same events. A loss that is computed in chunks goes around more often with more rows, though
each time alike: within a phase, events that only the longest trace has between a common beginning and a common end are
taken to be such rounds, whose bytes do not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby

from ganeum.plan.trace.events import Allocation, Event, Trace
from ganeum.plan.trace.replay import Size

Row = tuple[Event, ...]  # one event, as each of the traces has it; where there is only one, only the longest has it


class Unalike(Exception):
    """The traces are not of the same events."""


@dataclass(frozen=True)
class Family:
    """Traces of one step at several sizes, in rising order.

    Attributes:
        at: the sizes.
        rows: the events of the longest trace in order: key, and the bytes at each size, one for all, or none where it
            is a release.
    """

    at: tuple[int, ...]
    rows: tuple[tuple[int, tuple[int, ...]], ...]

    def events(self, size: int) -> list[Size]:
        """What is asked for at ``size``, as :func:`ganeum.plan.trace.replay.peaks` takes it."""
        known: dict[tuple[int, ...], int] = {(): -1}
        found = []
        for key, amounts in self.rows:
            if amounts not in known:
                known[amounts] = amounts[0] if len(set(amounts)) == 1 else _through(self.at, amounts, size)
            found.append((key, known[amounts]))
        return found


def fit(traces: Mapping[int, Trace]) -> Family:
    """The family that these are of, by their sizes; as many as the degree of the curve and one.

    Raises:
        Unalike: they are not of the same events.
    """
    at = tuple(sorted(traces))
    keys: dict[int, int] = {}  # of the longest trace → the number of the allocation's row
    found: list[tuple[int, tuple[int, ...]]] = []
    for number, row in enumerate(_aligned([_by_phase(traces[size]) for size in at])):
        event = row[-1]
        if isinstance(event, Allocation):
            keys[event.key] = number
            found.append((number, tuple(e.bytes for e in row if isinstance(e, Allocation))))
        elif event.key in keys:
            found.append((keys[event.key], ()))
    return Family(at, tuple(found))


def largest(fits: Callable[[int], bool], most: int = 1 << 16) -> int:
    """The largest size that fits; 0: not even one does.

    >>> largest(lambda size: size <= 37)
    37
    """
    if not fits(1):
        return 0
    low, high = 1, 2
    while high <= most and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _through(at: Sequence[int], amounts: Sequence[int], size: int) -> int:
    """The polynomial through the points, at ``size`` (Lagrange); at least 0."""
    total = Fraction(0)
    for i, (x, y) in enumerate(zip(at, amounts, strict=True)):
        share = Fraction(y)
        for j, other in enumerate(at):
            if i != j:
                share *= Fraction(size - other, x - other)
        total += share
    return max(0, round(total))


def _by_phase(trace: Trace) -> list[tuple[str, list[Event]]]:
    """The events of each stretch of one phase; releases belong to the phase that they come in, sorted where several
    follow each other, since caches are emptied in the order of addresses."""
    phase = ""
    labelled: list[tuple[str, Event]] = []
    for number, event in enumerate(trace.events):
        if isinstance(event, Allocation):
            phase = f"{event.phase} {sum(start <= number for start in trace.steps)}"
        labelled.append((phase, event))
    ordinal = {e.key: n for n, e in enumerate(e for e in trace.events if isinstance(e, Allocation))}
    found = []
    for name, stretch in groupby(labelled, key=lambda one: one[0]):
        events: list[Event] = []
        for is_allocation, same in groupby((event for _, event in stretch), key=lambda e: isinstance(e, Allocation)):
            run = list(same)
            events += run if is_allocation else sorted(run, key=lambda e: ordinal.get(e.key, -1))
        found.append((name, events))
    return found


def _aligned(traces: Sequence[list[tuple[str, list[Event]]]]) -> Iterator[Row]:
    """The events that all have, each with its like; and those that only the last one has."""
    if len({tuple(name for name, _ in stretches) for stretches in traces}) != 1:
        raise Unalike("the traces go through different phases")
    words = [_words(stretches) for stretches in traces]
    for same in zip(*traces, strict=True):
        yield from _stretch([events for _, events in same], words)


def _words(stretches: Sequence[tuple[str, list[Event]]]) -> dict[int, tuple[str, ...]]:
    """Key → what tells its allocation from others."""
    return {
        event.key: (event.operation, event.layer, event.source)
        for _, events in stretches
        for event in events
        if isinstance(event, Allocation)
    }


def _stretch(stretch: Sequence[list[Event]], words: Sequence[dict[int, tuple[str, ...]]]) -> Iterator[Row]:
    likes = [
        [(isinstance(event, Allocation), known.get(event.key)) for event in events]
        for events, known in zip(stretch, words, strict=True)
    ]
    shortest, longest = min(map(len, likes)), len(likes[-1])
    if any(len(one) > longest for one in likes):
        raise Unalike("a smaller size has more events than a larger one")
    begin = 0
    while begin < shortest and len({one[begin] for one in likes}) == 1:
        begin += 1
    end = 0
    while end < shortest - begin and len({one[-1 - end] for one in likes}) == 1:
        end += 1
    if any(len(one) not in (begin + end, longest) for one in likes) or begin + end < shortest:
        raise Unalike("the traces do different things")
    for number in range(longest):
        if number < begin:
            yield tuple(events[number] for events in stretch)
        elif number >= longest - end:
            yield tuple(events[number - longest] for events in stretch)
        else:
            yield (stretch[-1][number],)
