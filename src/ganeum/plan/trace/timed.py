"""A plan's time from its traced step: every operation at the rates of the device, where they are known. Loads no torch.

A CPU's are those that ``ganeum gpus --measure`` found for single operations; a GPU's are the catalogue's. What was
measured of whole steps or modules on a GPU itself is nearer than its data sheet, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeum.hardware import rates
from ganeum.hardware.device import Device
from ganeum.plan.execution import Execution
from ganeum.plan.time import BUSY, CATALOGUE, MARGIN, OWN
from ganeum.plan.trace import roofline
from ganeum.plan.trace.roofline import Operation

Plan = dict[str, Any]


def retimed(plan: Plan, device: Device, way: Execution, operations: Mapping[Operation, float]) -> Plan:
    """The plan with ``time`` from the operations of its step; as it was where their rates are not known.

    Args:
        way: how the step was traced; ``operations`` are those of the whole of it.
    """
    known = _parts(plan, device, way, operations)
    if known is None:
        return plan
    before = plan["time"]
    parts, margin, source = known
    step_s = sum(parts.values())
    ratio = step_s / before["step_s"]
    time = before | {"step_s": step_s, "low": margin[0] * step_s, "high": margin[1] * step_s}
    for key in ("tokens_per_second", "mfu"):
        if before.get(key) is not None:
            time[key] = before[key] / ratio
    if before.get("hours") is not None:
        time["hours"] = before["hours"] * ratio
    found = plan | {"time": time | {"by_part": parts, "source": source}}
    if plan.get("cost"):
        cost = {key: value if key == "power_w" else value * ratio for key, value in plan["cost"].items()}
        found["cost"] = cost
    return found


def step_s(plan: Plan, device: Device, way: Execution, operations: Mapping[Operation, float]) -> float | None:
    """Seconds of a step that was traced so, to compare ways by; None where the rates are not known."""
    known = _parts(plan, device, way, operations)
    return None if known is None else sum(known[0].values())


def _parts(
    plan: Plan, device: Device, way: Execution, operations: Mapping[Operation, float]
) -> tuple[dict[str, float], tuple[float, float], str] | None:
    """Seconds by phase, the lowest and the highest as shares of them, and where the rates are from."""
    before = plan.get("time")
    if not operations or not before or "step_s" not in before:
        return None
    margin, source = MARGIN["catalogue"], f"{before['source']}; operations traced"
    if device.kind == "cpu":
        known = rates.remembered(device.name, device.kind, of=rates.OPERATIONS)
        if known is None:
            return None
        parts = roofline.measured(operations, known)
        margin = MARGIN["akin" if known.misfit > BUSY else "calibrated"]
        source = f"operations traced, and measured on this machine {known.date}"
    elif before["source"] in (CATALOGUE, OWN):
        parts = roofline.listed(operations, way.precision, device)
        unsure = max(device.peak_uncertainty, device.bandwidth_uncertainty)
        margin = margin[0] / (1 + unsure), margin[1] * (1 + unsure)
    else:
        return None
    return None if parts is None else (parts, margin, source)
