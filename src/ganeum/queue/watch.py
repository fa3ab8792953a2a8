"""The live view: what runs and how far it is, the devices, what is next, and what has ended lately."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ganeum import units
from ganeum.errors import GaneumError
from ganeum.queue.devices import Machine, look
from ganeum.queue.entry import ENDED, GOING, Entry
from ganeum.queue.progress import Progress, progress
from ganeum.queue.store import Store

STYLES = {"finished": "green", "failed": "red", "held": "yellow", "killed": "dim", "paused": "cyan"}
NEXT, LATELY, LOG_LINES = 8, 6, 6


class Board:
    """The view as something that rich draws again and again; each time it looks at the list anew.

    Args:
        path: of the list.
        whole: fill the screen, with the end of the newest run's log; else as small as it can be.
    """

    def __init__(self, path: Path, *, whole: bool = True) -> None:
        self.path, self.whole = path, whole

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        try:
            with Store(self.path) as store:  # a store belongs to the thread that opened it, and rich draws from its own
                yield frame(store, time.time(), look() if self.whole else None)
        except GaneumError as error:  # locked for long, say: the next look may see more
            yield Text(str(error), style="red")


def frame(store: Store, now: float, machine: Machine | None = None) -> RenderableType:
    """One picture of the queue; with a `machine`, its devices and the end of the newest run's log are in it."""
    entries = store.all()
    going = sorted((entry for entry in entries if entry.state in GOING), key=lambda entry: entry.started_at or 0.0)
    waiting = [entry for entry in entries if entry.state not in (*ENDED, *GOING)]
    ended = sorted((entry for entry in entries if entry.state in ENDED), key=lambda entry: entry.ended_at or 0.0)
    parts: list[RenderableType] = [_head(store, entries, now)]
    if machine is not None:
        parts += [Text(), _devices(machine, going)]
    if going:
        parts += [Text(), _running(store, going, now)]
    if waiting:
        parts += [Text(), _waiting(waiting, now)]
    if ended:
        parts += [Text(), _ended(store, ended[-LATELY:], now)]
    if machine is not None and going:
        parts += [Text(), *_log(store, going[-1])]
    return Group(*parts)


def _head(store: Store, entries: Sequence[Entry], now: float) -> RenderableType:
    number = {state: sum(entry.state == state for entry in entries) for state in (*GOING, "queued", *STYLES)}
    counted = ", ".join(f"{many:,} {state}" for state, many in number.items() if many) or "the queue is empty"
    managers = store.managers()
    who = (
        "process " + ", ".join(str(one.identity.pid) for one in managers) + " works on it"
        if managers
        else "no process works on it: ganeum queue run"
    )
    clock = datetime.fromtimestamp(now).strftime("%H:%M:%S")
    return Group(Rule(f"{store.path}  {clock}", align="left", style="dim"), Text(f"{counted}; {who}"))


def _devices(machine: Machine, going: Sequence[Entry]) -> RenderableType:
    """What there is, how much of it is free, and whose it is; the CPU only where it is all there is or has a run."""
    table = _list("devices")
    table.add_column("", overflow="ellipsis", no_wrap=True)
    for slot in machine.slots:
        runs = [entry.name for entry in going if entry.device == slot.name]
        if slot.device.kind == "cpu" and len(machine.slots) > 1 and not runs:
            continue
        free = f"{slot.free_gib:.1f} of {slot.device.memory_gib:.1f} GiB free"
        table.add_row(slot.title, slot.device.name, free, ", ".join(runs))
    return Group(table, Text(machine.trouble, style="yellow")) if machine.trouble else table


def _running(store: Store, going: Sequence[Entry], now: float) -> RenderableType:
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    for heading, ratio in (("runs", None), ("on", None), ("", 1), ("step", None), ("loss", None), ("val loss", None)):
        table.add_column(heading, ratio=ratio, no_wrap=True, justify="right" if "loss" in heading else "left")
    for heading in ("tokens/s", "for", "left"):
        table.add_column(heading, no_wrap=True, justify="right")
    for entry in going:
        far = progress(store.run(entry), entry)
        steps = f"{far.step:,}" + (f"/{far.steps:,}" if far.steps else "")
        bar = ProgressBar(total=1.0, completed=far.share or 0.0) if far.steps else Text(_state(entry), style="dim")
        table.add_row(
            f"{entry.id}  {entry.name}" + (f"  ({_state(entry)})" if entry.wanted and far.steps else ""),
            _device(entry),
            bar,
            steps,
            _number(far.loss, ".4f"),
            _number(far.val_loss, ".4f"),
            _number(far.tokens_per_second, ",.0f"),
            units.duration(max(0.0, now - entry.started_at)) if entry.started_at else "",
            "" if far.left_s is None else units.duration(far.left_s),
        )
    return table


def _waiting(waiting: Sequence[Entry], now: float) -> RenderableType:
    table = _list("next")
    for entry in waiting[:NEXT]:
        table.add_row(f"{entry.id}  {entry.name}", Text(entry.state, STYLES.get(entry.state, "")), _why(entry, now))
    if len(waiting) > NEXT:
        table.add_row(f"and {len(waiting) - NEXT:,} more", "", "")
    return table


def _ended(store: Store, ended: Sequence[Entry], now: float) -> RenderableType:
    table = _list("lately")
    for entry in reversed(ended):
        far = progress(store.run(entry), entry) if entry.attempts else Progress()
        results = [f"val loss {far.val_loss:.4f}"] if far.val_loss is not None else []
        results += [units.duration(far.elapsed_s)] if far.elapsed_s is not None else []
        results += [entry.note] if entry.note else []
        when = "" if entry.ended_at is None else datetime.fromtimestamp(entry.ended_at).strftime("%H:%M  ")
        table.add_row(
            f"{entry.id}  {entry.name}", Text(entry.state, STYLES.get(entry.state, "")), when + ", ".join(results)
        )
    return table


def _log(store: Store, entry: Entry) -> list[RenderableType]:
    path = store.run(entry).queue_log_path
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 8_192))
            lines = file.read().decode(errors="replace").splitlines()[-LOG_LINES:]
    except OSError:
        return []
    texts = [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in lines]
    return [Rule(f"log of {entry.name}", align="left", style="dim"), *texts]


def _list(heading: str) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(heading, no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="ellipsis", no_wrap=True)
    return table


def _why(entry: Entry, now: float) -> str:
    wait = max(entry.at or 0.0, entry.not_before or 0.0)
    facts = [entry.note] * bool(entry.note)
    facts += [f"priority {entry.priority}"] * bool(entry.priority and entry.state == "queued")
    facts += ["after " + ", ".join(map(str, entry.after))] * bool(entry.after)
    facts += [datetime.fromtimestamp(wait).strftime("not before %m-%d %H:%M")] * (wait > now)
    return "; ".join(facts)


def _state(entry: Entry) -> str:
    return {"pause": "pausing", "kill": "ending", "hours": "ending"}.get(entry.wanted, entry.state)


def _device(entry: Entry) -> str:
    device = entry.device or ""
    return device[:12] if device.startswith(("GPU-", "MIG-")) else device


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
