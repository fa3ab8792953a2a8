"""What was measured on a GPU of this machine of causes that only a GPU can confirm: their label falls with it.

`benchmarks/gpu.sh` takes each of them away from a small GPT-2 by the doctor's own ablation and keeps the ratios beside
this machine's calibrations. A finding that was read off a config or a script then tells the size on this GPU, where it
would otherwise say ``unconfirmed here``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ganeum.doctor.finding import Finding
from ganeum.hardware import peaks
from ganeum.hardware.device import Device

ON_A_GPU = (
    "tf32_off",
    "fp32",
    "eager_attention",
    "not_compiled",
    "checkpointing_for_nothing",
    "odd_vocabulary",
)


@dataclass(frozen=True)
class Seen:
    """One cause on one GPU: how many times as fast ``of`` was without it, and the interval of that."""

    times: float
    low: float
    high: float
    of: str
    date: str


def file() -> Path:
    """Where they are kept."""
    return peaks.cache_directory() / "doctor.json"


def seen(gpu: str) -> Mapping[str, Seen]:
    """Causes that were measured on a GPU of that name; what cannot be read was never measured."""
    try:
        return {cause: Seen(**found) for cause, found in _known().get(_key(gpu), {}).items()}
    except (TypeError, AttributeError):
        return {}


def remember(gpu: str, causes: Mapping[str, Seen]) -> bool:
    """Keep them beside those of other GPUs → whether that could be."""
    kept = {cause: asdict(found) for cause, found in (*seen(gpu).items(), *causes.items())}
    return peaks.remember(file(), _known() | {_key(gpu): kept}) is None


def labelled(finding: Finding, device: Device | None) -> Finding:
    """A finding that was read, of a cause that only a GPU can confirm: with its size on that GPU where it was measured
    here, else as unconfirmed."""
    if finding.cause not in ON_A_GPU or finding.sure != "read" or (device is not None and device.kind == "cpu"):
        return finding
    known = {} if device is None else seen(device.name)
    if finding.cause not in known:
        return replace(finding, sure="unconfirmed here")
    found = known[finding.cause]
    unit = f"times, {found.of} on this GPU, {found.date}"
    return replace(finding, sure="measured", size=found.times, interval=(found.low, found.high), unit=unit)


def _known() -> dict[str, Any]:
    try:
        known = json.loads(file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _key(gpu: str) -> str:
    """One name of a card, whoever says it: the driver puts its maker in front."""
    return gpu.removeprefix("NVIDIA ").strip()
