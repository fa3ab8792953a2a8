"""A short measurement of what this machine takes for each kind of work in a step, fitted and remembered.

A model's own modules are timed at a few sizes: each half of a block forward and backward, the loss, the embedding, the
updates. How much of each kind of work is in one (:mod:`ganeum.plan.time.loads`) times its rate is the time; so the
rates that explain the times best are found, none below zero, each time weighing the same whether it is long or short.
They are remembered (:mod:`ganeum.hardware.rates`), and a plan made without torch multiplies them out again.

The sizes go by turns, so that a machine that is busy for a while slows all of them and not one kind of work. With one
thread the processor's own time is read, which does not run while other programs do.
"""

from __future__ import annotations

import datetime
import statistics
import time
from contextlib import nullcontext

import torch

from ganeum.errors import DeviceError
from ganeum.hardware import rates
from ganeum.hardware.device import Device
from ganeum.hardware.rates import Rates
from ganeum.models.kernels import mode_kept
from ganeum.plan.time.measured import seconds as times_of
from ganeum.step import allocator
from ganeum.train import probes
from ganeum.train.probes import Probe

SECONDS = 15.0
LEAST_ROUNDS = 2  # beside the first, in which kernels are chosen and threads started
WARM_S = 0.01
SWEEPS = 2_000  # of the fit, over all kinds of work of a group


@mode_kept()
def calibrate(device: Device, seconds: float = SECONDS) -> Rates:
    """Measure for about so many seconds, remember what came out, and give it back.

    Random states, torch's settings and the caller's models stay as they were.

    Raises:
        DeviceError: it is neither a CPU nor a CUDA device; or the cache cannot be written.
    """
    if device.kind not in probes.BLOCKS:
        raise DeviceError(
            f"{device.name} cannot be calibrated",
            where=f"device {device.kind}",
            why="only the time of a CPU's and of a CUDA device's work is measured so far",
            suggestion="ganeum train measures a few of the run's own steps before it starts",
        )
    until, where = time.monotonic() + seconds, torch.device(device.torch_name)
    if where.type == "cpu":
        allocator.keep_freed_memory()
    products = torch.get_float32_matmul_precision()
    try:
        # Events are recorded on the current device, which is the first one unless it is said otherwise.
        on = torch.cuda.device(where) if where.type == "cuda" else nullcontext()
        with on, torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
            torch.manual_seed(0)
            timed = list(probes.of(device, where))
            times: list[list[list[float]]] = [[] for _ in timed]  # probe → round → group → seconds
            for probe in timed:
                probe.run()
            lasted = 0.0  # another round is begun where it fits
            while len(times[0]) < LEAST_ROUNDS or time.monotonic() + lasted < until:
                began = time.monotonic()
                for probe, taken in zip(timed, times, strict=True):
                    taken.append(_warm(probe))
                lasted = time.monotonic() - began
    finally:
        torch.set_float32_matmul_precision(products)
    found = fitted(timed, times)
    rates.remember(device.name, torch.get_num_threads() if device.kind == "cpu" else None, found)
    return found


def _warm(probe: Probe) -> list[float]:
    """The last of as many runs as fit into :data:`WARM_S`: a step repeats its modules too, and what was before one of
    a fraction of a millisecond has left its caches cold."""
    spent, taken = 0.0, probe.run()
    while (spent := spent + sum(taken)) < WARM_S:
        taken = probe.run()
    return taken


def fitted(timed: list[Probe], times: list[list[list[float]]]) -> Rates:
    """The rates behind the times; of each probe's rounds the middle one counts, of two the shorter."""
    measured: dict[str, list[tuple[dict[str, float], float]]] = {}
    whole: list[tuple[Probe, float]] = []
    for probe, taken in zip(timed, times, strict=True):
        middle = [statistics.median_low(seconds) for seconds in zip(*taken, strict=True)]
        if probe.others:
            whole.append((probe, middle[0]))
            continue
        for group, seconds in zip(probe.groups, middle, strict=True):
            measured.setdefault(group, []).append((probe.amounts, seconds))
    found = {group: fit(points) for group, points in measured.items()}
    misses = [
        sum(amount * found[group][kind] for kind, amount in amounts.items()) / seconds - 1
        for group, points in measured.items()
        for amounts, seconds in points
    ]
    for probe, seconds in whole:
        parts = times_of(probe.others, Rates("", found, 0.0))
        assert parts is not None, "what a whole step consists of was measured"
        found[probe.groups[0]] = {"calls": max(0.0, seconds - sum(parts.values()))}
    misfit = (sum(miss**2 for miss in misses) / len(misses)) ** 0.5
    return Rates(datetime.date.today().isoformat(), found, misfit)


def fit(points: list[tuple[dict[str, float], float]]) -> dict[str, float]:
    """(amounts, seconds) → kind of work → seconds a unit, none below zero, with the least squares of the relative
    errors: coordinate descent on the normal equations (Franc et al. 2005, "Sequential coordinate-wise algorithm for the
    non-negative least squares problem")."""
    kinds = [kind for kind in points[0][0] if any(amounts[kind] for amounts, _ in points)]
    rows = [[amounts[kind] / seconds for kind in kinds] for amounts, seconds in points]
    sizes = [sum(row[j] ** 2 for row in rows) ** 0.5 for j in range(len(kinds))]
    scaled = [[value / size for value, size in zip(row, sizes, strict=True)] for row in rows]
    gram = [[sum(row[i] * row[j] for row in scaled) for j in range(len(kinds))] for i in range(len(kinds))]
    x, slope = [0.0] * len(kinds), [-sum(row[j] for row in scaled) for j in range(len(kinds))]
    for _ in range(SWEEPS):
        for j in range(len(kinds)):
            moved = max(0.0, x[j] - slope[j]) - x[j]
            if moved:
                x[j] += moved
                slope = [value + moved * gram[i][j] for i, value in enumerate(slope)]
    return dict.fromkeys(points[0][0], 0.0) | {
        kind: value / size for kind, value, size in zip(kinds, x, sizes, strict=True)
    }
