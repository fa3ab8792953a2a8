"""The batches of examples: which of them a step learns from, and how they are laid out so that little is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganeum.data.batch import Batch
from ganeum.data.examples.buckets import Shape, edges, padded, pieces
from ganeum.data.examples.collate import Collate, Full, Row
from ganeum.data.examples.epochs import Epochs, Places, Remembered
from ganeum.data.examples.packing import pack, quarters, target_room
from ganeum.data.examples.store import Lengths, Store

Batching = Literal["buckets", "padded", "fixed", "packed"]
_SOURCE_EDGES, _TARGET_EDGES, _TEXT_EDGES = 6, 3, 8  # lengths there are: every pair of them is a shape to compile
_PACKED_TOGETHER = 2_048  # examples; more would fill rows no better
# What a micro-batch takes besides its places, in places. A CPU's was measured: 80 to 330 (docs/log.md). A GPU's is the
# host's time to start thousands of kernels: 850 to 5,000 by the planner's figures for T5s, not measured.
_OVERHEAD = {"cpu": 256, "gpu": 1_024}


@dataclass(frozen=True)
class Part:
    """Some examples of a store: those to train with, or those held out.

    Attributes:
        store: they lie in.
        numbers: (examples,) of them in it.
        sources, targets: (examples,) lengths as a row takes them: a causal model has its whole sequence in ``targets``,
            less the last token, and nothing in ``sources``.
        learnt: (examples,) targets that count.
    """

    store: Store
    numbers: Places
    sources: Lengths
    targets: Lengths
    learnt: Lengths

    @staticmethod
    def of(store: Store, numbers: Places, *, causal: bool) -> Part:
        """The examples of these numbers."""
        sources, targets = (store.lengths(side)[numbers] for side in ("source", "target"))
        if not causal:
            return Part(store, numbers, sources, targets, targets)
        whole = sources + targets - 1
        return Part(store, numbers, np.zeros_like(sources), whole, whole - np.maximum(sources - 1, 0))

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def tokens(self) -> Lengths:
        """(examples,) places that each takes."""
        return self.sources + self.targets

    def ids(self, side: str, place: int) -> npt.NDArray[np.unsignedinteger]:
        """Of the example at a place of this part."""
        return self.store.ids(side, int(self.numbers[place]))


@dataclass(frozen=True)
class Layout:
    """How rows are made of examples.

    Attributes:
        batching: as ``data.batching``.
        room: (S, T) of a packed row.
        source_edges, target_edges: lengths to pad to, ascending; what is only padded goes to the longest at hand.
        overhead: what a micro-batch takes besides its places, in places: smaller pieces are not worth their padding.
    """

    batching: Batching
    room: Shape
    source_edges: tuple[int, ...]
    target_edges: tuple[int, ...]
    overhead: int = _OVERHEAD["cpu"]

    def on(self, device: str) -> Layout:
        """The same for another device, as ``device`` of a config."""
        return replace(self, overhead=_OVERHEAD["cpu" if device in ("cpu", "auto") else "gpu"])

    @staticmethod
    def of(batching: Batching, parts: Sequence[Part], limits: Shape) -> Layout:
        """For these examples, held-out ones among them, none of them longer than ``limits`` (S, T)."""
        sources, targets = (np.concatenate([getattr(part, side) for part in parts]) for side in ("sources", "targets"))
        causal = limits[0] == 0
        room = limits
        match batching:
            case "fixed":
                return Layout(batching, room, limits[:1], limits[1:])
            case "packed":
                if not causal:
                    sums = int(sources.sum(dtype=np.int64)), int(targets.sum(dtype=np.int64))
                    room = limits[0], target_room(*sums, *limits)
                return Layout(batching, room, quarters(room[0]), quarters(room[1]))
            case _:
                return Layout(
                    batching,
                    room,
                    (0,) if causal else edges(sources, limits[0], _SOURCE_EDGES),
                    edges(targets, limits[1], _TEXT_EDGES if causal else _TARGET_EDGES),
                )

    @property
    def largest(self) -> Shape:
        """(S, T) that no batch is larger than."""
        return self.source_edges[-1], self.target_edges[-1]

    def keys(self, part: Part) -> Places:
        """(examples,) by which like lengths come together: sources that are padded alike, and in them like targets."""
        return np.searchsorted(self.source_edges, part.sources) * (int(part.targets.max()) + 1) + part.targets

    def rows(self, part: Part, places: Places, keys: Places) -> list[Row]:
        """The examples at these places in rows, the longest first: what is too much for the memory shows at once."""
        ordered = places[np.lexsort((places, -keys[places]))]
        if self.batching != "packed":
            return [[place] for place in ordered.tolist()]
        rows: list[Row] = []
        for start in range(0, len(ordered), _PACKED_TOGETHER):
            some = ordered[start : start + _PACKED_TOGETHER]
            rows += [some[row].tolist() for row in pack(part.sources[some], part.targets[some], *self.room)]
        return sorted(rows, key=lambda row: _filled(part, row), reverse=True)

    def at_once(self, part: Part, rows: Sequence[Row], size: int) -> list[tuple[Sequence[Row], Shape]]:
        """Rows in micro-batches, each with its shape, the one that takes the most first.

        Of buckets more than ``size`` rows go at once where they take no more places than ``size`` of the longest.
        """
        if self.batching == "buckets":
            source, target = self.largest
            cuts = pieces([self.shape(part, [row]) for row in rows], (size * source, size * target), self.overhead)
        else:
            cuts = [*range(0, len(rows), size), len(rows)]
        found = [(some, self.shape(part, some)) for some in (rows[a:b] for a, b in pairwise(cuts))]
        return sorted(found, key=lambda one: len(one[0]) * sum(one[1]), reverse=True)

    def shape(self, part: Part, rows: Sequence[Row]) -> Shape:
        """(S, T) that holds rows which are computed at once."""
        filled = [_filled(part, row) for row in rows]
        source, target = max(source for source, _ in filled), max(target for _, target in filled)
        if self.batching == "padded":
            return source, target
        return padded(source, self.source_edges), padded(target, self.target_edges)


def _filled(part: Part, row: Row) -> Shape:
    return sum(int(part.sources[place]) for place in row), sum(int(part.targets[place]) for place in row)


@dataclass(frozen=True)
class ExampleWhole:
    """Rows of examples that one step, or one evaluation, is made of."""

    part: Part
    rows: Sequence[Row]
    layout: Layout
    collate: Collate

    @property
    def targets(self) -> int:
        """Targets that count."""
        return int(self.part.learnt[self._places].sum(dtype=np.int64))

    @property
    def tokens(self) -> int:
        """Places that hold something, of sources and targets."""
        return int(self.part.tokens[self._places].sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, sequences: int) -> ExampleWhole:
        """As many rows at most, spread evenly, so that they are as long as all are."""
        count = min(sequences, len(self.rows))
        some = [self.rows[i * len(self.rows) // count] for i in range(count)]
        return ExampleWhole(self.part, some, self.layout, self.collate)

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """``size`` rows at once; of buckets as many as take no more memory than so many of the longest."""
        for rows, shape in self.layout.at_once(self.part, self.rows, size):
            yield self._batch(rows, shape)

    def together(self) -> Batch:
        """All rows in one batch, in their order."""
        return self._batch(self.rows, self.layout.shape(self.part, self.rows))

    def shapes(self, size: int) -> list[tuple[int, int, int]]:
        """(rows, S, T) of each micro-batch, from lengths alone."""
        return [(len(rows), *shape) for rows, shape in self.layout.at_once(self.part, self.rows, size)]

    def padding(self, size: int) -> tuple[int, int]:
        """Places that hold nothing when ``size`` rows are computed at once, and places in all."""
        places = sum(rows * (source + target) for rows, source, target in self.shapes(size))
        return places - self.tokens, places

    def _batch(self, rows: Sequence[Row], shape: Shape) -> Batch:
        return self.collate.batch(self.part, rows, shape, packed=self.layout.batching == "packed")

    @property
    def _places(self) -> list[int]:
        return [place for row in self.rows for place in row]


class ExampleBatches:
    """The training batches of a run: each a pure function of (seed, step), every example once an epoch.

    Args:
        part: the examples to train with.
        layout: of their rows.
        collate: makes batches of rows.
        batch_size, batch_tokens: of a step, as ``epochs.Epochs`` says.
        seed: of the order.
    """

    def __init__(
        self, part: Part, layout: Layout, collate: Collate, *, batch_size: int, batch_tokens: int | None, seed: int
    ) -> None:
        self.part, self.layout, self.collate = part, layout, collate
        self.keys = layout.keys(part)
        self.epochs = Epochs(part.tokens, batch_size, batch_tokens, seed)
        self._epoch = Remembered(self.epochs.epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every example is seen once; the last may be smaller."""
        return self.epochs.steps

    def whole(self, step: int) -> ExampleWhole:
        """What the update after ``step`` completed ones learns from."""
        return self._whole(self._places(step))

    def trace(self, step: int) -> tuple[dict[str, Tensor], str]:
        """The same as tensors for a file, and in words what they are."""
        whole = self.whole(step)
        batch = whole.together()
        numbers = torch.from_numpy(self.part.numbers[[place for row in whole.rows for place in row]])
        tensors = {**batch.inputs, "targets": batch.targets, "examples": numbers}
        return tensors, "its inputs, targets, and the numbers of its examples"

    @cached_property
    def sequences(self) -> int:
        """The most rows that a step may have."""
        return int(np.diff(self._epoch(0).cuts).max())

    def longest(self) -> Full:
        """A step that needs no less memory than any other: all its rows full."""
        return Full(self.sequences, self.layout.largest, self.layout.batching == "packed")

    def padding(self, size: int, steps: int = 32) -> float:
        """The share of places that hold nothing, in steps from all over the first epoch, ``size`` rows at once."""
        some = range(0, self.steps_per_epoch, max(1, self.steps_per_epoch // steps))
        counts = [self.whole(step).padding(size) for step in some]
        return sum(empty for empty, _ in counts) / max(1, sum(places for _, places in counts))

    def _places(self, step: int) -> Places:
        number, place = divmod(step, self.steps_per_epoch)
        return self._epoch(number).at(place)

    def _whole(self, places: Places) -> ExampleWhole:
        return ExampleWhole(self.part, self.layout.rows(self.part, places, self.keys), self.layout, self.collate)


def held_out(part: Part, layout: Layout, collate: Collate, eval_tokens: int | Literal["all"]) -> ExampleWhole:
    """Always the same held-out examples, spread evenly over all of them; about ``eval_tokens`` targets."""
    count = len(part)
    if eval_tokens != "all":
        count = min(count, max(1, round(eval_tokens / float(part.learnt.mean()))))
    places = np.arange(count, dtype=np.int64) * len(part) // count
    return ExampleWhole(part, layout.rows(part, places, layout.keys(part)), layout, collate)
