"""What a trace comes to, as ``memory_gib`` of a plan has it. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ganeum import units
from ganeum.hardware.device import Device
from ganeum.plan.trace import learnt
from ganeum.plan.trace.replay import Replayed
from ganeum.plan.trace.room import SPARE

if TYPE_CHECKING:
    from ganeum.plan.trace.exact import Exact

LISTED = 24  # parts of the peak in a plan


def section(exact: Exact, device: Device, closed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``memory_gib`` of a plan, from a trace; ``closed``: the same from the closed form, where there is one."""
    closed = closed or {}
    replayed = exact.replayed
    learned = learnt.correction(device.name) if device.kind == "cuda" else learnt.Correction()
    gib = learned.factor / units.GIB
    told = {key: closed[key] for key in ("framework", "context", "before_the_model") if key in closed}
    beside = told.get("framework", 0.0) + told.get("before_the_model", 0.0)
    high = max(replayed.peak_reserved * (1 + SPARE), replayed.peak_allocated) * gib
    memory: dict[str, Any] = {
        "tensors": replayed.peak_allocated * gib,
        "by_component": {kind: size * gib for kind, size in replayed.by_kind.items()},
        "at": _at(replayed),
        "low": replayed.peak_requested * gib + (closed["low"] - closed["tensors"] if beside else 0.0),
        "high": high + (closed["high"] - closed["tensors"] if beside else 0.0),
        **told,
        "fits": exact.fits,
        "source": "traced",
    }
    if device.kind == "cuda":
        memory |= {"peak_allocated": memory["tensors"], "peak_reserved": replayed.peak_reserved * gib}
        memory["fragmentation"] = replayed.fragmentation
        if learned.factor != 1:
            memory["correction"] = {"factor": learned.factor, "configs": learned.configs, "spread": learned.spread}
    elif "peak_allocated" in closed:
        memory["peak_allocated"] = memory["tensors"] + beside
    if closed:
        kept = ("tensors", "low", "high", "at", "fits", "peak_reserved")
        memory["closed_form"] = {key: closed[key] for key in kept if key in closed}
    return memory | {
        "operation": replayed.at.operation,
        "layer": replayed.at.layer,
        "source_line": replayed.at.source,
        "phase": replayed.at.phase,
        "step": replayed.step,
        "parts": [
            {"kind": p.kind, "layer": p.layer, "operation": p.operation, "gib": p.bytes * gib, "count": p.count}
            for p in replayed.parts[:LISTED]
        ],
        "curve": {
            "event": [moment.event for moment in replayed.curve],
            "phase": [moment.phase for moment in replayed.curve],
            "allocated_gib": [round(moment.allocated * gib, 4) for moment in replayed.curve],
            "reserved_gib": [round(moment.reserved * gib, 4) for moment in replayed.curve],
        },
        "traced_s": round(exact.seconds, 1),
        "events": len(exact.trace.events),
        "attention": exact.trace.settings.get("attention", {}),
        "uncertain": list(exact.trace.uncertain),
    }


def _at(replayed: Replayed) -> str:
    """The moment of the peak in words: ``forward of blocks.11.mlp``, ``update``."""
    at = replayed.at
    return at.phase + (f" of {at.layer}" if at.layer else "")
