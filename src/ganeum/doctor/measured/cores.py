"""How long this process waited for a core, and what its children computed: Linux's account, thread by thread.

``/proc/…/schedstat``: nanoseconds on a core, nanoseconds in the queue for one (Documentation/scheduler, sched-stats).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def waited() -> float | None:
    """Seconds that the main thread of this process stood ready and was not let onto a core, so far."""
    try:
        return int((PROC / "self" / "schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return None


def of_children() -> float | None:
    """Seconds of cores that the processes used which this one started, and theirs; of those that are alive."""
    if waited() is None:
        return None
    total = 0
    for pid in below(os.getpid()):
        for thread in _threads(pid):
            with suppress(OSError, ValueError, IndexError):  # it ended meanwhile
                total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def difference(before: float | None, after: float | None) -> float | None:
    """What came to an account; None where there is none."""
    return None if before is None or after is None else max(0.0, after - before)


def below(pid: int) -> Iterator[int]:
    """Its children, theirs, and so on; of Linux only."""
    for thread in _threads(pid):
        children = list[str]()
        with suppress(OSError):
            children = (thread / "children").read_text().split()
        for child in children:
            yield int(child)
            yield from below(int(child))


def _threads(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []
