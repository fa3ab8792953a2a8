"""What the system allows this process, beside what the machine has: memory, threads; and its kills for want of memory.

A shell's limits (`ulimit -v`, `-d`, `-u`) are the process's own; a container's are its cgroup's, of version 1 or 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")


def memory() -> Iterator[tuple[float, float]]:
    """(limit, used) in bytes for each of RLIMIT_AS and RLIMIT_DATA that is set; Linux holds a process to them."""
    if sys.platform != "linux":
        return
    import resource

    held = psutil.Process().memory_info()
    for what, used in ((resource.RLIMIT_AS, held.vms), (resource.RLIMIT_DATA, held.data)):
        limit = resource.getrlimit(what)[0]
        if limit != resource.RLIM_INFINITY:
            yield float(limit), float(used)


def oom_counter() -> Path | None:
    """The file that counts the processes which the kernel killed because memory ran out: this cgroup's, or where that
    has none the whole machine's. None where nothing counts them."""
    for file in (_in_cgroup("memory", "memory.events"), _in_cgroup("memory", "memory.oom_control"), PROC / "vmstat"):
        if file is not None and oom_kills(file) is not None:
            return file
    return None


def oom_kills(counter: Path) -> int | None:
    """How many such kills `counter` has counted; None where it is gone, or counts none."""
    try:
        words = (line.split() for line in counter.read_text().splitlines())
        return next((int(line[1]) for line in words if len(line) == 2 and line[0] == "oom_kill"), None)
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Threads:
    """How many threads there may be and are: of this user (`ulimit -u`; root is not held to it), of this cgroup, of the
    machine. None: no limit, or not known."""

    user_limit: int | None
    user_now: int
    group_limit: int | None
    group_now: int | None
    machine_limit: int | None

    def __str__(self) -> str:
        limits = [
            f"{name}: {'' if now is None else f'{now:,} of '}{limit:,}"
            for name, now, limit in (
                ("this user's threads (ulimit -u)", self.user_now, self.user_limit),
                ("this container's (pids.max)", self.group_now, self.group_limit),
                ("the machine's (kernel.threads-max)", None, self.machine_limit),
            )
            if limit is not None
        ]
        return "; ".join(limits) or f"this user has {self.user_now:,} threads, and no limit on them is known"


def threads() -> Threads:
    """Read now; counting the user's threads looks at every process."""
    user_limit = None
    if sys.platform != "win32":
        import resource

        limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        user_limit = None if limit == resource.RLIM_INFINITY else limit
    me = psutil.Process().username()
    mine = sum(
        process.info["num_threads"] or 0
        for process in psutil.process_iter(["username", "num_threads"])
        if process.info["username"] == me
    )
    group_limit, group_now = (_in_cgroup("pids", name) for name in ("pids.max", "pids.current"))
    return Threads(
        user_limit, mine, _number(group_limit), _number(group_now), _number(PROC / "sys" / "kernel" / "threads-max")
    )


def _in_cgroup(controller: str, name: str) -> Path | None:
    """The file of this process's cgroup: version 2's, else version 1's; in a container its cgroup may be the root."""
    try:
        lines = [line.split(":", 2) for line in (PROC / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return None
    for _, controllers, path in sorted(lines, key=lambda line: line[1] != ""):  # version 2 names no controllers
        if controllers in ("", controller):
            for directory in (CGROUP / controllers / path.lstrip("/"), CGROUP / controllers):
                if (directory / name).is_file():
                    return directory / name
    return None


def _number(file: Path | None) -> int | None:
    try:
        return int(file.read_text()) if file is not None else None
    except (OSError, ValueError):  # not there, or "max"
        return None
