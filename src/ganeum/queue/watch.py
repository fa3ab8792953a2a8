"""The live view: what runs and how far it is, the devices, what is next, and what has ended lately."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ganeum import units
from ganeum.errors import GaneumError
from ganeum.queue import look as looking
from ganeum.queue import mirror
from ganeum.queue.devices import Machine, look
from ganeum.queue.entry import ENDED, GOING, Entry
from ganeum.queue.progress import Progress, progress
from ganeum.queue.settle import tail
from ganeum.queue.store import Store
from ganeum.queue.when import clock

STYLES = {"finished": "green", "failed": "red", "held": "yellow", "killed": "dim", "paused": "cyan"}
NEXT, LATELY, LOG_LINES = 8, 6, 6
HEADING = 2  # an empty line and the heading, of every part
BAR, GAP = 8, 2
NUMBERS = ("loss", "val loss", "tokens/s", "for", "left")
DISPENSABLE = ("on", "tokens/s", "for", "loss", "")  # columns that go, in this order, where there is no room for all


class Board:
    """The view as something that rich draws again and again; each time it looks at the list anew.

    Args:
        path: of the list.
        whole: with the devices and the end of the newest run's log; else as small as it can be.
        fits: no higher than the terminal; else as high as it comes out.
        once: no later look will see more, so an error is raised and not drawn.
    """

    def __init__(self, path: Path, *, whole: bool = True, fits: bool = False, once: bool = False) -> None:
        self.path, self.whole, self.fits, self.once = path, whole, fits, once

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if not mirror.is_there(self.path):  # to look makes no list
            yield Text(f"there is no queue at {self.path} yet: ganeum queue add CONFIG")
            return
        try:
            with looking.opened(self.path) as store:  # of this thread alone, and rich draws from its own
                machine = look() if self.whole else None
                height = console.size.height if self.fits else None
                yield frame(store, time.time(), machine, width=options.max_width, height=height)
        except GaneumError as error:  # locked for long, say: the next look may see more
            if self.once:
                raise
            yield Text(str(error), style="red")


@dataclass
class Rows:
    """How many lines each part gets."""

    running: int
    waiting: int
    ended: int
    log: int


def frame(
    store: Store, now: float, machine: Machine | None = None, *, width: int = 1_000, height: int | None = None
) -> RenderableType:
    """One picture of the queue; with a `machine`, its devices and the end of the newest run's log are in it."""
    entries = store.all()
    going = sorted((entry for entry in entries if entry.state in GOING), key=lambda entry: entry.started_at or 0.0)
    waiting = [entry for entry in entries if entry.state not in (*ENDED, *GOING)]
    ended = sorted((entry for entry in entries if entry.state in ENDED), key=lambda entry: entry.ended_at or 0.0)
    log = tail(store.run(going[-1])).splitlines()[-LOG_LINES:] if machine is not None and going else []
    parts = [_head(store, entries, now)]
    if machine is not None:
        parts += [Text(), _devices(machine, going)]
    above = 2 + (HEADING + sum(_is_shown(slot.name, machine, going) for slot in machine.slots) if machine else 0)
    rows = _rows(None if height is None else height - above, len(going), len(waiting), len(ended), len(log))
    if going:
        parts += [Text(), _running(store, going, rows.running, now, machine, width)]
    if waiting:
        parts += [Text(), _waiting(waiting, rows.waiting, now, width)]
    if ended and rows.ended:
        parts += [Text(), _ended(store, ended[-rows.ended :], now, width)]
    if log and rows.log:
        parts += [Text(), Rule(f"log of {going[-1].name}", align="left", style="dim")]
        parts += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in log[-rows.log :]]
    return Group(*parts)


