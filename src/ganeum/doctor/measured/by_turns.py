"""Two functions by turns, on the same tensors: what one call of the one takes longer than of the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from ganeum.doctor.measured import cores
from ganeum.doctor.measured.contest import interval
from ganeum.doctor.measured.training import Training

PAIRS, LONGEST_S = 16, 0.8  # of measurements by turns
BLOCK_S = 0.002  # of one measurement
SHORTEST_S, MOST = 1e-6, 100  # what an account of waiting may leave of a measurement; times in one
STEPS = 3  # whose median is a step


def saved(one: Callable[[], object], other: Callable[[], object], device: torch.device) -> tuple[float, float, float]:
    """Seconds by which a call of ``one`` is longer than of ``other``: the median of differences side by side, and its
    interval."""
    took = min(seconds(one, 1, device) for _ in range(3))
    seconds(other, 2, device)
    times = max(1, min(MOST, round(BLOCK_S / took)))
    differences, ended = list[float](), time.perf_counter() + LONGEST_S
    while len(differences) < PAIRS and (len(differences) < 3 or time.perf_counter() < ended):
        first = (one, other) if len(differences) % 2 else (other, one)
        spent = {function: seconds(function, times, device) / times for function in first}
        differences.append(spent[one] - spent[other])
    low, high, _ = interval(differences)
    return median(differences), low, high


def step_s(training: Training, device: torch.device) -> float:
    """Seconds of a step, the median of a few."""
    some = [batch for batch, _ in zip(training.batches, range(STEPS), strict=False)]
    return median(seconds(partial(training.step, batch), 1, device) for batch in some)


def seconds(function: Callable[[], object], times: int, device: torch.device) -> float:
    """Without those that other programs had the core."""
    waited, began = cores.waited(), time.perf_counter()
    for _ in range(times):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    spent = time.perf_counter() - began
    return max(spent - (cores.difference(waited, cores.waited()) or 0.0), SHORTEST_S)
