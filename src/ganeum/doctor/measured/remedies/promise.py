"""How much a remedy can be expected to gain, and what is too small to be tried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

Facts: TypeAlias = Mapping[str, Any]
SHARE = 0.005  # of a step: what takes less is not tried
FETCH = 0.02  # of the time: what fetching batches takes before it is looked at
PAGE_S = 0.5e-6  # seconds to fault in a page of 4 KiB, zeros included
MOST = 1e3  # a promise is no larger


def gained(share: float) -> float:
    """How many times as fast a step is without a share of its time."""
    return min(MOST, 1 / max(1 - share, 1 / MOST))


def pays_from(start_s: float, before_s: float, after_s: float) -> int | None:
    """Steps from which on what is saved has paid for a longer start; None: it never does.

    >>> pays_from(30.0, 0.4, 0.3)
    300
    """
    saved = before_s - after_s
    return None if saved <= 0 else max(1, round(start_s / saved))
