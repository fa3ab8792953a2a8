"""Examples → a batch: tokens at the left, nothing at the right, and what is learnt at which place.

Where something stands is known by lengths alone, never by ids: that the end of a text carries loss does not hang on
which id fills the places behind it, which is often the same one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ganeum.data.batch import IGNORED, Batch

Ids = npt.NDArray[np.unsignedinteger]
Row = Sequence[int]  # the examples in one row


class Pairs(Protocol):
    """Examples by number: ids of a source, of none where they are single texts, and of a target."""

    def ids(self, side: str, number: int) -> Ids:
        """``side``: source or target."""
        ...


@dataclass(frozen=True)
class Seq2Seq:
    """Batches for a model with an encoder and a decoder.

    Attributes:
        pad: what fills places without a token.
        start: the decoder's first input, in front of the targets.
    """

    pad: int
    start: int

    def batch(self, examples: Pairs, rows: Sequence[Row], shape: tuple[int, int], *, packed: bool) -> Batch:
        """Rows of ``shape`` = (S, T): sources (B, S); targets (B, T), and as inputs the same, one place later."""
        sources, s_segments = _filled(len(rows), shape[0], self.pad)
        inputs, t_segments = _filled(len(rows), shape[1], self.pad)
        targets = np.full((len(rows), shape[1]), IGNORED, np.int64)
        for place, row in enumerate(rows):
            s = t = 0
            for segment, number in enumerate(row, start=1):
                source, target = examples.ids("source", number), examples.ids("target", number)
                sources[place, s : s + len(source)] = source
                s_segments[place, s : s + len(source)] = segment
                inputs[place, t] = self.start
                inputs[place, t + 1 : t + len(target)] = target[:-1]
                t_segments[place, t : t + len(target)] = segment
                targets[place, t : t + len(target)] = target
                s, t = s + len(source), t + len(target)
        named = {"source_tokens": torch.from_numpy(sources), "target_tokens": torch.from_numpy(inputs)}
        if packed:
            named |= {"source_segments": torch.from_numpy(s_segments), "target_segments": torch.from_numpy(t_segments)}
        elif not s_segments.all():
            named["source_mask"] = torch.from_numpy(s_segments > 0)
        return _batch(named, targets, int((s_segments == 0).sum() + (t_segments == 0).sum()))


@dataclass(frozen=True)
class Causal:
    """Batches for a model with a decoder only: of a pair the target is learnt behind its source, of a text every token
    behind its first.

    Inputs end one token before the example does: behind its last token nothing comes that could be learnt.

    Attributes:
        pad: what fills places without a token.
    """

    pad: int

    def batch(self, examples: Pairs, rows: Sequence[Row], shape: tuple[int, int], *, packed: bool) -> Batch:
        """Rows of ``shape`` = (0, T): tokens and targets (B, T)."""
        tokens, segments = _filled(len(rows), shape[1], self.pad)
        targets = np.full((len(rows), shape[1]), IGNORED, np.int64)
        positions = np.zeros((len(rows), shape[1]), np.int64)
        for place, row in enumerate(rows):
            at = 0
            for segment, number in enumerate(row, start=1):
                source = examples.ids("source", number)
                whole = np.concatenate([source, examples.ids("target", number)])
                end, learnt = at + len(whole) - 1, max(0, len(source) - 1)
                tokens[place, at:end] = whole[:-1]
                targets[place, at + learnt : end] = whole[1 + learnt :]
                segments[place, at:end] = segment
                positions[place, at:end] = np.arange(end - at)
                at = end
        named = {"tokens": torch.from_numpy(tokens)}
        if packed:
            named |= {"positions": torch.from_numpy(positions), "segments": torch.from_numpy(segments)}
        return _batch(named, targets, int((segments == 0).sum()))


Collate = Seq2Seq | Causal


@dataclass(frozen=True)
class Full:
    """A whole of rows without a free place, each target counting: no batch of this shape needs more memory.

    Attributes:
        sequences: rows.
        shape: (S, T); S = 0: there is no encoder.
        packed: with the segments of packed rows.
    """

    sequences: int
    shape: tuple[int, int]
    packed: bool

    def __len__(self) -> int:
        return self.sequences

    @property
    def targets(self) -> int:
        return self.sequences * self.shape[1]

    @property
    def tokens(self) -> int:
        return self.sequences * sum(self.shape)

    def first(self, sequences: int) -> Full:
        return Full(min(sequences, self.sequences), self.shape, self.packed)

    def micro_batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, self.sequences, size):
            yield self._batch(min(size, self.sequences - start))

    def _batch(self, size: int) -> Batch:
        source, target = self.shape
        ids, ones = torch.zeros(size, target, dtype=torch.int64), torch.ones(size, target, dtype=torch.int32)
        if source:
            named = {"source_tokens": torch.zeros(size, source, dtype=torch.int64), "target_tokens": ids}
            more = {"source_segments": torch.ones(size, source, dtype=torch.int32), "target_segments": ones}
            mask = {"source_mask": torch.ones(size, source, dtype=torch.bool)}
            return Batch(named | (more if self.packed else mask), ids)
        more = {"positions": torch.arange(target).expand(size, -1).contiguous(), "segments": ones}
        return Batch({"tokens": ids} | (more if self.packed else {}), ids)


def _filled(rows: int, width: int, pad: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Ids (rows, width), all of them ``pad``; and to which example of its row each place belongs, 0: to none."""
    return np.full((rows, width), pad, np.int64), np.zeros((rows, width), np.int32)


def _batch(inputs: dict[str, Tensor], targets: npt.NDArray[np.int64], padding: int) -> Batch:
    counted = np.flatnonzero(targets.ravel() != IGNORED)
    rows = None if len(counted) == targets.size else torch.from_numpy(counted)
    return Batch(inputs, torch.from_numpy(targets), rows, padding)
