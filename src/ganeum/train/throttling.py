"""What held a GPU's clocks down while it worked, for how long and by how much, from the lines of logs/system.jsonl.

That a driver names a reason proves nothing: cards that idle at 24 of 575 W name the power cap, too. So a moment
counts only while the card is at work and its clock is below its highest; the power cap besides only near the power
limit. Working below the highest clock is what a limit is for: this says what happened, not that something is wrong.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

LEAST_SAMPLES = 10  # fewer at work say nothing
NOTEWORTHY = 0.05  # of the time at work
AT_WORK_PERCENT = 90  # utilisation
AT_THE_LIMIT = 0.9  # of the power limit
BELOW = 0.98  # of the highest clock

IN_WORDS = {
    "sw_power_cap": "the power limit",
    "sw_thermal_slowdown": "its temperature",
    "hw_thermal_slowdown": "its temperature (the hardware's own guard)",
    "hw_power_brake_slowdown": "the power supply's brake signal",
    "hw_slowdown": "the hardware's guard (power or temperature)",
    "sync_boost": "the slowest card of its boost group",
    "board_limit": "the board's limit",
    "reliability": "its voltage limit",
}


def throttling(lines: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """→ the part of summary.json called `gpu`, or None where there are too few moments to tell.

    Each line stands for the time since the line before it. `share`: of the time at work; `reasons`: each with its
    seconds, the longest first (several may hold at once); `sm_clock_mhz`, `sm_clock_otherwise_mhz`: medians while the
    clocks were held down and in the rest of the time at work; `power_w` and `temperature_c`: medians at work.
    """
    working: list[tuple[float, Mapping[str, Any], list[str]]] = []
    before = None
    for line in lines:
        elapsed_s = line.get("elapsed_s", 0.0)
        if before is not None and (line.get("gpu_utilization_percent") or 0) >= AT_WORK_PERCENT:
            working.append((max(elapsed_s - before, 0.0), line, _reasons(line)))
        before = elapsed_s
    if len(working) < LEAST_SAMPLES:
        return None
    held = [(seconds, line, reasons) for seconds, line, reasons in working if reasons]
    work_s, held_s = (sum(seconds for seconds, *_ in part) for part in (working, held))
    by_reason: dict[str, float] = {}
    for seconds, _, reasons in held:
        for reason in reasons:
            by_reason[reason] = by_reason.get(reason, 0.0) + seconds
    return {
        "at_work_s": work_s,
        "throttled_s": held_s,
        "share": held_s / work_s if work_s else 0.0,
        "reasons": dict(sorted(by_reason.items(), key=lambda item: -item[1])),
        "sm_clock_mhz": _median(held, "sm_clock_mhz"),
        "sm_clock_otherwise_mhz": _median([part for part in working if not part[2]], "sm_clock_mhz"),
        "sm_clock_max_mhz": _median(working, "sm_clock_max_mhz"),
        "power_w": _median(working, "power_w"),
        "power_limit_w": _median(working, "power_limit_w"),
        "temperature_c": _median(working, "temperature_c"),
    }


def _reasons(line: Mapping[str, Any]) -> list[str]:
    """Those that held the clocks down at this moment; the hardware's umbrella only where it does not say which."""
    named = [reason for reason in line.get("throttle_reasons", ()) if reason in IN_WORDS]
    clock, highest = line.get("sm_clock_mhz"), line.get("sm_clock_max_mhz")
    if clock is not None and highest is not None and clock >= BELOW * highest:
        return []
    power, limit = line.get("power_w"), line.get("power_limit_w")
    if power is not None and limit is not None and power < AT_THE_LIMIT * limit:
        named = [reason for reason in named if reason != "sw_power_cap"]
    precise = [reason for reason in named if reason != "hw_slowdown"]
    return precise if any(reason.startswith("hw_") for reason in precise) else named


def _median(part: Iterable[tuple[float, Mapping[str, Any], list[str]]], name: str) -> float | None:
    values = [line[name] for _, line, _ in part if line.get(name) is not None]
    return statistics.median(values) if values else None


def in_words(found: Mapping[str, Any]) -> str | None:
    """One line for the end of a run; None where the clocks were held down for less than `NOTEWORTHY` of the work."""
    if found["share"] < NOTEWORTHY:
        return None
    total = found["throttled_s"]
    causes = " and ".join(
        IN_WORDS[reason] + (f" ({seconds / total:.0%} of that)" if seconds < 0.95 * total else "")
        for reason, seconds in found["reasons"].items()
        if seconds >= NOTEWORTHY * total
    )
    figures = []
    if found["sm_clock_mhz"] is not None:
        clock = f"SM clock {found['sm_clock_mhz']:,.0f} MHz"
        if found["sm_clock_otherwise_mhz"] is not None:
            clock += f", {found['sm_clock_otherwise_mhz']:,.0f} otherwise"
        if found["sm_clock_max_mhz"] is not None:
            clock += f", {found['sm_clock_max_mhz']:,.0f} at most"
        figures.append(clock)
    if found["power_w"] is not None and found["power_limit_w"] is not None:
        figures.append(f"{found['power_w']:.0f} of {found['power_limit_w']:.0f} W")
    if found["temperature_c"] is not None:
        figures.append(f"{found['temperature_c']:.0f} °C")
    return (
        f"GPU: for {found['share']:.0%} of its {found['at_work_s']:,.0f} s at work its clocks were held down by "
        + "; ".join([causes, *figures])
    )
