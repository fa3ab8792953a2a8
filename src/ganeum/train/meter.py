"""Speed and memory over the interval between two logged steps, read without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch

from ganeum.step.timings import Timings
from ganeum.train.processor import Company

GIB = 2**30


class Meter:
    """A clock that stops while something other than training happens.

    Args:
        flops_per_token: of training, forward and backward.
        peak_flops_per_second: the device's at the run's precision; None: MFU is not known.
    """

    def __init__(self, device: torch.device, flops_per_token: int, peak_flops_per_second: float | None) -> None:
        self._device, self._flops, self._peak = device, flops_per_token, peak_flops_per_second
        self._process = psutil.Process()
        self._company = Company()
        self._begin(time.perf_counter())

    def _begin(self, now: float) -> None:
        self._since, self._steps, self._tokens, self._timed_steps = now, 0, 0, 0
        self._timings = Timings(self._device)

    def timings(self, logged: bool) -> Timings | None:
        """What the coming step should fill. A CPU is never waited for, so there every step is measured; a GPU would
        have to be waited for at each part, so there only the logged step is."""
        if self._device.type == "cpu" or logged:
            self._timed_steps += 1
            return self._timings
        return None

    def count(self, tokens: int) -> None:
        """A step is done (or queued)."""
        self._steps += 1
        self._tokens += tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Evaluation, samples, checkpoints: their time is not the step's."""
        start = time.perf_counter()
        with self._company.paused():
            yield
        self._since += time.perf_counter() - start

    def read(self) -> dict[str, float | None]:
        """The interval's figures, and a new interval. The device must have been waited for just before.

        step_time_s is the mean of the interval's steps, data_s … optimizer_s the mean of those of them that were
        measured, other_s the rest; cpu_s, cpu_wait_s and cpu_others are what the machine's processors did meanwhile.
        """
        now = time.perf_counter()
        step_time_s = (now - self._since) / self._steps
        parts = {f"{name}_s": s / max(self._timed_steps, 1) for name, s in self._timings.seconds.items()}
        tokens_per_second = self._tokens / (now - self._since)
        figures: dict[str, float | None] = {
            "step_time_s": step_time_s,
            **parts,
            "other_s": max(step_time_s - sum(parts.values()), 0.0),
            "tokens_per_second": tokens_per_second,
            "mfu": tokens_per_second * self._flops / self._peak if self._peak else None,
            **self._company.read(self._steps),
            **self._memory(),
        }
        self._begin(now)
        return figures

    def _memory(self) -> dict[str, float | None]:
        """A GPU's largest so far by torch's allocator; for a CPU what the process holds in memory now (RSS)."""
        if self._device.type == "cuda":
            return {
                "memory_allocated_gib": torch.cuda.max_memory_allocated(self._device) / GIB,
                "memory_reserved_gib": torch.cuda.max_memory_reserved(self._device) / GIB,
            }
        if self._device.type == "mps":
            return {
                "memory_allocated_gib": torch.mps.current_allocated_memory() / GIB,
                "memory_reserved_gib": torch.mps.driver_allocated_memory() / GIB,
            }
        return {"memory_allocated_gib": self._process.memory_info().rss / GIB, "memory_reserved_gib": None}
