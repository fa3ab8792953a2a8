"""From two or three traces at some sizes to any size: the bytes of every event as a line or a parabola. Loads no torch.

What a step asks for grows linearly with the sequences at once, and with their length at most quadratically (the
weights of attention where no kernel keeps them in blocks). The *events* are fitted and then replayed: what an allocator
reserves for them is no line.

The traces must be of the same events, but for a loss that is computed in chunks: with more rows it goes around more
often. Its rounds are alike, what one asks for is a line over its rows, and only the last has fewer than the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby

from ganeum.plan.trace.events import Allocation, Event, Loop, Trace
from ganeum.plan.trace.replay import Size

Points = tuple[tuple[int, int], ...]  # of a curve: bytes, or rows, at some sizes; none for a release
Asked = tuple[tuple[int, Points], ...]  # events in order: key, and the bytes that are asked for


TURNS = 8  # rounds of a loss that are replayed: each finds what the one before it left


class Unalike(Exception):
    """The traces are not of the same events."""


@dataclass(frozen=True)
class Rounds:
    """A loss in chunks.

    Attributes:
        rows: of all of it, over the size.
        chunk: rows of each round but the last.
        rounds: the last of the longest trace, each over its rows.
    """

    rows: Points
    chunk: int
    rounds: tuple[Asked, ...]


@dataclass(frozen=True)
class Family:
    """Traces of one step at several sizes: ``parts`` one after the other, over the size where they are no rounds."""

    parts: tuple[Asked | Rounds, ...]

    def events(self, size: int) -> list[Size]:
        """What is asked for at ``size``, as :func:`ganeum.plan.trace.replay.peaks` takes it.

        Of a loss at most the last ``TURNS`` rounds are there, and no more than the longest trace has.

        Raises:
            Unalike: there are several rounds, and no trace has more than one.
        """
        amounts: dict[tuple[Points, int], int] = {}
        gone: set[int] = set()
        found: list[Size] = []

        def add(asked: Asked, at: int) -> None:
            for key, points in asked:
                if key in gone:
                    continue
                if points and (points, at) not in amounts:
                    amounts[points, at] = _through(points, at)
                found.append((key, amounts[points, at] if points else -1))

        for part in self.parts:
            if not isinstance(part, Rounds):
                add(part, size)
                continue
            rows = _through(part.rows, size)
            count = -(-rows // part.chunk)
            if count > len(part.rounds) == 1:
                raise Unalike("no trace goes around its loss more than once")
            left_out, rounds = part.rounds[:-count], part.rounds[-count:]
            gone |= {key for asked in left_out for key, points in asked if points}
            for number, asked in enumerate(rounds, 1):
                add(asked, rows - part.chunk * (count - 1) if number == len(rounds) else part.chunk)
        return found


def fit(traces: Mapping[int, Trace]) -> Family:
    """The family that these are of, by their sizes; as many as the degree of the curve and one.

    Raises:
        Unalike: they are not of the same events.
    """
    at = tuple(sorted(traces))
    several = [_Sections(traces[size]) for size in at]
    if len({tuple((one.phase, one.loop is None) for one in some.sections) for some in several}) != 1:
        raise Unalike("the traces go through different phases")
    return Family(
        tuple(
            _straight(at, several, sections) if sections[0].loop is None else _rounds(at, several, sections)
            for sections in zip(*(some.sections for some in several), strict=True)
        )
    )


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


@dataclass
class _Section:
    """Events of one phase; of a loss in chunks, each round's for itself."""

    phase: str
    loop: Loop | None = None
    rounds: list[list[Event]] = field(default_factory=list)


class _Sections:
    """A trace in sections. Releases belong to the phase that they come in, sorted where several follow each other,
    since caches are emptied in the order of addresses."""

    def __init__(self, trace: Trace) -> None:
        made = [event for event in trace.events if isinstance(event, Allocation)]
        self.words = {event.key: (event.operation, event.layer, event.source) for event in made}
        self._age = {event.key: number for number, event in enumerate(made)}
        turns = {start: (loop, number) for loop in trace.loops for number, start in enumerate(loop.starts)}
        loop, turn, phase, labels = None, 0, "", []
        for number, event in enumerate(trace.events):
            if number in turns:
                loop, turn = turns[number]
                loop = None if turn == len(loop.starts) - 1 else loop
            if isinstance(event, Allocation):
                phase = f"{event.phase} {sum(start <= number for start in trace.steps)}"
            labels.append((phase, loop, turn))
        self.sections: list[_Section] = []
        for (phase, loop, _), stretch in groupby(zip(labels, trace.events, strict=True), key=lambda one: one[0]):
            last = self.sections[-1] if self.sections else None
            if last is None or loop is None or last.loop is not loop:
                self.sections.append(last := _Section(phase, loop))
            last.rounds.append(self._sorted(event for _, event in stretch))

    def like(self, event: Event) -> tuple[bool, tuple[str, ...] | None]:
        """What tells an event from others, whatever its bytes."""
        return isinstance(event, Allocation), self.words.get(event.key)

    def _aged(self, event: Event) -> int:
        return self._age.get(event.key, -1)

    def _sorted(self, events: Iterable[Event]) -> list[Event]:
        found: list[Event] = []
        for is_allocation, same in groupby(events, key=lambda event: isinstance(event, Allocation)):
            run = list(same)
            found += run if is_allocation else sorted(run, key=self._aged)
        return found


def _straight(at: Sequence[int], several: Sequence[_Sections], sections: Sequence[_Section]) -> Asked:
    """Event by event, of all traces; with the longest one's keys."""
    events = [section.rounds[0] for section in sections]
    if len({tuple(map(some.like, own)) for some, own in zip(several, events, strict=True)}) != 1:
        raise Unalike("the traces do different things")
    return tuple(
        (row[-1].key, tuple((size, e.bytes) for size, e in zip(at, row, strict=True) if isinstance(e, Allocation)))
        for row in zip(*events, strict=True)
    )


def _rounds(at: Sequence[int], several: Sequence[_Sections], sections: Sequence[_Section]) -> Rounds:
    """The rounds of the longest trace, with what an allocation asks for in those of all traces."""
    loops = [section.loop for section in sections if section.loop is not None]
    chunk = loops[0].chunk
    seen: list[dict[int, int]] | None = None  # for each allocation of a round: rows → bytes
    words = None
    for some, section, loop in zip(several, sections, loops, strict=True):
        for number, events in enumerate(section.rounds):
            made = [event for event in events if isinstance(event, Allocation)]
            said = [some.words[event.key] for event in made]
            words, seen = words or said, seen or [{} for _ in made]
            rows = min(chunk, loop.rows - number * chunk)
            sizes = zip(seen, made, strict=True) if said == words else None
            if sizes is None or any(one.setdefault(rows, event.bytes) != event.bytes for one, event in sizes):
                raise Unalike("the rounds of the loss are not alike")
    points = [tuple((rows, one[rows]) for rows in sorted({min(one), max(one)})) for one in seen or []]
    found = []
    forgotten = {event.key for events in sections[-1].rounds[:-TURNS] for event in events}
    for events in sections[-1].rounds[-TURNS:]:
        of = iter(points)
        asked = [(event.key, next(of) if isinstance(event, Allocation) else ()) for event in events]
        found.append(tuple(one for one in asked if one[0] not in forgotten))
    return Rounds(tuple(zip(at, (loop.rows for loop in loops), strict=True)), chunk, tuple(found))


def _through(points: Points, at: int) -> int:
    """The polynomial through the points, there (Lagrange); at least 0."""
    if len({y for _, y in points}) == 1:
        return points[0][1]
    total = Fraction(0)
    for i, (x, y) in enumerate(points):
        share = Fraction(y)
        for j, (other, _) in enumerate(points):
            if i != j:
                share *= Fraction(at - other, x - other)
        total += share
    return max(0, round(total))
