"""Steps that take longer at regular distances: something is done every so many steps, or an epoch begins anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import linear_regression, median

from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.contest import interval

LONG = 1.5  # times the median step
RARE = 0.02  # of the time: what steps take beyond the others
FEWEST = 3  # times that it must have been seen


@dataclass(frozen=True)
class Bursts:
    """Every ``period``-th step takes longer.

    Attributes:
        period: in steps.
        times: how many times as long as the others.
        share: of the time that all steps take, which those steps take beyond others.
        low, high: the share lies between these.
        in_data: most of it is waiting for the batch.
    """

    period: int
    times: float
    share: float
    low: float
    high: float
    in_data: bool

    def finding(self) -> Finding:
        """In words."""
        what = "fetching a batch" if self.in_data else "a step"
        return Finding(
            cause="worker_start" if self.in_data else "too_often",
            title=f"every {self.period:,}th step takes {self.times:.1f} times as long as the others",
            evidence=(f"{'waiting for its batch' if self.in_data else 'in the step itself'}, as regularly as a clock",),
            change="an epoch begins there: persistent workers, or more rows in an epoch"
            if self.in_data
            else f"whatever is done in each {self.period:,}th step (saving, evaluating, printing): less often",
            sure="measured",
            size=self.share,
            interval=(self.low, self.high),
            unit="share of the time",
            where=what,
        )


def between(times: Sequence[float]) -> int:
    """Steps from one that takes longer to the next, on average; 1 where such steps take no time to speak of.

    A block must hold some of them, or most blocks would hold none and their median know nothing of it.
    """
    usual = median(times)
    long = [seconds for seconds in times if seconds > LONG * usual]
    if sum(seconds - usual for seconds in long) < RARE * sum(times):
        return 1
    return max(1, round(len(times) / len(long)))


def together(times: Sequence[float], counts: Sequence[int], most: float) -> int:
    """Steps of a block, at most ``most``, so that it holds some of those that take longer than their tokens make them;
    1 where there are none. Blocks that are compared have the same batches, whatever their lengths."""
    apart = between(_alike(times, counts))
    return max(1, int(min(len(times) // 4, 2 * apart, most))) if apart > 1 else 1


def _alike(times: Sequence[float], counts: Sequence[int]) -> Sequence[float]:
    """Seconds of steps as if all had as many tokens."""
    if len(set(counts)) < 2:
        return times
    a_token, usual = linear_regression(counts, times).slope, median(counts)
    return [seconds - a_token * (count - usual) for seconds, count in zip(times, counts, strict=True)]


def find(times: Sequence[float], waits: Sequence[float], collections: Sequence[float] = ()) -> Bursts | None:
    """Of the seconds of steps in a row, and of those that each waited for its batch; None where nothing is regular.

    Seconds in which Python looked for cycles are left out: that is a cause of its own.
    """
    times = [seconds - away for seconds, away in zip(times, collections or (0.0,) * len(times), strict=True)]
    if len(times) < 2 * FEWEST:
        return None
    usual = median(times)
    long = [place for place, seconds in enumerate(times) if seconds > LONG * usual]
    apart = {later - earlier for earlier, later in pairwise(long)}
    if len(long) < FEWEST or len(apart) != 1 or (period := apart.pop()) < 2:
        return None
    beyond = [times[place] - usual for place in long]
    per_round = usual * period
    low, high, _ = interval(beyond)
    middle = median(beyond)
    waited = sum(waits[place] - median(waits) for place in long)
    return Bursts(
        period=period,
        times=1 + middle / usual,
        share=middle / (per_round + middle),
        low=low / (per_round + low),
        high=high / (per_round + high),
        in_data=waited > sum(beyond) / 2,
    )
