"""How far apart two samples lie, with an interval that no distribution has to be assumed for.

Hodges and Lehmann 1963 (Annals of Mathematical Statistics 34): the median of all differences between one of the one and
one of the other. Its interval are the differences that the Mann-Whitney test does not reject (Mann and Whitney 1947,
the same 18), exact for small samples; which are few, since steps in a row resemble each other and count as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import comb, isfinite, log
from statistics import median

BLOCKS = 16  # stretches of a run at most: longer ones resemble each other less
SURE = 0.95
FEWEST = 4  # of either: three steps in a row are nearly one
LEAST_FLOOR = 0.01  # a difference below it is nobody's concern, and no run is as even


@dataclass(frozen=True)
class Apart:
    """``by``: how much the first sample is above the second; ``low``, ``high``: between these with 95 %, None where
    there is too little of either."""

    by: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def excludes(self, floor: float = 0.0) -> bool:
        """Whether it is surely more than ``floor`` on one side."""
        return self.low is not None and self.high is not None and (self.low > floor or self.high < -floor)


def apart(first: Sequence[float], second: Sequence[float]) -> Apart:
    """How far the one lies above the other; both hold at least one number."""
    differences = sorted(a - b for a in first for b in second)
    middle = median(differences)
    rank = _rank(len(first), len(second))
    if rank is None or min(len(first), len(second)) < FEWEST:
        return Apart(middle)
    return Apart(middle, differences[rank], differences[-1 - rank])


def blocks(values: Sequence[float]) -> list[float]:
    """Medians of at most ``BLOCKS`` stretches of equal length, in order."""
    count = min(BLOCKS, len(values))
    ends = [len(values) * at // count for at in range(count + 1)] if count else []
    return [median(values[begin:end]) for begin, end in pairwise(ends)]


def floor(*samples: Sequence[float]) -> float:
    """The noise of runs like these, as a logarithm of a ratio: how far the halves of one lie apart, alternate blocks
    and early against late, whichever is most; 1 % at least.

    A run that changes on its way is no measure for another that is only a little different.
    """
    found = LEAST_FLOOR
    for values in samples:
        good = [value for value in values if value > 0 and isfinite(value)]
        if len(good) < 4:
            continue
        half = len(good) // 2
        for one, other in ((good[:half], good[half:]), (good[::2], good[1::2])):
            found = max(found, abs(log(median(one) / median(other))))
    return found


@cache
def _rank(m: int, n: int) -> int | None:
    """How many of the differences lie outside of the interval at each end; None: samples this small have none."""
    every, below, rank = comb(m + n, m), 0, -1
    for u in range(m * n + 1):
        below += _ways(m, n, u)
        if below / every > (1 - SURE) / 2:
            break
        rank = u
    return rank if rank >= 0 else None


@cache
def _ways(m: int, n: int, u: int) -> int:
    """Orders of ``m`` and ``n`` things in which the statistic is ``u``."""
    if u < 0 or u > m * n:
        return 0
    if m == 0 or n == 0:
        return int(u == 0)
    return _ways(m - 1, n, u - n) + _ways(m, n - 1, u)
