"""What a run is doing, and whether the process that says so is still there."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import psutil

from ganeum.hardware import limits
from ganeum.hardware.machine import memory_gib
from ganeum.record.files import read_json, write_json
from ganeum.units import GIB

State = Literal["queued", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True)
class Status:
    """`status.json`. A process is known by its id, the second it started in, and the boot of its machine: an id
    alone is given out again.

    state: queued, running, finished, failed or interrupted. step: updates completed. error: the last one, in full.
    pid, process_started (seconds since 1970), boot_id: the process that wrote it.
    held_gib, memory_gib: what it held of the machine's memory then, and all there is for it. oom_kills: how many
    processes the kernel had killed for want of memory by then, as oom_counter, a file of its, counts them.
    """

    state: State
    step: int = 0
    error: str | None = None
    pid: int | None = None
    process_started: float | None = None
    boot_id: str | None = None
    held_gib: float | None = None
    memory_gib: float | None = None
    oom_kills: int | None = None
    oom_counter: str | None = None

    @classmethod
    def of_this_process(cls, state: State, step: int = 0, error: str | None = None) -> Status:
        process, counter = psutil.Process(), limits.oom_counter()
        return cls(
            state,
            step,
            error,
            os.getpid(),
            process.create_time(),
            boot_id(),
            held_gib=process.memory_info().rss / GIB,
            memory_gib=memory_gib()[0],
            oom_kills=limits.oom_kills(counter) if counter else None,
            oom_counter=str(counter) if counter else None,
        )

    def same_boot(self) -> bool:
        """Whether it was written on this machine, since it was last started."""
        return self.boot_id == boot_id()

    def is_alive(self) -> bool:
        """Whether the very process that wrote it still runs, on this machine, since this boot."""
        if self.pid is None or self.process_started is None or not self.same_boot():
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.process_started) < 2.0  # the clock may have been set since
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Status | None:
        """What is written there; None if nothing is, or nothing that is a status."""
        try:
            content = read_json(path)
            known = {field.name for field in fields(cls)}
            status = cls(**{key: value for key, value in content.items() if key in known})
        except (OSError, ValueError, TypeError, AttributeError):
            return None
        return status if status.state in get_args(State) and isinstance(status.step, int) else None


@lru_cache(maxsize=1)
def boot_id() -> str:
    """What changes when the machine starts anew: the kernel's own id on Linux, elsewhere the time of the boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return f"{psutil.boot_time():.0f}"
