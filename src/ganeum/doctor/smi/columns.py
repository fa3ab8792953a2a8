"""What `nvidia-smi --query-gpu=… --format=csv` prints, once or again and again, with its heading or without."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ganeum.doctor.smi import gather
from ganeum.doctor.smi.labels import Known, column
from ganeum.doctor.smi.sample import Sample
from ganeum.doctor.smi.values import value

HEADING = re.compile(r"[a-z_]+[a-z0-9_.]*( \[[A-Za-z%]+\])?")
ASKED = re.compile(r"--query-gpu[= ]\"?([a-z0-9_.,]+)")
CELL = re.compile(
    r"P\d{1,2}|-?\d+(?:[.,]\d+)? ?(?:MHz|W|%|MiB|us|C)?|0x[0-9A-Fa-f]+|\[?N/A\]?|\[[A-Z][^\]]*\]|(?:Not )?Active"
)

Column = tuple["Known | None", str]


def read(lines: Iterable[str]) -> tuple[list[Sample], list[str]]:
    """The samples in order, and the lines that are none of this."""
    found: list[Sample] = []
    rest: list[str] = []
    heading: list[Column] | None = None
    asked: list[Column] | None = None
    for line in lines:
        if "--query-gpu" in line and (match := ASKED.search(line)):
            asked = [column(name) for name in match[1].strip(",").split(",")]
            bare = "nounits" in line
            asked = [(known, unit or ("any" if bare else "")) for known, unit in asked]
            rest.append(line)
            continue
        cells = _cells(line)
        if new := _heading(cells):
            heading = new
            continue
        taken = heading if heading and len(heading) == len(cells) else None
        if taken is None and len(cells) >= 2 and all(CELL.fullmatch(cell) for cell in cells):
            taken = asked if asked and len(asked) == len(cells) else _guessed(cells)
        row = _row(taken, cells) if taken else {}
        if row:
            found.append(gather.sample(row))
        else:
            rest.append(line)
    return found, rest


def _cells(line: str) -> list[str]:
    """A decimal comma has no space behind it, and the comma between two cells has; a spreadsheet puts tabs or
    semicolons there."""
    separator = next((sign for sign in ("\t", ";", ", ") if sign in line), ",")
    return [cell.strip() for cell in line.strip().strip('"').split(separator)]


def _heading(cells: Sequence[str]) -> list[Column] | None:
    cells = [cell.strip('"') for cell in cells]
    if not all(HEADING.fullmatch(cell) for cell in cells):
        return None
    columns = [column(cell) for cell in cells]
    sure = sum(known is not None for known, _ in columns)
    dotted = any("." in cell or "[" in cell for cell in cells)
    return columns if sure and (len(cells) > 1 or dotted) else None


def _row(columns: Sequence[Column], cells: Sequence[str]) -> dict[str, Any]:
    """Every cell under its heading; nothing where a cell is of another kind than its heading, so that a row that lost
    or gained a comma is no row."""
    row: dict[str, Any] = {}
    for (known, unit), cell in zip(columns, cells, strict=True):
        if known is None:
            continue
        read = value(known[1], cell, unit)
        if read is None and not re.match(r"\[|N/A|ERR|Unknown|$", cell):
            return {}
        if isinstance(read, dict):  # all reasons in one figure
            row |= {f"reason:{name}": flag for name, flag in read.items() if f"reason:{name}" not in row}
        elif read is not None:
            row.setdefault(known[0], read)
    return row if any(name not in ("gpu", "name", "driver", "time_s") for name in row) else {}


def _guessed(cells: Sequence[str]) -> list[Column] | None:
    """What the cells of a row without any heading are, by their units; None where a unit stands there twice."""
    kinds = {
        "MHz": (("sm_mhz", "MHz"), ""),
        "W": (("power_w", "W"), ""),
        "%": (("utilization_percent", "%"), ""),
        "P": (("performance_state", "state"), ""),
        "": (("temperature_c", "degrees"), "any"),
    }
    found: list[Column] = []
    seen: list[str] = []
    for cell in cells:
        unit = "P" if cell.startswith("P") else cell.split()[-1] if " " in cell else "" if cell.isdigit() else "other"
        if unit in seen and unit != "other":
            return None
        seen.append(unit)
        found.append(kinds.get(unit, (None, "")))
    return found if "MHz" in seen or "W" in seen else None
