"""Batches of like lengths: the few lengths to pad to, and how the examples of a step are cut into pieces of one shape.

A step's examples are drawn at random, whatever their lengths; only what is computed at once is alike. Since a step's
loss is the mean over all its targets, its gradient is that of the uncut batch, to rounding. (Whole steps of like
lengths would pad still less, but learn less: docs/finetuning.md.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MULTIPLE = 8  # lengths that a GPU's matrix units take whole
Shape = tuple[int, int]  # (S, T) that a row is padded to


def edges(lengths: npt.NDArray[np.int32], limit: int, most: int) -> tuple[int, ...]:
    """The lengths to pad to, ascending; the last one holds the longest.

    Of all choices of ``most`` multiples of 8 the one with the fewest places, when each length goes to the next edge:
    dynamic programming over the multiples, ``cost[k][j] = min_i cost[k-1][i] + count(i < length ≤ j) · j``.

    Args:
        lengths: (examples,) of what is padded.
        limit: what no example is longer than, and no edge either.
        most: edges there are; a compiled step is compiled once for each.

    >>> edges(np.array([3, 7, 8, 60, 61, 200], np.int32), 512, most=3)
    (8, 64, 200)
    """
    last = -(-int(lengths.max(initial=1)) // MULTIPLE)
    counts = np.bincount(np.maximum(1, -(-lengths // MULTIPLE)), minlength=last + 1)
    below = counts.cumsum()  # examples of at most j multiples
    j = np.arange(last + 1)
    places = np.where(j[:, None] < j, (below - below[:, None]) * j, np.iinfo(np.int64).max // 4)  # [i, j]
    cost, came = places[0], []
    for _ in range(most - 1):
        through = cost[:, None] + places
        through[0] = places[0]
        came.append(through.argmin(0))
        cost = through.min(0)
    found, end = [last], last
    for choice in reversed(came):
        end = int(choice[end])
        if end == 0:
            break
        found.append(end)
    return tuple(min(multiple * MULTIPLE, limit) for multiple in sorted(found))


def padded(length: int, among: Sequence[int]) -> int:
    """The first of the edges that holds ``length``."""
    return next(edge for edge in among if edge >= length)


def pieces(shapes: Sequence[Shape], most: Shape, overhead: int) -> list[int]:
    """Where rows are cut into pieces, each padded to its longest row, so that computing all of them takes the least.

    A piece costs its places, padding included, and ``overhead`` more. It has 1, 2, 4, … rows, so that there are few
    shapes. Of all such ways to cut the cheapest, by dynamic programming:
    ``cost[j] = min_i cost[i] + overhead + (j - i) · (S + T)``, where ``j - i`` is a power of two.

    Args:
        shapes: (S, T) of the rows, like ones beside each other.
        most: places for sources and for targets that a piece may have; a row alone may have more.
        overhead: what a piece costs besides, in places.

    Returns:
        The first row of each piece, and at the end the number of rows.

    >>> pieces([(96, 16)] * 4 + [(16, 8)] * 16, (2_000, 500), overhead=100)
    [0, 4, 20]
    >>> pieces([(96, 16)] * 4 + [(16, 8)] * 4, (2_000, 500), overhead=2_000)
    [0, 8]
    """
    count = len(shapes)
    longest = np.array(shapes, np.int64)  # (rows, 2) of the piece of 2^k rows that begins at each
    costs = [(overhead + longest.sum(1)).tolist()]
    while (rows := 2 ** len(costs)) <= count:
        longest = np.maximum(longest[: -rows // 2], longest[rows // 2 :])
        fits = (rows * longest <= most).all(1)
        if not fits.any():
            break
        costs.append(np.where(fits, overhead + rows * longest.sum(1), np.inf).tolist())
    least, came = [0.0], [0]
    for j in range(1, count + 1):
        cost, begin = min((least[j - 2**k] + costs[k][j - 2**k], j - 2**k) for k in range(len(costs)) if 2**k <= j)
        least.append(cost)
        came.append(begin)
    ends = [count]
    while ends[-1]:
        ends.append(came[ends[-1]])
    return ends[::-1]
