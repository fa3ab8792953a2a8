"""What a batch is waited for: computing, a disk, sleep, or something else that is not this process's.

Of each batch that is fetched: seconds that the thread computed (its CPU clock), seconds that it stood ready (Linux's
schedstat), the rest it was blocked; seconds that other threads of the process computed meanwhile; bytes that it read,
and those of them that came off a disk (``/proc/self/io``: ``rchar`` and ``read_bytes``, the latter not for files that
lie in memory already).
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ganeum import units
from ganeum.doctor.measured import cores
from ganeum.doctor.measured.training import Training

BATCHES, LONGEST_S = 24, 1.0
MOST = 0.5  # of the waiting: what is the reason by itself
SPARE = 256  # bytes a batch: these accounts are files, too
FAST_DISK = 2e9  # bytes a second: a reader that is blocked for longer waits for something else


def of(training: Training) -> dict[str, float] | None:
    """Per batch ``seconds``, and of these ``computed`` and ``blocked``; those that ``others`` of its threads computed;
    bytes ``read`` and from a ``disk``. None where Linux's accounts are not to be had, or batches come from processes of
    their own."""
    if getattr(training.batches, "num_workers", 0) or (before := _accounts()) is None:
        return None
    batches, began, count = iter(training.batches), time.perf_counter(), 0
    while count < BATCHES and time.perf_counter() - began < LONGEST_S:
        if next(batches, None) is None:
            break
        count += 1
    seconds = time.perf_counter() - began
    if not count or (after := _accounts()) is None:
        return None
    computed, ready, others, read, disk = (max(0.0, b - a) for a, b in zip(before, after, strict=True))
    blocked = max(0.0, seconds - computed - ready)
    return {
        "seconds": seconds / count,
        "computed": computed / count,
        "blocked": blocked / count,
        "others": others / count,
        "read": read / count,
        "disk": disk / count,
    }


def reason(found: dict[str, float] | None, asleep: float) -> tuple[str, str]:
    """The cause's name, and words for it; empty words where none is most of it.

    Args:
        asleep: the share of the waiting that is ``time.sleep()``.

    >>> reason({"seconds": 0.1, "computed": 0.02, "blocked": 0.08, "read": 4e6, "disk": 4e6}, 0.0)
    ('slow_disk', '80% of it is blocked, while 3.81 MiB a batch come off a disk, 47.7 MiB a second')
    """
    if asleep > MOST:
        return "loader", f"{asleep:.0%} of it is time.sleep()"
    if found is None:
        return "loader", ""
    busy = max(found["computed"] + found["blocked"], 1e-9)
    if found["computed"] > MOST * busy:
        return "loader", f"{found['computed'] / busy:.0%} of it is computing on one core"
    blocked = f"{found['blocked'] / busy:.0%} of it is blocked"
    disk, rate = found["disk"], found["disk"] / max(found["blocked"], 1e-9)
    if disk > max(SPARE, 0.5 * found["read"]) and rate < FAST_DISK:
        return "slow_disk", f"{blocked}, while {units.size(disk)} a batch come off a disk, {units.size(rate)} a second"
    if found.get("others", 0.0) > MOST * found["seconds"]:
        return "loader", f"{blocked}, while other threads of this process compute"
    if found["read"] > SPARE:
        read = units.size(found["read"])
        return "loader", f"{blocked}, while {read} a batch are read, and not off a disk: a network, a pipe, sleep"
    return "loader", f"{blocked}, and nothing is read: a lock, a queue, a network, sleep"


def _accounts() -> tuple[float, float, float, float, float] | None:
    waited = cores.waited()
    with suppress(OSError, ValueError, KeyError):
        lines = Path("/proc/self/io").read_text().splitlines()
        io = {name: float(value) for name, value in (line.split(": ") for line in lines)}
        if waited is not None:
            computed = time.thread_time()
            return computed, waited, time.process_time() - computed, io["rchar"], io["read_bytes"]
    return None
