"""What a step does again and again is traced once and written down as often as it happens.

A loss over many rows goes around its chunks, an update through pieces of weights, and every round asks for the same.
To look at each of them takes longer than all the rest of a step; what is written down instead are copies of a round
that really ran, with keys of their own, so that the trace has every event that a run has, in its order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from torch import Tensor

from ganeum.plan.trace.events import Allocation, Event, Loop, Release
from ganeum.plan.trace.operations import Operations
from ganeum.plan.trace.recorder import Recorder
from ganeum.plan.trace.roofline import Operation
from ganeum.step import loss
from ganeum.step.optimizers import Optimizer, Piece, Ruled

LOOKED_AT = 3  # rounds of a loss: the first, one that finds what the one before it left, and the last, with fewer rows


class Repeated:
    """Keeps what was seen of one trace.

    Attributes:
        loops: of losses, as :class:`ganeum.plan.trace.events.Trace` has them.
    """

    def __init__(self, recorder: Recorder, operations: Operations | None) -> None:
        self.recorder = recorder
        self.counts: Counter[Operation] = operations.counts if operations is not None else Counter()
        self.loops: list[Loop] = []
        self._keys = count(-1, -1)  # of copies; a recorder's own are positive

    # A loss in chunks

    @contextmanager
    def losses(self) -> Iterator[None]:
        """Inside, of a loss's rounds the first two and the last are computed, and the others copied from the second."""
        original = loss._chunks
        loss._chunks = lambda rows, chunk: self._rounds(original(rows, chunk), rows, chunk)  # type: ignore[assignment,return-value]
        try:
            yield
        finally:
            loss._chunks = original

    def _rounds(self, chunks: Sequence[slice], rows: int, chunk: int) -> Iterator[slice]:
        events, starts = self.recorder.events, []
        before: Counter[Operation] = Counter()
        copied = max(0, len(chunks) - LOOKED_AT)
        for number, one in enumerate(chunks):
            if 2 <= number < 2 + copied:
                continue
            starts.append(len(events))
            if number == 1:
                before = Counter(self.counts)
            yield one
            if number == 1:
                seen = self.counts - before
                for operation, often in seen.items():
                    self.counts[operation] += copied * often
        starts.append(len(events))
        if copied:
            starts = self._copied(starts, copied)
        self.loops.append(Loop(tuple(starts), rows, chunk))

    def _copied(self, starts: Sequence[int], times: int) -> list[int]:
        """Writes copies of the second of three rounds between it and the third; returns where rounds start then."""
        events = self.recorder.events
        first, second, last, end = starts
        older = _made(events[first:second])
        template, newer = events[second:last], _made(events[second:last])
        known = dict(zip(older, newer, strict=True))  # a key of the round before → of this one
        inserted: list[Event] = []
        now = {key: key for key in newer}  # of the second round → of the latest copy
        for _ in range(times):
            then, now = now, {key: next(self._keys) for key in newer}
            inserted += [_as(event, now, {old: then[new] for old, new in known.items()}) for event in template]
        events[last:end] = [*inserted, *(_as(event, {}, now) for event in events[last:end])]
        width = last - second
        return [first, *(second + n * width for n in range(times + 1)), last + times * width, end + times * width]

    # An update by pieces

    def updates(self, optimizer: Optimizer) -> None:
        """From now on, of pieces that are alike one is computed, and the others copied from it."""
        for part in optimizer.parts.values():
            if isinstance(part, Ruled):
                self._once(part)

    def _once(self, part: Ruled) -> None:
        update = part._update
        known: dict[Any, tuple[list[Event], Counter[Operation]]] = {}

        def seen(piece: Piece, *more: Any) -> None:
            what = self.recorder.phase, *_looks(part, piece)
            if what in known:
                events, operations = known[what]
                keys = {key: next(self._keys) for key in _made(events)}
                self.recorder.events += [_as(event, keys, keys) for event in events]
                self.counts.update(operations)
                return
            start, before = len(self.recorder.events), Counter(self.counts)
            update(piece, *more)
            events = self.recorder.events[start:]
            made, gone = set(_made(events)), {event.key for event in events if isinstance(event, Release)}
            if made == gone:  # it leaves nothing, and takes nothing away
                known[what] = events, self.counts - before

        part._update = seen  # type: ignore[assignment,method-assign]


def _looks(part: Ruled, piece: Piece) -> Iterator[Any]:
    """All of a piece that its update's memory depends on."""
    for parameter, where in piece.parts:
        assert parameter.grad is not None
        whole = parameter.numel() if piece.flat else len(parameter)
        yield _look(parameter), _look(parameter.grad), None if where is None else len(range(*where.indices(whole)))
    yield tuple((key, _look(value)) for key, value in part.state[piece.name].items())


def _look(tensor: Tensor) -> tuple[Any, ...]:
    return tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device.type


def _made(events: Sequence[Event]) -> list[int]:
    return [event.key for event in events if isinstance(event, Allocation)]


def _as(event: Event, allocated: dict[int, int], known: dict[int, int]) -> Event:
    """The event with other keys: of allocations, and of releases of these or of what was there ``known``."""
    if isinstance(event, Release):
        return Release(allocated.get(event.key, known.get(event.key, event.key)))
    return Allocation(
        allocated.get(event.key, event.key),
        event.bytes,
        event.operation,
        event.phase,
        event.layer,
        event.kind,
        event.source,
    )
