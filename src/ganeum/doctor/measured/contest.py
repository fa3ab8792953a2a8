"""Two variants by turns, and how much faster one is than the other: a median ratio with an exact interval.

Blocks of some steps alternate in the order A B B A, A B B A, …: whatever changes slowly (clocks, temperature, another
program) meets both alike, and what the first of two has of an advantage the other has next. Each two neighbouring
blocks give one ratio of tokens per second; no block is in two of them. The median of such ratios does not mind
some that were disturbed, and order statistics give an interval for it that needs no assumption about the noise (David
and Nagaraja, Order Statistics, 2003, section 7.1).

Where both variants compute on one core, seconds that another program kept them from it are left out, since Linux counts
them: of a busy machine that is most of the noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Protocol

from ganeum.doctor.measured.training import Block

CONFIDENCE = 0.99
FEWEST_PAIRS = 8  # of so many the smallest and the largest enclose the median with 99 %
HOPELESS = 0.5  # slower than this in each of the first four pairs, or twice so before: no more of them are needed
FEW_PAIRS = 6  # 97 %, where there is no time for more
MOST_PAIRS = 1_000
WARM_S = 0.3  # of steps: so long ones are all counted
BLOCK_S = 0.02  # long beside what a clock and a switch cost; short beside how long another program disturbs
MOST_AT_ONCE = 1.15  # cores, of a training that computes on one; the rest is a fetching thread, or the account's own
LONGER = 2.5  # times as long, where that decides and no more time is known to be left
PRECISE = 0.08  # an interval this wide to either side, in parts of the effect: no more is needed


class Variant(Protocol):
    """What is measured: a worker."""

    def rewind(self) -> None: ...
    def warm(self, seconds: float = ..., least: int = ...) -> float: ...
    def block(self, steps: int) -> Block: ...


@dataclass(frozen=True)
class Ratio:
    """How many times as fast the second is.

    Attributes:
        median: of the ratios of neighbouring blocks' tokens per second.
        low, high: an interval that holds the true median with ``confidence`` at least, whatever the noise looks like.
        logs: logarithms of the single ratios.
        rates: tokens per second of the first and of the second, over all their blocks.
        seconds: that it took.
        undisturbed: waiting for a core was left out.
        waited: the share of the first one's time that was left out, of each block.
    """

    median: float
    low: float
    high: float
    confidence: float
    logs: tuple[float, ...]
    rates: tuple[float, float]
    seconds: float
    undisturbed: bool = False
    waited: tuple[float, ...] = ()

    @property
    def pairs(self) -> int:
        """Neighbouring blocks that were compared."""
        return len(self.logs)

    def beyond(self, floor: float) -> bool:
        """Whether even the low end of the interval is more than the noise, a ratio minus 1. Of very few pairs only what
        no noise looks like is believed."""
        return self.low > (1 + floor if self.pairs >= FEW_PAIRS else 1 / HOPELESS)

    def below(self, floor: float) -> bool:
        """Whether even the high end says that it is slower by more than the noise; of very few pairs as of a gain."""
        return self.high < (1 / (1 + floor) if self.pairs >= FEW_PAIRS else HOPELESS)

    def joined(self, other: Ratio) -> Ratio:
        """Both measurements of the same two variants as one."""
        joined = of(self.logs + other.logs, self.rates, self.seconds + other.seconds)
        return replace(joined, undisturbed=self.undisturbed and other.undisturbed)

    def __str__(self) -> str:
        return f"{self.median:.3f} times ({self.low:.3f} to {self.high:.3f})"


def contest(
    a: Variant,
    b: Variant,
    *,
    seconds: float,
    floor: float = 0.01,
    multiple: int = 1,
    only_gain: bool = False,
    patience: float = LONGER,
    clock: Callable[[], float] = time.monotonic,
) -> Ratio:
    """How many times as fast ``b`` is as ``a``.

    Args:
        a, b: in turns; whatever they did before is forgotten.
        seconds: at most, but for the fewest pairs that say anything; it ends sooner when it is precise enough, and
            later where only a gain matters and there seems to be one that could be chance.
        floor: differences of this size, a ratio minus 1, are of no interest.
        multiple: steps of a block are a multiple of this: of a period in which steps are unlike.
        only_gain: it also ends when ``b`` is certainly not faster by more than ``floor``.
        patience: how many times as long it may then take where there seems to be a gain.
    """
    began = clock()
    quickest = [one.warm() for one in (a, b)]
    for one in (a, b):
        one.rewind()  # after the warm-up, which takes as many steps as it has time for: both take the same batches
    if only_gain and HOPELESS**2 * quickest[1] > quickest[0]:
        found = ratio([(a.block(1), b.block(1))])
        if found.median < HOPELESS:  # else its steps are longer for what more they do
            return replace(found, seconds=clock() - began)
    step_s = max(quickest)
    began = max(began, clock() - seconds / 2)  # a variant that is compiled starts late
    steps = multiple * max(1, math.ceil(BLOCK_S / (step_s * multiple)))
    if step_s < WARM_S:  # what the first batches cost beside the others is nobody's
        a.block(steps)
        b.block(steps)
    pairs: list[tuple[Block, Block]] = []
    while len(pairs) < MOST_PAIRS:
        first, second = a.block(steps), b.block(steps)
        pairs.append((first, second))
        second, first = b.block(steps), a.block(steps)
        pairs.append((first, second))
        spent = clock() - began
        so_far = ratio(pairs)
        enough = len(pairs) >= FEWEST_PAIRS
        longest = seconds * (patience if only_gain and _is_open(so_far, floor) else 1)
        if only_gain and 2 * len(pairs) >= FEWEST_PAIRS and so_far.high < (1 + floor if enough else HOPELESS):
            break
        if enough:
            if spent >= longest or _is_precise(so_far, floor):
                break
        elif spent >= seconds and (len(pairs) >= FEW_PAIRS or spent >= 2 * longest):  # long steps, and little time
            break
    found = ratio(pairs)
    return replace(found, seconds=clock() - began)


def ratio(pairs: Sequence[tuple[Block, Block]]) -> Ratio:
    """Of blocks of A and of B, side by side as they were measured."""
    undisturbed = all(_on_one_core(blocks) for blocks in zip(*pairs, strict=True))
    rates = [(_rate(a, undisturbed), _rate(b, undisturbed)) for a, b in pairs]
    found = of([math.log(b / a) for a, b in rates], (median(a for a, _ in rates), median(b for _, b in rates)), 0.0)
    waited = tuple((a.waited or 0.0) / a.seconds for a, _ in pairs) if undisturbed else ()
    return replace(found, undisturbed=undisturbed, waited=waited)


def of(logs: Sequence[float], rates: tuple[float, float], seconds: float) -> Ratio:
    """The median of single ratios, and its interval."""
    low, high, confidence = interval(logs)
    return Ratio(math.exp(median(logs)), math.exp(low), math.exp(high), confidence, tuple(logs), rates, seconds)


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Two of the values that enclose the median of what they are drawn from, and the confidence of that; as near to
    each other as ``confidence`` allows, or the outermost two where they are too few for it.

    Below the true median lie as many values as a fair coin falls heads: P(enclosed by the k-th from both ends) =
    1 − 2 P(fewer than k heads of n).

    >>> interval([3.0, 1.0, 2.0, 5.0, 4.0, 8.0, 6.0, 7.0])
    (1.0, 8.0, 0.9921875)
    """
    ordered, n = sorted(values), len(values)
    k, fewer = 1, 1  # of the 2ⁿ ways that n coins fall, those with fewer than k heads
    while k < (n + 1) // 2:
        more = fewer + math.comb(n, k)
        if 1 - 2 * more / 2**n < confidence:  # whole numbers: floats end at a thousand coins
            break
        k, fewer = k + 1, more
    outside = 2 * fewer / 2**n
    return ordered[k - 1], ordered[n - k], max(0.0, 1 - outside)


def _on_one_core(blocks: Sequence[Block]) -> bool:
    """Whether one thread at a time was at work in all of them, so that it can have waited only for other programs. With
    more than one, and with children, they may wait for each other, which is the training's own affair."""
    known = [(b.computed, b.seconds - b.waited) for b in blocks if b.computed is not None and b.waited is not None]
    if len(known) < len(blocks):
        return False
    # The median: what it waited between two looks at a clock is counted to its neighbour.
    return median(computed / own if own > 0 else math.inf for computed, own in known) < MOST_AT_ONCE


def _rate(block: Block, undisturbed: bool) -> float:
    seconds = block.own if undisturbed else block.seconds
    assert seconds is not None
    return max(block.tokens, 1) / seconds


def _is_open(found: Ratio, floor: float) -> bool:
    """Whether it seems to gain something, and that could still be chance."""
    return found.median > 1 + 2 * floor and not found.beyond(floor)


def _is_precise(found: Ratio, floor: float) -> bool:
    wide = math.log(found.high / found.low) / 2
    return wide <= max(floor / 2, PRECISE * abs(math.log(found.median)))
