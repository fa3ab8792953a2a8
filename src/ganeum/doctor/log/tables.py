"""Tables of losses as a notebook's Trainer draws them, and as people paste them: `Step  Training Loss  …`."""

from __future__ import annotations

import re
from collections.abc import Iterable

CELLS = re.compile(r"\t+|\s*\|\s*|\s{2,}")
RULE = set("|-: \t+")  # between the heading and the rows
FIGURE = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?|nan|inf", re.IGNORECASE)


def losses(lines: Iterable[str]) -> dict[int, float]:
    """Step → the training's loss, of each table that says both; `No log` is none.

    Pasted as plain text, a table may have lost its tabs: a heading that was `Step Training Loss` is read by its words.
    """
    found: dict[int, float] = {}
    at: tuple[int, int] | None = None
    for line in lines:
        if (heading := _heading(line)) is not None:
            at = heading
            continue
        cells = _cells(line)
        if at is None or not cells or set(line) <= RULE:
            continue
        if len(cells) == 1:
            cells = line.replace("No log", "No-log").split()
        step, loss = (cells[place] if place < len(cells) else "" for place in at)
        if not FIGURE.fullmatch(step) or "." in step:
            at = None  # the table has ended
        elif FIGURE.fullmatch(loss):
            found[int(step.replace(",", ""))] = float(loss.replace(",", ""))
    return found


def _heading(line: str) -> tuple[int, int] | None:
    """The columns of the step and of the training's loss."""
    said = line.strip().lower()
    if ("training loss" not in said and "train loss" not in said) or not re.search(r"\bstep\b", said):
        return None
    cells = [cell.lower() for cell in _cells(line)]
    if len(cells) < 2:  # its tabs were lost: every column but the step's has two words
        words = re.findall(r"step|epoch|train(?:ing)? loss|[a-z_]+ ?[a-z_]*", said)
        cells = [word.strip() for word in words]
    places = {"step": cells.index("step")} if "step" in cells else {}
    loss = next((n for n, cell in enumerate(cells) if cell in ("training loss", "train loss")), None)
    return (places["step"], loss) if places and loss is not None else None


def _cells(line: str) -> list[str]:
    return [cell for cell in CELLS.split(line.strip().strip("|").strip()) if cell]
