"""What traced memory came to on this machine: predictions beside probes and runs, and what they teach. Loads no torch.

The file lies in the cache directory and is keyed by device and torch. A prediction is kept as the trace gave it, before
any correction, so corrections do not feed on themselves; and a run's own plan is fixed before its first step, so what
it measured enters the plans after it only.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any, Literal

from ganeum.hardware import peaks

ENOUGH = 3  # different configs: fewer teach nothing about the machine
MOST = 0.10  # a correction beyond is a mistake somewhere, and no property of a machine
KEPT = 200  # comparisons of a machine


@dataclass(frozen=True)
class Comparison:
    """One prediction and what was measured, in bytes.

    Attributes:
        what: two steps that were taken for it, or a whole run.
        config: the sum of the config's YAML.
        allocated, reserved: predicted, without correction; reserved is 0 on a CPU.
        measured_allocated, measured_reserved: the same, measured.
        date: of the measurement, ``2026-11-21``.
    """

    what: Literal["probe", "run"]
    config: str
    allocated: int
    reserved: int
    measured_allocated: int
    measured_reserved: int
    date: str


@dataclass(frozen=True)
class Correction:
    """``factor``: measured by predicted, as it was in ``configs`` different configs; ``spread``: half of what lies
    between the largest and the smallest of them."""

    factor: float = 1.0
    configs: int = 0
    spread: float = 0.0


def remember(
    device: str, what: Literal["probe", "run"], config: str, predicted: Sequence[int], measured: Sequence[int]
) -> None:
    """Keep a comparison; each side is bytes allocated and reserved. A disk that is full costs the memory of it only."""
    known = _read()
    allocated, reserved = map(int, predicted)
    measured_allocated, measured_reserved = map(int, measured)
    one = Comparison(what, config, allocated, reserved, measured_allocated, measured_reserved, str(date.today()))
    known[key(device)] = [*known.get(key(device), []), asdict(one)][-KEPT:]
    peaks.remember(file(), known)


def comparisons(device: str) -> list[Comparison]:
    """All that are kept of a device with the torch that is installed, the oldest first; damaged ones left out."""
    found = []
    for one in _read().get(key(device), []):
        try:
            found.append(Comparison(**one))
        except TypeError:
            continue
    return found


def correction(device: str) -> Correction:
    """The median over configs, each by its latest comparison; none before there are enough, or where it is absurd."""
    latest = {one.config: one for one in comparisons(device) if _reserved(one) is not None}
    ratios = [ratio for one in latest.values() if (ratio := _reserved(one)) is not None]
    if len(ratios) < ENOUGH:
        return Correction(configs=len(ratios))
    factor = statistics.median(ratios)
    if abs(factor - 1) > MOST:
        return Correction(configs=len(ratios))
    return Correction(factor, len(ratios), (max(ratios) - min(ratios)) / 2)


def key(device: str) -> str:
    """What a device's comparisons are kept under."""
    return f"{device}, torch {peaks.torch_version()}"


def file() -> Path:
    """Where they are kept."""
    return peaks.cache_directory() / "memory.json"


def _reserved(one: Comparison) -> float | None:
    """Measured by predicted, of a GPU."""
    return one.measured_reserved / one.reserved if one.reserved > 0 and one.measured_reserved > 0 else None


def _read() -> dict[str, list[dict[str, Any]]]:
    try:
        found = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
