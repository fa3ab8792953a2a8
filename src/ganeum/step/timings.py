"""Where the seconds of one step went: data, forward, backward, optimizer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Timings:
    """Sums the seconds of each part of a step. Without a device it measures nothing and costs nothing.

    On a GPU the part waits for the device at both its ends, because otherwise only the queueing would be measured.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.seconds: dict[str, float] = dict.fromkeys(("data", "forward", "backward", "optimizer"), 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Everything inside counts as ``name``, one of the four."""
        if self.device is None:
            yield
            return
        self._wait()
        start = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] += time.perf_counter() - start

    def _wait(self) -> None:
        assert self.device is not None
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
