"""How an attempt ended, from what it has left, whoever started it; and a micro-batch lowered for the next one."""

from __future__ import annotations

import json
import re
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.config.load import load_stored
from ganeum.config.write import to_yaml
from ganeum.errors import GaneumError
from ganeum.queue.child import ended_path
from ganeum.queue.entry import Entry
from ganeum.queue.failure import End, judge
from ganeum.queue.freeze import config_path
from ganeum.queue.process import Identity, is_alive, kill
from ganeum.queue.store import Store
from ganeum.record import RunDirectory, deaths, read_json, write_atomic

HEADING = "=== attempt"  # begins a line of the log, before what each attempt prints
TAIL_LINES, TAIL_BYTES = 40, 16_384
NO_ROOM_BYTES = 1 << 20
MICRO = "train.micro_batch_size"
GONE = {"pid": None, "started": None, "boot_id": None, "token": None}
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def identity(entry: Entry) -> Identity | None:
    """Of the process that has the entry; while it is `starting`, of the manager that claimed it."""
    if entry.pid is None or entry.started is None or entry.boot_id is None:
        return None
    return Identity(entry.pid, entry.started, entry.boot_id)


def settle(store: Store, entry: Entry) -> Entry | None:
    """Bring the list up to date with an entry whose process is gone.

    Returns:
        the entry as it is now; None where something of it still runs, or another process was faster.
    """
    first = identity(entry)
    if entry.token is None or entry.state not in ("starting", "running"):
        return None
    if entry.state == "starting":
        if first is not None and first.is_alive():
            return None
        return give_back(store, entry, "the queue ended while it was starting")
    run = store.run(entry)
    if first is not None:
        if is_alive(first, entry.token, config_path(run)):
            return None
        kill(first, entry.token)  # what nobody is left to end: a data worker without its training
    end, seconds = _end(run, entry, first)
    outcome = judge(entry, end, store.clock())
    changes = {**outcome.changes, "step": end.step, "hours": entry.hours + seconds / 3600}
    if outcome.halve:
        lower = _half(run)
        if lower is None:
            changes |= {"state": "failed", "error_tail": end.explained or end.tail}
            changes["note"] += "; fewer sequences at once are not possible"
        else:
            changes |= {"micro_batch_size": lower}
            changes["note"] += f"; once more with {lower} at once, the batch as it was{_planned(run)}"
    settled = store.update(entry.id, ("running",), attempt=entry.token, ended_at=store.clock(), **GONE, **changes)
    if settled is not None:
        store.log(outcome.what if settled.state != "failed" else "failed", settled.note, entry.id)
    return settled


def give_back(store: Store, entry: Entry, note: str, **changes: Any) -> Entry | None:
    """A claimed entry back to the queue, unless its process has taken it meanwhile."""
    back = {**GONE, "state": "queued", "device": None, "note": note, "wanted": "", **changes}
    if entry.wanted:  # asked for before there was anything to end
        back["state"] = {"kill": "killed", "pause": "paused"}[entry.wanted]
    given = store.update(entry.id, ("starting",), attempt=entry.token, **back)
    if given is not None:
        store.log("given back", note, entry.id)
    return given


def lower_micro_batch(run: RunDirectory, size: int) -> None:
    """Write a micro-batch into the run's config, and into the frozen one where that says a number; the same twice.

    Raises:
        GaneumError, OSError: they cannot be read or written.
    """
    for path in (run.config_path, config_path(run)):
        if path.is_file():
            config = load_stored(path)
            if isinstance(config.train.micro_batch_size, int) and config.train.micro_batch_size != size:
                write_atomic(path, to_yaml(change(config, {MICRO: size})))


def tail(run: RunDirectory) -> str:
    """The last lines that the latest attempt has printed, as a terminal would show them in the end."""
    try:
        with run.queue_log_path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = text.split("\n")
    begins = [number for number, line in enumerate(lines) if line.startswith(HEADING)]
    if begins:
        lines = lines[begins[-1] + 1 :]
    shown = (_CONTROL.sub("", line).rstrip("\r").rpartition("\r")[2].rstrip() for line in lines)
    return "\n".join([line for line in shown if line][-TAIL_LINES:])


def is_full(directory: Path) -> bool:
    """Whether there is no room even for a log."""
    with suppress(OSError):
        return shutil.disk_usage(directory).free < NO_ROOM_BYTES
    return False


def newest_checkpoint(run: RunDirectory) -> int:
    """The step of the last complete checkpoint; 0 where there is none."""
    found = [path.name.removeprefix("step-") for path in run.checkpoints_dir.glob("step-*")]
    return max((int(step) for step in found if step.isdigit()), default=0)


def _end(run: RunDirectory, entry: Entry, first: Identity | None) -> tuple[End, float]:
    """What is known of it, and the seconds that it took (0 where nobody saw it to its end)."""
    left: dict[str, Any] = {}
    with suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):
        read = read_json(ended_path(run))
        if isinstance(read, dict) and read.get("token") == entry.token:
            left = read
    status, step = run.status(), newest_checkpoint(run)
    end = End(
        exit_status=left.get("exit_status"),
        oom_kills=left.get("oom_kills", 0),
        same_boot=first is not None and first.same_boot(),
        state=status.state if status else None,
        step=step,
        gained=step > entry.step,
        tail=tail(run),
        explained=deaths.explained(status),
        disk_full=is_full(run.path.parent),
    )
    if left:  # it was seen to its end, whatever happened to the machine since
        end = replace(end, same_boot=True)
    return end, float(left.get("seconds", 0.0))


def _half(run: RunDirectory) -> int | None:
    """The next divisor of the batch that is at most half of the micro-batch; None where that is 1 or not known."""
    with suppress(GaneumError):
        train = load_stored(run.config_path if run.exists() else config_path(run)).train
        size = train.micro_batch_size
        if isinstance(size, int) and size > 1:
            return max(divisor for divisor in divisors(train.batch_size) if 2 * divisor <= size)
    return None


def _planned(run: RunDirectory) -> str:
    """What the plan had said and the process held, where both are known."""
    status = run.status()
    try:
        high = float(read_json(run.plan_path)["memory_gib"]["high"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    held = f", and it held {status.held_gib:.1f} at its last note" if status and status.held_gib else ""
    return f" (planned: at most {high:.1f} GiB{held})"
