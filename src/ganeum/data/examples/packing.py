"""Several examples in one row: the longest first, each into the first row that still has room for both of its sides."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int32]


def pack(sources: Counts, targets: Counts, source_room: int, target_room: int) -> list[list[int]]:
    """First-fit decreasing: which examples share a row, the rows in the order in which they were opened.

    Needs at most 11/9 of the fewest rows, and one more (Johnson, 1973), where one side alone decides. Nothing is cut.

    Args:
        sources, targets: (examples,) lengths, each no longer than its room.
        source_room, target_room: places in a row.

    >>> pack(np.array([5, 3, 4, 2]), np.array([1, 1, 1, 1]), 8, 3)
    [[0, 1], [2, 3]]
    """
    order = np.lexsort((np.arange(len(sources)), -np.maximum(sources / max(1, source_room), targets / target_room)))
    free = np.tile(np.array([source_room, target_room]), (len(sources), 1))
    rows: list[list[int]] = []
    for example in order.tolist():
        needed = sources[example], targets[example]
        row = int(np.argmax((free[: len(rows) + 1] >= needed).all(1)))
        if row == len(rows):
            rows.append([])
        rows[row].append(example)
        free[row] -= needed
    return rows


def target_room(sources: int, targets: int, longest_source: int, longest_target: int) -> int:
    """How long a row of targets is so that it is not full before the row of their sources is: a quarter more than on
    average, which the next step down cuts off where it is not used.

    Args:
        sources, targets: tokens of all examples.
    """
    ample = 1.25 * longest_source * targets / max(1, sources)
    return max(longest_target, math.ceil(ample / 8) * 8)


def quarters(room: int) -> tuple[int, ...]:
    """The lengths that packed rows are cut to where they are not full: the last ones of a step, most of all.

    >>> quarters(512), quarters(20), quarters(0)
    ((128, 256, 384, 512), (8, 16, 20), (0,))
    """
    return tuple(sorted({min(room, math.ceil(room * i / 32) * 8) for i in range(1, 5)}))
