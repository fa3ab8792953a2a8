"""What the machine's processors did meanwhile: for this training, and for other programs instead of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

SCHEDULE = Path("/proc/thread-self/schedstat")  # nanoseconds on a core, nanoseconds ready and without one, turns
RESTING = ("idle", "iowait")
ENOUGH_S = 1.0  # processor seconds of the machine: its clocks tick at 10 ms
TWICE = ("guest", "guest_nice")  # which are in user and nice already


class Processor(NamedTuple):
    """Seconds since some moment: all that is of use is a difference.

    ``own``: of processors, of all threads of this process; ``waited``: that the calling thread was ready to run and had
    no core (0 where the system does not say: Linux does); ``busy``, ``total``: of the machine's processors, with
    whatever program on them.
    """

    own: float
    waited: float
    busy: float
    total: float

    @classmethod
    def now(cls) -> Processor:
        times = psutil.cpu_times()._asdict()
        total = sum(seconds for name, seconds in times.items() if name not in TWICE)
        return cls(time.process_time(), _waited(), total - sum(times.get(name, 0.0) for name in RESTING), total)

    def since(self, before: Processor) -> Processor:
        """What came in between."""
        return Processor(*(now - then for now, then in zip(self, before, strict=True)))

    @property
    def others(self) -> float:
        """The share of the machine's processors that other programs had."""
        return min(max(self.busy - self.own, 0.0) / self.total, 1.0)


class Company:
    """Over the steps between two looks, pauses left out: what they took of the processors, and what others did."""

    def __init__(self) -> None:
        self._paused = Processor(0.0, 0.0, 0.0, 0.0)
        self._looked = self._since = Processor.now()
        self._others: float | None = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done meanwhile is not the steps'."""
        before = Processor.now()
        yield
        meanwhile = Processor.now().since(before)
        self._paused = Processor(*(sum(both) for both in zip(self._paused, meanwhile, strict=True)))

    def read(self, steps: int) -> dict[str, float | None]:
        """For a line of metrics: ``cpu_s`` and ``cpu_wait_s`` of one of so many steps, and ``cpu_others``, which is of
        the last ``ENOUGH_S`` where the steps took less; None: there was not as much yet."""
        now = Processor.now().since(self._paused)
        took = now.since(self._looked)
        self._looked = now
        if (lately := now.since(self._since)).total >= ENOUGH_S:
            self._others, self._since = lately.others, now
        return {"cpu_s": took.own / steps, "cpu_wait_s": took.waited / steps, "cpu_others": self._others}


def _waited() -> float:
    try:
        return int(SCHEDULE.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
