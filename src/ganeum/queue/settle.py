"""How an attempt ended, from what it has left, whoever started it; and a micro-batch lowered for the next one."""

from __future__ import annotations

import json
import re
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.config.load import load_stored
from ganeum.config.write import to_yaml
from ganeum.errors import GaneumError
from ganeum.queue import needs
from ganeum.queue.child import asked_path, ended_path
from ganeum.queue.entry import TOLD, Entry
from ganeum.queue.failure import End, judge
from ganeum.queue.freeze import config_path
from ganeum.queue.process import Identity, is_alive, kill
from ganeum.queue.progress import newest_checkpoint
from ganeum.queue.store import Store
from ganeum.record import RunDirectory, deaths, read_json, write_atomic
from ganeum.record.metrics import newest

HEADING = "=== attempt"  # begins a line of the log, before what each attempt prints
TAIL_LINES, TAIL_BYTES = 40, 16_384
NO_ROOM_BYTES = 1 << 20
BEGINS_S = 180.0  # until a training has its run: a list that is locked is waited for, and torch imported
MICRO = "train.micro_batch_size"
GONE = {"pid": None, "started": None, "boot_id": None, "host": None, "token": None}
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def identity(entry: Entry) -> Identity | None:
    """Of the process that has the entry; while it is `starting`, of the manager that claimed it."""
    if entry.pid is None or entry.started is None or entry.boot_id is None:
        return None
    return Identity(entry.pid, entry.started, entry.boot_id, entry.host or "")


def settle(store: Store, entry: Entry, *, gone: bool = False) -> Entry | None:
    """Bring the list up to date with an entry whose process is gone.

    Args:
        gone: take the caller's word for it that a machine which shares the directory has died, and the run with it.

    Returns:
        the entry as it is now; None where something of it still runs, or may run on another machine, or where another
        process was faster.
    """
    first, run = identity(entry), store.run(entry)
    if entry.token is None or entry.state not in ("starting", "running"):
        return None
    left = _left(run, entry)
    if first is not None and not left and not gone and _may_run_unseen(store, entry, first):
        return None
    if entry.state == "starting":
        if first is not None and first.is_alive():
            return None
        return give_back(store, entry, "the queue ended while it was starting")
    if first is not None:
        if is_alive(first, entry.token, config_path(run)):
            return None
        kill(first, entry.token)  # what nobody is left to end: a data worker without its training
        left = _left(run, entry)  # its last word may have come since
    end, seconds = _end(run, entry, first, left)
    outcome = judge(entry, end, store.clock())
    changes = {**outcome.changes, "step": end.step, "hours": entry.hours + seconds / 3600}
    if outcome.what == "out of memory":
        changes["note"] += _planned(run, entry, left)
    if outcome.halve:
        lower, said = _half(run, entry)
        changes["note"] += f"; {said}"
        if lower is None:
            changes |= {"state": "failed", "error_tail": end.explained or end.tail}
        else:
            changes |= {"micro_batch_size": lower}
    changes |= {"ended_at": store.clock(), "untold": _untold(store, entry, changes["state"])}
    settled = store.update(entry.id, ("running",), attempt=entry.token, **GONE, **changes)
    if settled is not None:
        store.log(outcome.what if settled.state != "failed" else "failed", settled.note, entry.id)
        with suppress(OSError):
            asked_path(run, entry.token).unlink()
    return settled


def _may_run_unseen(store: Store, entry: Entry, first: Identity) -> bool:
    """On a machine that shares the directory; or in another container of this one, where the lock that a training has
    on its run tells, once it has had the time to take it."""
    if first.is_elsewhere():
        return store.shared is not None
    begins = 0 <= store.clock() - (entry.started_at or 0.0) < BEGINS_S
    return first.is_hidden() and (begins or store.run(entry).is_held())


