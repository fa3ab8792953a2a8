"""What people ask of entries: pause, resume, kill, retry, move. It works whether or not a queue process runs.

A wish for a run that is going is written down first (`Entry.wanted`) and its process told then, so that whoever sees
it end, now or after a crash, knows what that was for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ganeum.errors import QueueError
from ganeum.queue import process
from ganeum.queue.child import asked_path
from ganeum.queue.entry import ENDED, GOING, Entry, State
from ganeum.queue.settle import identity, settle
from ganeum.queue.store import Store

MANAGER_S = 5.0  # for a queue process to see that a run has ended
WAITING: tuple[State, ...] = ("queued", "held", "interrupted")


def pause(store: Store, entry: Entry) -> Entry:
    """Keep it from starting; where it runs, let it write a checkpoint and release its device.

    Raises:
        QueueError: it has ended.
    """
    return _ask(store, entry, "pause", (*WAITING, "paused"), "paused")


def kill(store: Store, entry: Entry, note: str = "") -> Entry:
    """End it for good; where it runs, after a checkpoint. `note`: why, for the listing.

    Raises:
        QueueError: it has ended already.
    """
    return _ask(store, entry, "kill", (*WAITING, "paused"), "killed", note)


def interrupt(store: Store, entry: Entry) -> Entry:
    """End one that is going, after a checkpoint, to go on with the next start of the list that it came from.

    Raises:
        QueueError: it is not going.
    """
    return _ask(store, entry, "interrupt", (), "interrupted")


def resume(store: Store, entry: Entry) -> Entry:
    """Let it take its turn (again).

    Raises:
        QueueError: it is not paused, held or interrupted.
    """
    # One that is held for changed code: the user knows of it now.
    unheld: dict[str, Any] = {"strict": False} if entry.state == "held" else {}
    if entry.max_hours is not None and entry.hours >= entry.max_hours:
        unheld["hours"] = 0.0  # that they are over is why it waits
    states: tuple[State, ...] = ("paused", "held", "interrupted")
    changed = store.update(entry.id, states, state="queued", note="", wanted="", not_before=None, **unheld)
    if changed is None:
        other = "`ganeum queue retry` starts it again" if entry.state in ("failed", "killed") else None
        raise QueueError(f"{called(entry)} is {entry.state}: nothing to resume", suggestion=other)
    store.log("resumed", entry=entry.id)
    return changed


def retry(store: Store, entry: Entry, *, note: str = "") -> Entry:
    """Queue one that has ended once more; it goes on from its checkpoint, with all of its retries and hours. A trial
    that was ended as hopeless is not judged again.

    Raises:
        QueueError: it is finished, is going, or another entry has its run.
    """
    others = [one for one in store.all(entry.name) if one.id != entry.id and one.state not in ENDED]
    if others:
        raise QueueError(
            f"{called(entry)} cannot be retried: its run is also that of entry {others[0].id}, {others[0].state}"
        )
    fresh: dict[str, Any] = {"retries": 0, "hours": 0.0, "not_before": None, "wanted": ""}
    said: dict[str, Any] = {"note": note, "error_tail": "", "exit_status": None}
    if entry.spec is not None and entry.state == "killed":
        said["spec"] = {**entry.spec, "stop_hopeless": False}
    states: tuple[State, ...] = ("failed", "killed", "interrupted", "held")
    changed = store.update(entry.id, states, state="queued", queued=store.clock(), **fresh, **said)
    if changed is None:
        hint = (
            "a larger max_iters extends a finished run: `ganeum queue add` it so" if entry.state == "finished" else None
        )
        raise QueueError(f"{called(entry)} is {entry.state}: nothing to retry", suggestion=hint)
    store.log("retried", entry=entry.id)
    return changed


def each(
    store: Store, entries: Sequence[Entry], act: Callable[[Store, Entry], Entry]
) -> tuple[list[Entry], list[QueueError]]:
    """`pause`, `resume`, `kill` or `retry` of each: what has no process in one transaction, then one by one what has,
    since a process is told when its wish is on the disk → what has changed, and what was wrong with others.

    Raises:
        QueueError: the list is damaged, locked or on a full disk.
    """
    changed: list[Entry] = []
    errors: list[QueueError] = []

    def one(entry: Entry) -> None:
        try:
            changed.append(act(store, store.get(entry.id)))
        except QueueError as error:
            if error.kind != "other":
                raise
            errors.append(error)

    with store.together():
        going = {entry.id for entry in store.all() if entry.state in GOING}
        for entry in entries:
            if entry.id not in going:
                one(entry)
    for entry in entries:
        if entry.id in going:
            one(entry)
    return changed, errors


def move(store: Store, entries: Sequence[Entry], *, to: Entry | None, behind: bool = False) -> list[Entry]:
    """Put entries, in the order given, right before (or `behind`) another; to the very end of all with `to` None.

    They take its priority too, since that comes first.
    """
    moved = {entry.id for entry in entries}

    def arranged(now: list[Entry]) -> dict[int, dict[str, Any]]:
        rest = [one for one in now if one.id not in moved and one.state not in ENDED]
        place = len(rest) if to is None else next((i for i, one in enumerate(rest) if one.id == to.id), None)
        if place is None:
            assert to is not None, "the end of all is a place"
            state = next((one.state for one in now if one.id == to.id), "gone")
            why = "it would be put beside itself" if to.id in moved else f"it is {state}"
            raise QueueError(f"nothing can be put beside {called(to)}: {why}")
        place += behind and to is not None
        line = [*rest[:place], *entries, *rest[place:]]
        beside = to or (rest[-1] if rest else None)
        same = {} if beside is None else {"priority": beside.priority}
        orders = {one.id: {"order": float(order)} for order, one in enumerate(line, start=1)}
        return {id: {**order, **(same if id in moved else {})} for id, order in orders.items()}

    changed = {entry.id: entry for entry in store.rearrange(arranged)}
    return [changed[entry.id] for entry in entries if entry.id in changed]


def finish(store: Store, entry: Entry, grace_s: float = process.GRACE_S) -> None:
    """Wait until nothing is left of an attempt that was asked to end, by force after `grace_s`; note how it ended."""
    if entry.token is not None and (first := identity(entry)) is not None:
        process.end(first, entry.token, asked_path(store.run(entry), entry.token), grace_s)
    deadline = time.monotonic() + MANAGER_S
    while store.managers() and store.get(entry.id).state in GOING and time.monotonic() < deadline:
        time.sleep(0.1)  # it notes how the run ended, and tells people
    settle(store, store.get(entry.id), gone=grace_s == 0)  # of a machine that will not come back, by force only
    now = store.get(entry.id)
    if now.state in WAITING and entry.wanted in ("pause", "kill"):  # it ended for another reason before it heard of it
        (pause if entry.wanted == "pause" else kill)(store, now)


def called(entry: Entry) -> str:
    """`3 (exp1_layer6)`"""
    return f"{entry.id} ({entry.name})"


def _ask(store: Store, entry: Entry, wish: str, waiting: Sequence[State], state: State, note: str = "") -> Entry:
    if (changed := store.update(entry.id, waiting, state=state, note=note, ended_at=_ended(store, state))) is not None:
        store.log(state, note, entry.id)
        return changed
    settings = {"wanted": wish, **({"note": note} if note else {})}
    if (changed := store.update(entry.id, GOING, **settings)) is None:
        raise QueueError(f"{called(entry)} is {store.get(entry.id).state}: nothing to {wish}")
    store.log(f"{wish} asked", note, entry.id)
    # While it is `starting` the process named is the manager's; the run itself looks at the wish before it begins.
    if changed.state == "running" and changed.token is not None and (first := identity(changed)) is not None:
        process.stop(first, changed.token, asked_path(store.run(changed), changed.token))
    return changed


def _ended(store: Store, state: State) -> float | None:
    return store.clock() if state in ENDED else None
