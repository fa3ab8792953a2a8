"""What the system allows this process, beside what the machine has: memory, threads; and its kills for want of memory.

A shell's limits (`ulimit -v`, `-d`, `-u`) are the process's own; a container's are its cgroup's, of version 1 or 2.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Event, Thread

import psutil

from ganeum.errors import RunError

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
# Python's words, Java's and those of the libraries that compute with several threads.
NO_THREAD = ("can't start new thread", "unable to create new native thread", "Resource temporarily unavailable")


def memory() -> Iterator[tuple[float, float]]:
    """(limit, used) in bytes for each limit on this process's memory: RLIMIT_AS, RLIMIT_DATA, and those of its cgroup
    and of every cgroup above it. Cached pages of files that the kernel gives back first are not counted as used."""
    if sys.platform != "linux":
        return
    import resource

    held = psutil.Process().memory_info()
    for what, used in ((resource.RLIMIT_AS, held.vms), (resource.RLIMIT_DATA, held.data)):
        limit = resource.getrlimit(what)[0]
        if limit != resource.RLIM_INFINITY:
            yield float(limit), float(used)
    for group in _groups("memory"):
        for limit_name, used_name, cached in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            at_most, now = _number(group / limit_name), _number(group / used_name)
            if at_most is not None and now is not None:
                yield float(at_most), float(now - (_counted(group / "memory.stat", cached) or 0))


def cores() -> Iterator[float]:
    """How many cores' time this process's cgroup, and each above it, gives it: `docker run --cpus 1.5` gives 1.5."""
    for group in _groups("cpu"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            words = (group / "cpu.max").read_text().split()  # version 2: a quota, or "max", and a period
            if words[0] != "max":
                yield int(words[0]) / int(words[1])
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota is not None and quota > 0 and period:  # version 1: -1 is none
            yield quota / period


def oom_counter() -> Path | None:
    """The file that counts the processes which the kernel killed because memory ran out: this cgroup's, or where that
    has none the whole machine's. None where nothing counts them."""
    for file in (_in_cgroup("memory", "memory.events"), _in_cgroup("memory", "memory.oom_control"), PROC / "vmstat"):
        if file is not None and oom_kills(file) is not None:
            return file
    return None


def oom_kills(counter: Path) -> int | None:
    """How many such kills `counter` has counted; None where it is gone, or counts none."""
    return _counted(counter, "oom_kill")


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


def no_thread(error: BaseException) -> RunError | None:
    """For a system that starts no more threads, with its limits as they are now; None for any other error."""
    if not any(text in str(error) for text in NO_THREAD):
        return None
    return RunError(
        "the system let this process start no more threads",
        why=f"{error}\n{threads()}",
        suggestion="OMP_NUM_THREADS=1 before the command, which starts fewer; or end other programs of yours, "
        "or raise the limit (`ulimit -u`, a container's pids limit)",
    )


@cache
def check_threads(number: int) -> None:
    """Starts as many threads as are going to compute, and ends them: libgomp, which starts torch's on a CPU, ends the
    process with a word of its own where it cannot. A process that could once is not asked again.

    Raises:
        RunError: the system does not let it.
    """
    gate, started = Event(), []
    try:
        for _ in range(number - 1):  # the one that asks computes, too
            thread = Thread(target=gate.wait, daemon=True)
            thread.start()
            started.append(thread)
    except RuntimeError as error:
        if (told := no_thread(error)) is None:
            raise
        raise told from error
    finally:
        gate.set()
        for thread in started:
            thread.join()


def _groups(controller: str) -> Iterator[Path]:
    """The directories of this process's cgroup and of those above it: version 2's, then version 1's. In a container its
    own may not be visible, and what is seen at the root is the container's."""
    try:
        lines = [line.split(":", 2) for line in (PROC / "self" / "cgroup").read_text().splitlines()]
    except OSError:
        return
    for _, controllers, path in sorted(lines, key=lambda line: line[1] != ""):  # version 2 names no controllers
        if controllers == "" or controller in controllers.split(","):  # cpu,cpuacct
            root = CGROUP / controllers
            here = root / path.lstrip("/")
            yield from (group for group in (here, *here.parents) if group.is_relative_to(root))


def _in_cgroup(controller: str, name: str) -> Path | None:
    """The nearest file of that name."""
    return next((group / name for group in _groups(controller) if (group / name).is_file()), None)


def _counted(file: Path, name: str) -> int | None:
    """The number behind a name in a file of names and numbers."""
    try:
        words = (line.split() for line in file.read_text().splitlines())
        return next((int(line[1]) for line in words if len(line) == 2 and line[0] == name), None)
    except (OSError, ValueError):
        return None


def _number(file: Path | None) -> int | None:
    try:
        return int(file.read_text()) if file is not None else None
    except (OSError, ValueError):  # not there, or "max"
        return None