def give_back(store: Store, entry: Entry, note: str, **changes: Any) -> Entry | None:
    """A claimed entry back to the queue, unless its process has taken it meanwhile."""
    back = {**GONE, "state": "queued", "device": None, "note": note, "wanted": "", **changes}
    if entry.wanted:  # asked for before there was anything to end
        back["state"] = {"kill": "killed", "pause": "paused", "interrupt": "interrupted"}[entry.wanted]
    back["untold"] = _untold(store, entry, back["state"])
    given = store.update(entry.id, ("starting",), attempt=entry.token, **back)
    if given is not None:
        store.log("given back", note, entry.id)
    return given


def lower_micro_batch(run: RunDirectory, size: int) -> None:
    """Write a micro-batch into the run's config, and into the frozen one where that says a number or there is no run;
    the same twice.

    Raises:
        GaneumError, OSError: they cannot be read or written.
    """
    for path in (run.config_path, config_path(run)):
        if path.is_file():
            config = load_stored(path)
            now = config.train.micro_batch_size
            if now != size and (isinstance(now, int) or path == run.config_path or not run.exists()):
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


def _untold(store: Store, entry: Entry, state: str) -> float | None:
    """People are to be told of an end; not of what Ctrl-C has ended, since that is who pressed it."""
    return store.clock() if state in TOLD and entry.wanted != "interrupt" else None


def _left(run: RunDirectory, entry: Entry) -> dict[str, Any]:
    """What the first process of this attempt wrote down when it was over; nothing where it could not."""
    with suppress(OSError, json.JSONDecodeError, UnicodeDecodeError):
        read = read_json(ended_path(run))
        if isinstance(read, dict) and read.get("token") == entry.token:
            return read
    return {}


def _end(run: RunDirectory, entry: Entry, first: Identity | None, left: dict[str, Any]) -> tuple[End, float]:
    """What is known of it, and the seconds that it took: where nobody saw its end, to its last sign of life."""
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
        disk_full=is_full(run.path.parent) or bool(left.get("disk_full")),
    )
    if left:  # it was seen to its end, whatever happened to the machine since
        return replace(end, same_boot=True), float(left.get("seconds", 0.0))
    return end, _seen_s(run, entry)


def _seen_s(run: RunDirectory, entry: Entry) -> float:
    last = 0.0
    for path in (run.queue_log_path, run.status_path, run.metrics_path):
        with suppress(OSError):
            last = max(last, path.stat().st_mtime)
    return max(0.0, min(last, time.time()) - (entry.started_at or last))


def _half(run: RunDirectory, entry: Entry) -> tuple[int | None, str]:
    """The next divisor of the batch that is at most half of what was too much at once, None where that is 1 or not
    known; and what to say of it."""
    with suppress(GaneumError):
        train = load_stored(run.config_path if run.exists() else config_path(run)).train
        if isinstance(train.micro_batch_size, int):  # the trainer may have come to less by itself
            by_itself = newest(run.metrics_path, ("micro_batch_size",)).get("micro_batch_size")
            size = min(train.micro_batch_size, by_itself or train.micro_batch_size)
        else:  # killed before it had chosen
            size = needs.at_once(entry) or 0
        if size == 1:
            return None, "fewer sequences at once than one are not possible"
        if size > 1:
            lower = max(divisor for divisor in divisors(train.batch_size) if 2 * divisor <= size)
            return lower, f"once more with {lower} at once, the batch as it was"
    return None, f"how many sequences it takes at once is not known: set {MICRO}"


def _planned(run: RunDirectory, entry: Entry, left: dict[str, Any]) -> str:
    """What the run held at most of the machine's memory, and what of it was planned, where that is known. The plan of
    a run on a GPU is of the GPU's memory."""
    status, said = run.status(), []
    with suppress(OSError, ValueError, KeyError, TypeError):
        if entry.device == "cpu":
            said.append(f"planned: at most {float(read_json(run.plan_path)['memory_gib']['high']):.1f} GiB")
    if peak := left.get("peak_gib"):
        said.append(f"it held up to {peak:.1f} GiB")
    elif status and status.held_gib:
        said.append(f"it held {status.held_gib:.1f} GiB at its last note")
    return f" ({'; '.join(said)})" if said else ""
