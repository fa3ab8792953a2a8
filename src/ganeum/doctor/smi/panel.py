"""What `nvidia-smi` prints without options, the table with the frame; and the columns of `nvidia-smi dmon`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ganeum.doctor.smi import gather
from ganeum.doctor.smi.sample import BUSY_PERCENT, Process, Sample

NAME = re.compile(r"\|\s*(\d+)\s{1,4}(\S.*?)\s+(?:On|Off|N/A|WDDM|TCC|MCDM)\s*\|\s*([0-9A-Fa-f]{4,8}:[0-9A-Fa-f:.]+)")
STATE = re.compile(
    r"\|\s*\S+\s+(\d+|N/A)C?\s+(P\d{1,2})\s+(\d+|N/A)W?\s*/\s*(\d+|N/A)W?\s*\|\s*(\d+)MiB\s*/\s*(\d+)MiB\s*\|\s*(\d+|N/A)\s*%?"
)
PROCESS = re.compile(r"\|\s+(\d+)\s+(?:\S+\s+\S+\s+)?(\d+)\s+(C\+G|C|G|M\+C)\s+(\S.*?)\s+(\d+MiB|N/A|\?)\s*\|")
DRIVER = re.compile(r"Driver Version:\s*([\d.]+)")
CELL = r"-|\d+|\d\d:\d\d:\d\d|\d{8}"  # with a date or a time in front, as -o asks for
DMON = {
    "pwr": "power_w", "temp": "temperature_c", "gtemp": "temperature_c", "mtemp": "memory_temperature_c",
    "sm": "utilization_percent", "mclk": "memory_mhz", "pclk": "sm_mhz",
}  # fmt: skip


def read(lines: Iterable[str]) -> tuple[list[Sample], list[str]]:
    """The samples in order, and the lines that are none of this."""
    rows: list[dict[str, Any]] = []
    rest: list[str] = []
    name: dict[str, Any] = {}
    driver, columns = "", None
    for line in lines:
        if "|" not in line and "#" not in line and columns is None:
            rest.append(line)
        elif match := DRIVER.search(line):
            driver = match[1]
        elif match := NAME.search(line):
            name = {"index": match[1], "name": match[2], "gpu": match[3]}
        elif match := STATE.search(line):
            power, limit = _number(match[3]), _number(match[4])
            rows.append(
                {
                    **name,
                    "driver": driver,
                    "driver_model": "WDDM" if "WDDM" in line else None,
                    "temperature_c": _number(match[1]),
                    "performance_state": match[2],
                    "power_w": power,
                    "power_limit_w": limit,
                    "memory_used_mib": _number(match[5]),
                    "memory_total_mib": _number(match[6]),
                    "utilization_percent": _number(match[7]),
                }
            )
            name = {}
        elif match := PROCESS.search(line):
            held = _number(match[5].removesuffix("MiB"))
            of = [row for row in rows if row.get("index") == match[1]]
            if of:
                process = Process(pid=int(match[2]), kind=match[3], name=match[4], memory_mib=held)
                of[-1].setdefault("processes", []).append(process)
        elif re.match(r"\s*#\s*(?:Date\s+)?(?:Time\s+)?gpu\s", line):
            columns = line.replace("#", " ").split()
        elif columns and len(cells := line.split()) == len(columns) and all(re.fullmatch(CELL, c) for c in cells):
            by_name = dict(zip(columns, cells, strict=True))
            row = {ours: _number(by_name[theirs]) for theirs, ours in DMON.items() if theirs in by_name}
            rows.append({"gpu": by_name["gpu"], **row, **_violations(by_name, row.get("utilization_percent"))})
        else:
            rest.append(line)
    for one in rows:
        one["processes"] = tuple(one.get("processes", ()))
    return [gather.sample(one) for one in rows], rest


def _violations(row: dict[str, str], busy: float | None) -> dict[str, bool]:
    """What held the clocks down since the row before, of a busy card: ``pviol`` is the share of that time in percent,
    ``tviol`` whether it was at all. An idle card has both, and they say nothing of a run."""
    if busy is None or busy < BUSY_PERCENT:
        return {}
    power, warm = _number(row.get("pviol", "")), _number(row.get("tviol", ""))
    found = {"reason:sw_power_cap": None if power is None else power > 50}
    found["reason:sw_thermal_slowdown"] = None if warm is None else warm > 0
    return {name: flag for name, flag in found.items() if flag is not None}


def _number(text: str) -> float | None:
    return float(text) if text.isdigit() else None
