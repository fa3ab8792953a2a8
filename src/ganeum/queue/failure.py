"""What becomes of an entry when its process has ended: finished, tried again, resumed, or left with what went wrong.

Memory that killed the process: once more with half the micro-batch. Something from outside (a kill, a restart of the
machine, a full disk, another process in the run): resumed from the checkpoint, after a pause where haste is no help.
An error of the training's own (NaN, code, what the trainer has tried everything against): told, and not tried again.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any

from ganeum import units
from ganeum.queue.child import NOT_TAKEN
from ganeum.queue.entry import Entry

RETRIES = 3  # without `max_retries`: of what was killed again and again, each time with no step gained
PAUSE_S = 60.0
ASKED_TO_END = (-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT)
KILLED = (-9, 137)
DISK_FULL = ("disk is full", "No space left on device", "No usable temporary directory")  # ours, the system's, Python's


@dataclass(frozen=True)
class End:
    """What is known of an attempt's end.

    Attributes:
        exit_status: negative for a signal; None where nobody saw it. oom_kills: processes that the kernel killed for
            want of memory meanwhile. same_boot: the machine was not started anew since.
        state, step: what the run's status says; the step of its last checkpoint or note. gained: that it is further
            than when the attempt began.
        tail: the end of its log. explained: why it died, where the system has counted it.
        disk_full: that there is no room at all beside the run, or was none when it ended: maybe none for the log.
    """

    exit_status: int | None
    oom_kills: int = 0
    same_boot: bool = True
    state: str | None = None
    step: int = 0
    gained: bool = False
    tail: str = ""
    explained: str | None = None
    disk_full: bool = False


@dataclass(frozen=True)
class Outcome:
    """The entry's `changes`; whether the micro-batch is to be halved first; `what` happened, in a word, for the log."""

    what: str
    changes: dict[str, Any]
    halve: bool = False


def judge(entry: Entry, end: End, now: float) -> Outcome:
    """What an attempt's end makes of its entry; `now` in seconds since 1970."""
    status = end.exit_status
    over = end.state == "finished" and end.step > entry.done_before  # and not only the shorter training before
    if status == 0 or (over and status in (None, *ASKED_TO_END, *KILLED)):  # between its last word and its end
        return _ended("finished", entry, end, "")
    if status == NOT_TAKEN:
        return _again(entry, end, "its process could not be started", now + PAUSE_S)
    if entry.wanted == "kill":
        return _ended("killed", entry, end, entry.note)
    if status is None or status in (*ASKED_TO_END, *KILLED):  # an error just before is an error
        if entry.wanted == "pause":
            return _ended("paused", entry, end, "")
        if entry.wanted == "interrupt":
            return _ended("interrupted", entry, end, "starting the list again goes on with it")
        if entry.wanted == "hours":
            given = units.duration(3600 * (entry.max_hours or 0))
            return _ended("interrupted", entry, end, f"its {given} are over{_at(end)}")
    if not end.same_boot:
        return _resumed(entry, end, "the machine was started anew")
    if end.disk_full and status not in ASKED_TO_END:
        return _resumed(entry, end, "the disk is full", now + PAUSE_S)
    if status in KILLED and (end.oom_kills > 0 or end.explained):
        said = end.explained or "it was probably killed for want of the machine's memory"
        why = said.splitlines()[0]
        if entry.micro_batch_size or (entry.max_retries is not None and entry.retries >= entry.max_retries):
            note = f"{why}, once more" if entry.micro_batch_size else why
            return Outcome("out of memory", _ended("failed", entry, end, note, said).changes)
        return Outcome("out of memory", {**_queued(end, why), "retries": entry.retries + 1}, halve=True)
    if status is None or status in KILLED:
        return _again(entry, end, end.explained or ("killed (SIGKILL)" if status else "it ended without a word"))
    if status in ASKED_TO_END:
        return _resumed(entry, end, "it was asked to end")
    if "is being trained by" in end.tail:
        return Outcome("waits", _queued(end, "another process trains this run", now + PAUSE_S))
    if any(said in end.tail for said in DISK_FULL):
        return _again(entry, end, "the disk is full", now + PAUSE_S)
    return _ended("failed", entry, end, _headline(end))


def _ended(state: str, entry: Entry, end: End, note: str, error: str = "") -> Outcome:
    changes = {
        "state": state,
        "note": note,
        "error_tail": error or (end.tail if state == "failed" else ""),
        "exit_status": end.exit_status,
        "wanted": "",
    }
    if state in ("finished", "paused"):
        changes["retries"] = 0
    return Outcome(state, changes)


def _queued(end: End, note: str, not_before: float | None = None) -> dict[str, Any]:
    return {
        "state": "queued",
        "note": note,
        "not_before": not_before,
        "exit_status": end.exit_status,
        "wanted": "",
        "device": None,
    }


def _resumed(entry: Entry, end: End, why: str, not_before: float | None = None) -> Outcome:
    """Nothing of the run's own doing, so nothing that is counted."""
    note = f"{why}: goes on{_at(end)}" if end.step else f"{why}: starts again"
    return Outcome("interrupted", _queued(end, note, not_before))


def _again(entry: Entry, end: End, why: str, not_before: float | None = None) -> Outcome:
    """Resumed, as often as it gets further, and a few times where it does not."""
    retries = 1 if end.gained else entry.retries + 1
    most = RETRIES if entry.max_retries is None else entry.max_retries
    if retries > most:
        return _ended("failed", entry, end, f"{why.splitlines()[0]}; tried {entry.attempts} times")
    return Outcome(
        "interrupted", {**_queued(end, f"{why.splitlines()[0]}: tried again", not_before), "retries": retries}
    )


def _at(end: End) -> str:
    return f" at step {end.step:,}" if end.step else ""


def _headline(end: End) -> str:
    """The line of an error that names it: the first of ours, the last of a traceback."""
    lines = [line.strip() for line in end.tail.splitlines() if line.strip()]
    ours = [line for line in lines if line.split(":")[0].endswith(("Error", "MissingExtra")) and ": " in line]
    if ours:
        return ours[-1]
    if end.exit_status is not None and -end.exit_status in {int(known) for known in signal.Signals}:
        return f"its process was killed ({signal.Signals(-end.exit_status).name})"
    return f"exit status {end.exit_status}"
