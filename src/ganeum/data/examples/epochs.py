"""The order in which examples are learnt from, every one once an epoch: a pure function of seed and epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ganeum.data.order import Permutation

Places = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int32]
_AT_ONCE = 2**20  # places of the order that are worked out in one go


@dataclass(frozen=True)
class Epoch:
    """``order``: (examples,) their places in this epoch's order; step ``i`` takes those from ``cuts[i]`` to
    ``cuts[i + 1]``."""

    order: Places
    cuts: Places

    def at(self, step: int) -> Places:
        """The examples of a step of the epoch."""
        return self.order[self.cuts[step] : self.cuts[step + 1]]


@dataclass(frozen=True)
class Epochs:
    """How an epoch is cut into steps.

    Attributes:
        tokens: (examples,) of each.
        batch_size: examples in a step; the last step of an epoch has what is left.
        batch_tokens: tokens of a step, in place of ``batch_size``: an epoch is as many steps as its tokens make, and
            each begins at the example nearest to its share, so that all are full.
        seed: of every epoch's order.
    """

    tokens: Counts
    batch_size: int
    batch_tokens: int | None
    seed: int

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        if self.batch_tokens is None:
            return math.ceil(len(self.tokens) / self.batch_size)
        return min(len(self.tokens), max(1, round(int(self.tokens.sum(dtype=np.int64)) / self.batch_tokens)))

    def epoch(self, number: int) -> Epoch:
        """The order of one epoch and its cuts."""
        order = shuffled(len(self.tokens), self.seed, number)
        return Epoch(order, self._cuts(order))

    def _cuts(self, order: Places) -> Places:
        if self.batch_tokens is None:
            return np.minimum(np.arange(self.steps + 1) * self.batch_size, len(order))
        ends = self.tokens[order].cumsum(dtype=np.int64)
        shares = np.arange(1, self.steps) * (int(ends[-1]) / self.steps)
        inner = np.searchsorted(ends - self.tokens[order] / 2, shares)
        steps = np.arange(self.steps + 1)
        whole = np.concatenate([[0], inner, [len(order)]])
        whole = np.maximum.accumulate(whole - steps) + steps  # an example longer than a step still leaves no step empty
        cuts: Places = np.minimum(whole, len(order) - self.steps + steps)
        return cuts


def shuffled(count: int, seed: int, epoch: int) -> Places:
    """0 … count - 1 in that epoch's order."""
    order = Permutation(count, seed, epoch)
    starts = range(0, count, _AT_ONCE)
    found: Places = np.concatenate([order.at(np.arange(start, min(count, start + _AT_ONCE))) for start in starts])
    return found


class Remembered:
    """The epoch last asked for: step after step is of the same one."""

    def __init__(self, make: Callable[[int], Epoch]) -> None:
        self._make, self._held = make, dict[int, Epoch]()

    def __call__(self, number: int) -> Epoch:
        if number not in self._held:
            self._held.clear()  # the old one goes before the new one comes
            self._held[number] = self._make(number)
        return self._held[number]
