"""What each kind of work costs on this machine: measured by ``train/calibrate.py``, kept, read without torch.

The file lies beside the peaks (:mod:`ganeum.hardware.peaks`) and is keyed as they are: processor, threads, torch. What
is not there, or cannot be read, was never measured.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ganeum.errors import DeviceError
from ganeum.hardware import peaks

# What rates are for; a number is raised when amounts are counted otherwise: those of plan/time/loads.py, and those of
# plan/trace/roofline.py.
MODULES, OPERATIONS = "amounts 1", "operations 1"


@dataclass(frozen=True)
class Rates:
    """A calibration of one device.

    Attributes:
        date: when it was measured, ``2026-11-21``.
        seconds: group of work → kind of work in it → seconds a unit (:mod:`ganeum.plan.time.loads` says what they are).
        misfit: typical relative distance between what was measured and what these rates give for it.
    """

    date: str
    seconds: dict[str, dict[str, float]]
    misfit: float


def file() -> Path:
    """Where calibrations are kept."""
    return peaks.cache_directory() / "rates.json"


def key(name: str, threads: int | None, of: str = MODULES) -> str:
    """What a calibration is kept under; ``threads``: torch's on a CPU, None on a GPU."""
    beside = "" if threads is None else f"{threads} threads, "
    return f"{name}, {beside}torch {peaks.torch_version()}, {of}"


def remembered(name: str, kind: str, environment: Mapping[str, str] = os.environ, *, of: str = MODULES) -> Rates | None:
    """The calibration of the device called ``name``, with the torch that is installed; None: there is none.

    Args:
        of: what was measured, :data:`MODULES` of a step or single :data:`OPERATIONS`.
        kind: torch's device type. On a ``cpu`` the number of threads counts, which is guessed as for the peaks.
    """
    guesses: list[int | None] = [*peaks.thread_guesses(environment)] if kind == "cpu" else [None]
    known = _known()
    return next((found for threads in guesses if (found := _rates(known.get(key(name, threads, of))))), None)


def remember(name: str, threads: int | None, rates: Rates, *, of: str = MODULES) -> None:
    """Keep a calibration beside those of other devices, threads and versions.

    Raises:
        DeviceError: the cache cannot be written, so that no plan would know of it.
    """
    kept = {"date": rates.date, "seconds": rates.seconds, "misfit": rates.misfit}
    failed = peaks.remember(file(), _known() | {key(name, threads, of): kept})
    if failed is not None:
        raise DeviceError(
            "what was measured cannot be remembered",
            where=str(file()),
            why=failed.strerror or str(failed),
            suggestion="GANEUM_CACHE=DIRECTORY, one that can be written, for this command and for the plans",
        )


def _known() -> dict[str, Any]:
    path = file()
    try:
        return _read(path, path.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int) -> dict[str, Any]:
    """The file as it was at ``changed_ns``: a search asks for thousands of times, and reads it once."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _rates(kept: Any) -> Rates | None:
    """What was kept, if it is whole: each rate a number, finite and not below zero, and one above."""
    try:
        seconds = {
            str(group): {str(kind): float(value) for kind, value in rates.items()}
            for group, rates in kept["seconds"].items()
        }
        rates = Rates(str(kept["date"]), seconds, float(kept["misfit"]))
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    values = [value for kinds in seconds.values() for value in kinds.values()]
    return rates if any(values) and all(math.isfinite(value) and value >= 0 for value in values) else None
