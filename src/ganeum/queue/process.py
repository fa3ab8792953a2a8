"""A run's processes: known by more than an id, found again by another queue, and ended all together.

A process is known by its id, the moment it started in and the boot of its machine. The moment is counted in ticks since
the boot where the system tells it so (Linux): the clock may be set, and what psutil works out from it moves along.
A run's processes lie in a session of their own, and each carries the token of its attempt in its environment, so that
those that outlive the first are found, and no others.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from ganeum.record import status

TOKEN = "GANEUM_QUEUE_TOKEN"
GRACE_S = 120.0  # for a checkpoint of a large model on a slow disk
PROC = Path("/proc")
_DEAD = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


@dataclass(frozen=True)
class Identity:
    """`started`: ticks since the boot on Linux, seconds since 1970 elsewhere. `host`: where, as `host()` has it."""

    pid: int
    started: float
    boot_id: str
    host: str = ""

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """That of a process that runs now; None if it does not."""
        started = _started(pid)
        return None if started is None else cls(pid, started, status.boot_id(), host())

    @classmethod
    def of_this_process(cls) -> Identity:
        me = cls.of(os.getpid())
        assert me is not None, "this process runs"
        return me

    def same_boot(self) -> bool:
        return self.boot_id == status.boot_id()

    def is_elsewhere(self) -> bool:
        """Whether it is another machine's, of which nothing can be known here."""
        return not self.same_boot() and self.host != "" and _machine(self.host) != _machine(host())

    def is_hidden(self) -> bool:
        """Whether it is in another container of this machine, where its id means nothing to this one."""
        return self.same_boot() and self.host != "" and _container(self.host) != _container(host())

    def is_alive(self) -> bool:
        """Whether this very process runs: not another with its id, and no zombie."""
        return self.same_boot() and _started(self.pid) == self.started

    def age_s(self) -> float:
        """How long ago it started, whatever the clock was set to since; 0 where that was in another boot."""
        if not self.same_boot():
            return 0.0
        if (PROC / "stat").exists():
            return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK")
        return time.time() - self.started


@lru_cache(maxsize=1)
def host() -> str:
    """`node3/1f2e3d4c/4026531836`: this machine among those that may share a directory, by its name and its id (one of
    the two may be the same on several that were made from one image), and the container, by its room of process ids."""
    id = room = ""
    with suppress(OSError):
        id = Path("/etc/machine-id").read_text().strip()
    with suppress(OSError):
        room = str((PROC / "self" / "ns" / "pid").readlink()).strip("pid:[]")
    return f"{socket.gethostname()}/{id[:8]}/{room}"


def _machine(host: str) -> str:
    return host.rpartition("/")[0]


def _container(host: str) -> str:
    return host.rpartition("/")[2]


def members(token: str) -> list[psutil.Process]:
    """Every process of the attempt called `token` that runs now."""
    return list(_members(token))


def end(first: Identity, token: str, marker: Path, grace_s: float = GRACE_S) -> bool:
    """End an attempt: SIGTERM to the process that started it, which lets training write a checkpoint; SIGKILL to all of
    them that are left after `grace_s`.

    Returns:
        whether all ended by themselves.
    """
    stop(first, token, marker)
    deadline = time.monotonic() + grace_s
    while time.monotonic() < deadline:
        if not first.is_alive() and not members(token):
            return True
        time.sleep(0.05)
    kill(first, token)
    return False


def stop(first: Identity, token: str, marker: Path) -> None:
    """Ask an attempt to end, without waiting: SIGTERM to its first process, which hands it on to the training. Asked
    any number of times, by any number of processes, the training hears of it once: a second SIGTERM would cost it its
    checkpoint. `marker`: the file that says it has been asked.
    """
    if first.is_alive():
        _send(first.pid, signal.SIGTERM)
    elif left := members(token):  # the first was killed alone: what it would hand on goes to the training itself
        oldest = min(left, key=_created)  # what it started itself is its own to end
        if is_first(marker):
            _send(oldest.pid, signal.SIGTERM)


def is_first(marker: Path) -> bool:
    """Whether nobody was here before, by a file that one alone can make. On a full disk: yes."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def kill(first: Identity, token: str) -> None:
    """SIGKILL to every process of an attempt, until none is left: one may just have started another."""
    for _ in range(100):
        left = members(token)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        if first.is_alive():  # alone by now, or its environment cannot be read
            with suppress(psutil.Error):
                psutil.Process(first.pid).kill()
        elif not left:
            return
        time.sleep(0.02)


def is_alive(first: Identity, token: str, config: Path) -> bool:
    """Whether an attempt goes on: by its first process, or by a training of `config` whose parent was killed. A data
    worker that is left of both is only waiting."""
    end = f"/{Path(*config.parts[-3:])}"  # the directory of all runs may have been moved
    return first.is_alive() or any(word.endswith(end) for process in members(token) for word in _words(process))


def _members(token: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # another user's, or gone meanwhile
            if process.environ().get(TOKEN) == token and process.status() not in _DEAD:
                yield process


def _words(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


def _created(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return process.create_time()
    return float("inf")


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _started(pid: int) -> float | None:
    """When a process started; None where none has that id, or a dead one that nobody has asked about."""
    stat = PROC / str(pid) / "stat"
    if (PROC / "stat").exists():
        try:
            # The name in parentheses may hold anything; after it come state (3rd of all), … and starttime (22nd).
            words = stat.read_bytes().rpartition(b")")[2].split()
        except OSError:
            return None
        return None if words[0] in (b"Z", b"X") else float(words[19])
    try:
        process = psutil.Process(pid)
        return None if process.status() in _DEAD else process.create_time()
    except psutil.Error:
        return None
