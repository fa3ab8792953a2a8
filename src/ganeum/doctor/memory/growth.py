"""Whether memory grows step by step: a slope that single jumps do not move, with its interval.

Theil 1950 (Indagationes Mathematicae 12) and Sen 1968 (Journal of the American Statistical Association 63): the median
of the slopes between all pairs of points; the interval is Sen's, from Kendall's statistic. Steps in a row resemble each
other, so their medians over stretches are the points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import sqrt
from statistics import median

from ganeum.units import GIB

POINTS = 24  # stretches at most
FEWEST = 8  # points for a slope
WARM_UP = 0.2  # of the steps: caches fill, arenas grow
NORMAL = 1.96
LEAST_SHARE, LEAST_BYTES = 0.005, 4 * 2**20  # of what is held, and at all: less is an allocator at its work
GOES_ON = 2 / 3  # of its first half's growth that the second half must have; a logarithm has a half


@dataclass(frozen=True)
class Growth:
    """Bytes a step (``by``), between ``low`` and ``high`` with 95 %; ``steps`` over which that was seen; ``held``:
    bytes at their end; ``lasting``: whether it grows surely, by enough, and in its second half as well."""

    by: float
    low: float
    high: float
    steps: int
    held: float
    lasting: bool

    def as_dict(self) -> dict[str, float | int | bool | list[float]]:
        """For ``doctor.json``."""
        return {
            "bytes_a_step": self.by,
            "interval": [self.low, self.high],
            "steps": self.steps,
            "held_gib": self.held / GIB,
            "lasting": self.lasting,
        }


def growth(steps: Sequence[int], held: Sequence[float], *, least_bytes: float = LEAST_BYTES) -> Growth | None:
    """How bytes ``held`` grow with ``steps``; None: too few points.

    Args:
        least_bytes: growth over all steps that is told at all; 0 where bytes are counted and not measured.
    """
    cut = int(len(steps) * WARM_UP)
    points = _points(steps[cut:], held[cut:])
    if len(points) < FEWEST:
        return None
    by, low, high = slope(points)
    half = len(points) // 2
    early, late = (slope(part)[0] for part in (points[: half + 1], points[half:]))
    span = points[-1][0] - points[0][0]
    enough = by * span >= max(least_bytes, LEAST_SHARE * points[-1][1] if least_bytes else 0.0)
    lasting = low > 0 and late > 0 and late >= GOES_ON * early and enough
    return Growth(by, low, high, int(steps[-1] - steps[cut]), points[-1][1], lasting)


def slope(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """The median slope, and Sen's interval of it."""
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if b[0] != a[0])
    n, many = len(points), len(slopes)
    reach = NORMAL * sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low, high = max(0, int((many - reach) / 2)), min(many - 1, int((many + reach) / 2))
    return median(slopes), slopes[low], slopes[high]


def _points(steps: Sequence[int], held: Sequence[float]) -> list[tuple[float, float]]:
    count = min(POINTS, len(steps))
    ends = [len(steps) * at // count for at in range(count + 1)] if count else []
    return [(median(steps[begin:end]), median(held[begin:end])) for begin, end in pairwise(ends)]
