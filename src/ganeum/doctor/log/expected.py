"""How long a step should take: the plan's answer for the GPU that is named, or for every one that it fits on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.errors import GaneumError
from ganeum.hardware.device import Device
from ganeum.plan.question.subject import Run

# How a script is written by somebody who thinks of none of it: the slowest way that is still sane.
PLAIN: Mapping[str, Any] = {"train.precision": "fp32", "train.compile": False}


@dataclass(frozen=True)
class Expected:
    """A step of a config.

    Attributes:
        fast, plain: plans, as in plan.json: as ganeum would run it, and in fp32 without compiling; of the fastest and
            of the slowest card, where it could be several.
        low, high: seconds of a step: the least of the one, the most of the other.
        cards: those that it could be.
    """

    fast: Mapping[str, Any]
    plain: Mapping[str, Any]
    low: float
    high: float
    cards: int

    @property
    def flops(self) -> float:
        """FLOP of a step."""
        return float(self.fast["flops"]["per_step"])

    @property
    def peak(self) -> float | None:
        """FLOP/s, of the one card."""
        return self.fast["device"].get("peak_flops_per_second") if self.cards == 1 else None

    def named(self) -> str:
        """Which card, in words."""
        name = self.fast["device"]["name"]
        if self.cards == 1:
            return str(name)
        return f"any of {self.cards} GPUs, from {name} to {self.plain['device']['name']}"


def of(config: Config, tokens: int | None, device: Device | None) -> Expected | None:
    """What ``config`` should take on ``device``, or on every card of the catalogue that it fits on. None: no time is
    known for it.

    Args:
        tokens: of the text, where its data is not here.
        device: None: the card is not known.
    """
    devices = [device] if device is not None else list(_all())
    found = []
    for one in devices:
        fast, plain = _plan(config, tokens, one, {}), _plan(config, tokens, one, PLAIN)
        times = [plan["time"] for plan in (fast, plain) if plan is not None and "low" in plan.get("time", {})]
        if fast is None or not times:
            continue
        if device is None and not fast["memory_gib"].get("fits"):
            continue
        slow = plain or fast
        found.append((times[0]["low"], fast, times[-1]["high"], slow))
    if not found:
        return None
    low, fast, _, _ = min(found, key=lambda one: one[0])
    _, _, high, plain = max(found, key=lambda one: one[2])
    return Expected(fast, plain, low, high, len(found))


def _plan(config: Config, tokens: int | None, device: Device, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        return Run.of(change(config, settings), tokens).plan(device)
    except GaneumError:  # that card cannot do that
        return None


def _all() -> list[Device]:
    from ganeum.hardware.card import as_device
    from ganeum.hardware.catalogue import gpus

    return [as_device(gpu, size) for gpu in gpus() if gpu.kind == "cuda" for size in gpu.memory_gib]
