"""The few lengths that batches are padded to, chosen so that as little as possible of them is padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MULTIPLE = 8  # lengths that a GPU's matrix units take whole


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
