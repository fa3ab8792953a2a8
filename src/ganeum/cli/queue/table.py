"""Entries as lines of a table, and as JSON."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from ganeum import units
from ganeum.queue import process
from ganeum.queue.entry import Entry
from ganeum.queue.progress import Progress
from ganeum.queue.store import Store
from ganeum.queue.when import clock

NUMBERS = ("id", "step", "loss", "val loss", "time", "left")
DISPENSABLE = ("time", "on", "loss", "step")  # columns that go, in this order
NOTE, GAP = 32, 2  # of a column that is as wide as it likes, so much is to be seen
COLUMNS = ("id", "run", "state", "on", "step", "loss", "val loss", "time", "left", "note")


def table(entries: Sequence[Entry], how_far: Mapping[int, Progress], now: float) -> list[str]:
    """A line an entry, below a heading; columns that say nothing are left out, and on a narrow terminal those that say
    least, until a note can be read.

    A thousand entries are a matter of milliseconds here, which no library for tables keeps up with.
    """
    lines = [cells(entry, how_far.get(entry.id, Progress()), now) for entry in entries]
    kept = [i for i, heading in enumerate(COLUMNS) if heading in ("id", "run", "state") or any(x[i] for x in lines)]
    every = [max(map(_width, column)) for column in zip(COLUMNS, *lines, strict=True)]
    for dispensable in DISPENSABLE if sys.stdout.isatty() else ():
        if sum(min(every[i], NOTE) + GAP for i in kept) - GAP <= shutil.get_terminal_size().columns:
            break
        kept = [i for i in kept if COLUMNS[i] != dispensable]
    rows, widths = [[line[i] for i in kept] for line in [list(COLUMNS), *lines]], [every[i] for i in kept]
    right = [COLUMNS[i] in NUMBERS for i in kept]
    return [(" " * GAP).join(map(_padded, row, widths, right)).rstrip() for row in rows]


def show(lines: Sequence[str]) -> None:
    """On a terminal cut at its width, with a bold heading; elsewhere whole."""
    if not sys.stdout.isatty():
        print("\n".join(lines))
        return
    columns = shutil.get_terminal_size().columns
    heading, *rest = (_cut(line, columns) for line in lines)
    print("\n".join([f"\x1b[1m{heading}\x1b[0m", *rest]))


def cells(entry: Entry, far: Progress, now: float) -> list[str]:
    """The texts of a line, as `COLUMNS` has them."""
    return [
        str(entry.id),
        entry.name,
        state(entry),
        place(entry) if entry.state in ("starting", "running") else "",
        f"{far.step:,}" + (f"/{far.steps:,}" if far.steps else "") if far.step or far.steps else "",
        "" if far.loss is None else f"{far.loss:.4f}",
        "" if far.val_loss is None else f"{far.val_loss:.4f}",
        "" if far.elapsed_s is None else units.duration(far.elapsed_s),
        "" if far.left_s is None else units.duration(far.left_s),
        note(entry, now),
    ]


def state(entry: Entry) -> str:
    """In one or two words: also what is asked of a run that is going."""
    asked = {"pause": "pausing", "kill": "ending", "interrupt": "ending", "hours": "ending"}
    return asked.get(entry.wanted, entry.state) if _going(entry) else entry.state


def place(entry: Entry) -> str:
    """Where it runs, short: a GPU's UUID by its first characters; of another machine with its name."""
    device = entry.device or ""
    short = device[:12] if device.startswith(("GPU-", "MIG-")) else device
    return short if entry.host in (None, "", process.host()) else f"{short} of {entry.host.partition('/')[0]}"


def note(entry: Entry, now: float) -> str:
    """What holds it, or what went wrong, or what is special about it."""
    said = [entry.note] if entry.note else []
    if entry.state == "failed" and not said and entry.error_tail:
        said.append(entry.error_tail.strip().splitlines()[0])
    if entry.state == "queued":
        if entry.priority:
            said.append(f"priority {entry.priority}")
        if entry.after:
            said.append("after " + ", ".join(map(str, entry.after)))
        wait = max(entry.at or 0.0, entry.not_before or 0.0)
        if wait > now:
            said.append(f"not before {clock(wait, now)}")
    return " ".join("; ".join(said).split())


def plain(entry: Entry, far: Progress | None = None) -> dict[str, Any]:
    """For --json: the entry, and how far its run is under `progress`."""
    from dataclasses import asdict

    return {**entry.plain(), "progress": asdict(far) if far is not None else None}


def counted(entries: Sequence[Entry]) -> str:
    """`1 running, 3 queued, 2 finished`."""
    order = ("running", "starting", "queued", "held", "paused", "interrupted", "failed", "killed", "finished")
    number = {name: sum(entry.state == name for entry in entries) for name in order}
    return ", ".join(f"{many:,} {name}" for name, many in number.items() if many) or "nothing"


def nobody(store: Store) -> str | None:
    """A line where something waits and no process works on the list."""
    return None if store.managers() else "no process works on the queue: `ganeum queue run` does"


def _going(entry: Entry) -> bool:
    return entry.state in ("starting", "running")


def _width(text: str) -> int:
    """Cells on a terminal: Chinese, Japanese and Korean letters take two."""
    return len(text) if text.isascii() else sum(1 + (unicodedata.east_asian_width(letter) in "WF") for letter in text)


def _padded(text: str, width: int, right: bool) -> str:
    blanks = " " * (width - _width(text))
    return blanks + text if right else text + blanks


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) >= width > 0:
        text = text[:-1]
    return f"{text}…"