def shares(room: int, wanted: Sequence[int]) -> list[int]:
    """`room` among parts that want so much each: alike for all, and what one does not want goes to the others.

    >>> shares(10, [8, 2, 8]), shares(30, [8, 2, 8])
    ([4, 2, 4], [8, 2, 8])
    """
    given = [0] * len(wanted)
    for done, place in enumerate(sorted(range(len(wanted)), key=lambda place: wanted[place])):
        given[place] = min(wanted[place], max(0, room) // (len(wanted) - done))
        room -= given[place]
    return given


def _rows(room: int | None, running: int, waiting: int, ended: int, log: int) -> Rows:
    """What runs comes first, but never takes all; the rest share what is left."""
    wanted = [min(waiting, NEXT + 1), min(ended, LATELY), log]
    if room is None:
        return Rows(running, *wanted)
    room -= HEADING * sum(many > 0 for many in (running, *wanted))
    most = max(1, 2 * room // 3, room - sum(wanted))
    return Rows(min(running, most), *shares(room - min(running, most), wanted))


def _head(store: Store, entries: Sequence[Entry], now: float) -> RenderableType:
    number = {state: sum(entry.state == state for entry in entries) for state in (*GOING, "queued", *STYLES)}
    counted = ", ".join(f"{many:,} {state}" for state, many in number.items() if many) or "the queue is empty"
    pids = [str(one.identity.pid) for one in store.managers()]
    if not pids:
        who = "no process works on it: ganeum queue run"
    else:
        who = f"process {pids[0]} works on it" if len(pids) == 1 else f"processes {', '.join(pids)} work on it"
    clock = datetime.fromtimestamp(now).strftime("%H:%M:%S")
    return Group(
        Rule(f"{store.path}  {clock}", align="left", style="dim"),
        Text(f"{counted}; {who}", no_wrap=True, overflow="ellipsis"),
    )


def _is_shown(name: str, machine: Machine, going: Sequence[Entry]) -> bool:
    """The CPU only where it is all there is or has a run."""
    return name != "cpu" or len(machine.slots) == 1 or any(entry.device == name for entry in going)


def _devices(machine: Machine, going: Sequence[Entry]) -> RenderableType:
    """What there is, how much of it is free, and whose it is."""
    table = _list("devices", "", "", "")
    for slot in machine.slots:
        if _is_shown(slot.name, machine, going):
            free = f"{slot.free_gib:.1f} of {slot.device.memory_gib:.1f} GiB free"
            runs = ", ".join(entry.name for entry in going if entry.device == slot.name)
            table.add_row(slot.title, slot.device.name, free, _cut(runs))
    return Group(table, Text(machine.trouble, style="yellow")) if machine.trouble else table


def _running(
    store: Store, going: Sequence[Entry], most: int, now: float, machine: Machine | None, width: int
) -> RenderableType:
    titles = {slot.name: slot.title for slot in machine.slots} if machine else {}
    headings = ["runs", "on", "", "step", "loss", "val loss", "tokens/s", "for", "left"]
    lines: list[dict[str, str]] = []
    shown = going if len(going) <= most else going[-max(1, most - 1) :]  # one line says how many more there are
    fars = [progress(store.run(entry), entry) for entry in shown]
    for entry, far in zip(shown, fars, strict=True):
        texts = [
            f"{entry.id}  {short(entry.name, width // 3)}" + f"  ({_state(entry)})" * bool(entry.wanted and far.steps),
            titles.get(entry.device or "", _device(entry)),
            "" if far.steps else _state(entry),
            f"{far.step:,}" + (f"/{far.steps:,}" if far.steps else ""),
            _number(far.loss, ".4f"),
            _number(far.val_loss, ".4f"),
            _number(far.tokens_per_second, ",.0f"),
            units.duration(max(0.0, now - entry.started_at)) if entry.started_at else "",
            "" if far.left_s is None else units.duration(far.left_s),
        ]
        lines.append(dict(zip(headings, texts, strict=True)))
    for dispensable in (None, *DISPENSABLE):
        headings = [heading for heading in headings if heading != dispensable]
        widest = {one: max(cell_len(one), *(cell_len(line[one]) for line in lines)) for one in headings}
        if sum(max(many, 0 if one else BAR) + GAP for one, many in widest.items()) - GAP <= width:
            break
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    for one in headings:
        table.add_column(one, ratio=None if one else 1, no_wrap=True, justify="right" if one in NUMBERS else "left")
    for line, far in zip(lines, fars, strict=True):
        bar = ProgressBar(total=1.0, completed=far.share or 0.0) if far.steps else Text(line[""], style="dim")
        table.add_row(*(line[one] if one else bar for one in headings))
    if len(shown) < len(going):
        table.add_row(f"and {len(going) - len(shown):,} more")
    return table


def _waiting(waiting: Sequence[Entry], most: int, now: float, width: int) -> RenderableType:
    table = _list("next", "", "")
    shown = waiting if len(waiting) <= most else waiting[: max(0, most - 1)]
    for entry in shown:
        table.add_row(_called(entry, width), _styled(entry), _cut(_why(entry, now)))
    if len(shown) < len(waiting):
        table.add_row(f"and {len(waiting) - len(shown):,} more", "", "")
    return table


def _ended(store: Store, ended: Sequence[Entry], now: float, width: int) -> RenderableType:
    table = _list("lately", "", "")
    for entry in reversed(ended):
        far = progress(store.run(entry), entry) if entry.attempts else Progress()
        results = [f"val loss {far.val_loss:.4f}"] if far.val_loss is not None else []
        results += [units.duration(far.elapsed_s)] if far.elapsed_s is not None else []
        # What went wrong is what one wants to read, if there is room for one thing only.
        said = [entry.note, *results] if entry.state != "finished" else [*results, entry.note]
        when = "" if entry.ended_at is None else f"{clock(entry.ended_at, now)}  "
        table.add_row(_called(entry, width), _styled(entry), _cut(when + ", ".join(filter(None, said))))
    return table


def short(name: str, most: int) -> str:
    """A name with its middle left out where it is too long: the runs of a sweep differ at their ends.

    >>> short("exp1", 20), short("long-learning_rate-1e-3", 16)
    ('exp1', 'long-lea…te-1e-3')
    """
    if cell_len(name) <= most:
        return name
    end = set_cell_size(name[::-1], (most - 1) // 2)[::-1].strip()
    return f"{set_cell_size(name, most - 1 - cell_len(end)).strip()}…{end}"


def _list(*headings: str) -> Table:
    """Only the last column gives way where there is no room for all."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for number, heading in enumerate(headings, start=1):
        table.add_column(heading, no_wrap=number < len(headings))
    return table


def _cut(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def _called(entry: Entry, width: int) -> str:
    return f"{entry.id}  {short(entry.name, width // 3)}"


def _styled(entry: Entry) -> Text:
    return Text(entry.state, STYLES.get(entry.state, ""))


def _why(entry: Entry, now: float) -> str:
    wait = max(entry.at or 0.0, entry.not_before or 0.0)
    facts = [entry.note] * bool(entry.note)
    facts += [f"priority {entry.priority}"] * bool(entry.priority and entry.state == "queued")
    facts += ["after " + ", ".join(map(str, entry.after))] * bool(entry.after)
    facts += [f"not before {clock(wait, now)}"] * (wait > now)
    return "; ".join(facts)


def _state(entry: Entry) -> str:
    return {"pause": "pausing", "kill": "ending", "hours": "ending"}.get(entry.wanted, entry.state)


def _device(entry: Entry) -> str:
    device = entry.device or ""
    return device[:12] if device.startswith(("GPU-", "MIG-")) else device


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
