"""A CPU's peak: the fastest matrix product seen on it, measured in a fraction of a second and remembered.

No data sheet says how fast a CPU multiplies in a container with two of its cores. So it is measured, in the precision
asked for, and the best rate ever seen here is kept: a measurement beside other work reads low, never high.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from ganeum.hardware.device import Device

SECONDS = 0.3  # for one precision
# Rows, width, columns: a small product, which is quick even in a format that the CPU emulates; one of a millisecond,
# which finds a quiet moment on a busy machine; one that gives every core enough to do. The best one counts.
SHAPES = ((256, 256, 256), (1024, 512, 512), (2048, 1024, 1024))


def cache_directory() -> Path:
    """Where what was learnt of this machine lies: $GANEUM_CACHE, or ``~/.cache/ganeum``."""
    return Path(os.environ.get("GANEUM_CACHE") or Path.home() / ".cache" / "ganeum")


def _file() -> Path:
    return cache_directory() / "cpu_peaks.json"


@cache
def torch_version() -> str:
    """The installed torch by its package's metadata, without importing it; empty if there is none."""
    try:
        return version("torch")
    except PackageNotFoundError:
        return ""


def _key(cpu: str, threads: int) -> str:
    return f"{cpu}, {threads} threads, torch {torch_version()}"


def _read() -> dict[str, dict[str, float]]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remembered(cpu: str, environment: Mapping[str, str] = os.environ) -> dict[str, float]:
    """Precision → best rate seen on this CPU with this torch, FLOP per second; empty before the first measurement.

    Without asking torch, which number of threads it will take is a guess (:func:`thread_guesses`).
    """
    known = _read()
    return next((known[key] for n in thread_guesses(environment) if (key := _key(cpu, n)) in known), {})


def thread_guesses(environment: Mapping[str, str] = os.environ) -> list[int]:
    """How many threads torch takes, best guess first: OMP_NUM_THREADS; or the physical cores, or the logical ones."""
    threads = environment.get("OMP_NUM_THREADS", "")
    found = [int(threads)] if threads.isdigit() else [psutil.cpu_count(logical=False), psutil.cpu_count()]
    return [number for number in found if number]


def measure_peak(precision: str, cpu: str) -> float:
    """The CPU's rate in FLOP per second at ``precision``: the best product of about 0.3 s, or a better one remembered.

    ``tf32`` does not exist on a CPU and means fp32. The result is remembered for this CPU, number of threads and torch.
    """
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    own = torch.Generator().manual_seed(0)  # the run's random numbers stay where they are
    rate = 0.0
    for rows, width, columns in SHAPES:
        operations = 2 * rows * width * columns
        if rate and operations / rate > SECONDS / len(SHAPES):
            break  # this one alone would take longer than all the time it has
        left = torch.randn(rows, width, generator=own).to(dtype)
        right = torch.randn(width, columns, generator=own).to(dtype)
        out = torch.empty(rows, columns, dtype=dtype)
        taken: list[float] = []
        with torch.inference_mode():
            torch.mm(left, right, out=out)  # the first one also chooses a kernel and starts its threads
            while len(taken) < 3 or sum(taken) < SECONDS / len(SHAPES):
                start = time.perf_counter()
                torch.mm(left, right, out=out)
                taken.append(time.perf_counter() - start)
        rate = max(rate, operations / min(taken))
    key, known = _key(cpu, torch.get_num_threads()), _read()
    rate = max(rate, known.get(key, {}).get(precision, 0.0))
    known[key] = known.get(key, {}) | {precision: rate}
    remember(_file(), known)
    return rate


def remember(path: Path, known: dict[str, Any]) -> OSError | None:
    """Write JSON whole or not at all; why not is given back, and costs only the next measurement."""
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        return error
    return None


def with_measured_peak(device: Device, precision: str) -> Device:
    """``device`` with its peak at ``precision`` measured, if it is a CPU with the memory for it; a GPU's peak is the
    catalogue's."""
    if device.kind != "cpu":
        return device
    try:
        known = device.peak_flops_per_second | {precision: measure_peak(precision, device.name)}
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        return device
    return replace(device, peak_flops_per_second=known, source="matrix products measured on this machine")
