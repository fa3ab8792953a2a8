"""Two variants by turns, and how much faster one is than the other: a median ratio with an exact interval."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times as fast the second is.

    Attributes:
        median: of the ratios of neighbouring blocks' tokens per second.
        low, high: an interval that holds the true median with ``confidence`` at least, whatever the noise looks like.
        pairs: neighbouring blocks.
        seconds: that it took.
    """

    median: float
    low: float
    high: float
    confidence: float
    pairs: int
    seconds: float
