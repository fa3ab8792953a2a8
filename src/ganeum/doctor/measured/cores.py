"""What this process and its children computed, and how long it waited for a core: Linux's account, thread by thread.

``/proc/…/schedstat``: nanoseconds on a core, nanoseconds in the queue for one (Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

PROC = Path("/proc")
Account: TypeAlias = tuple[float, float] | None  # seconds computed by all, seconds waited by the main thread


def now() -> Account:
    """The account so far; None where the system keeps none."""
    computed = waited = 0.0
    try:
        for pid in _family(os.getpid()):
            for thread in os.listdir(PROC / str(pid) / "task"):
                on_core, in_queue = _seconds(PROC / str(pid) / "task" / thread / "schedstat")
                computed += on_core
                if int(thread) == os.getpid():
                    waited = in_queue
    except (OSError, ValueError):
        return None
    return computed, waited


def since(before: Account) -> tuple[float | None, float | None]:
    """What came to it."""
    after = now()
    if before is None or after is None:
        return None, None
    return max(0.0, after[0] - before[0]), max(0.0, after[1] - before[1])


def _seconds(file: Path) -> tuple[float, float]:
    try:
        on_core, in_queue = file.read_text().split()[:2]
    except FileNotFoundError:
        if PROC.joinpath("self", "schedstat").exists():
            return 0.0, 0.0  # that thread has ended meanwhile
        raise
    return int(on_core) / 1e9, int(in_queue) / 1e9


def _family(pid: int) -> Iterator[int]:
    """The process, its children, theirs."""
    yield pid
    for file in (PROC / str(pid) / "task").glob("*/children"):
        try:
            children = file.read_text().split()
        except OSError:
            continue
        for child in children:
            if (PROC / child / "task").exists():
                yield from _family(int(child))
