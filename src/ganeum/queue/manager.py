"""A process that works on the list: it takes over what runs, starts what may, and brings the list up to date.

Any number of them may work on one list, and each may be killed at any moment: nothing that matters is in their memory.
What runs goes on without them, and the next one finds it by what the list and the run directories say.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

from ganeum import units
from ganeum.errors import GaneumError, QueueError
from ganeum.queue import freeze, process
from ganeum.queue.child import NOT_TAKEN
from ganeum.queue.entry import GOING, Entry
from ganeum.queue.failure import RETRIES
from ganeum.queue.placement import Placed, Placement, Wait
from ganeum.queue.process import Identity
from ganeum.queue.schedule import Decisions, Place, schedule
from ganeum.queue.settle import HEADING, give_back, identity, is_full, lower_micro_batch, settle, tail
from ganeum.queue.store import Store

TRAIN = (sys.executable, "-m", "ganeum", "train")  # the frozen config follows
POLL_S = 0.5
LOOK_AGAIN_S = 10.0  # at what waits for a device that another program may let go of, and at held entries
LOOK_AGAIN_AT_ONE_S = 3.0  # a training whose parent was killed alone is found by looking at every process
TEND_S = 30.0  # sweeps that choose their next trials by the results
NOTED = 5  # of what waits for a device have the reason written: what is free changes all the time
RETRY_S = 60.0  # after a process could not be started
TRY_AGAIN_S = 1.0  # to open a list that is locked, or on a full disk

Say = Callable[[str], None]
T = TypeVar("T")


@dataclass
class Manager:
    """One process's work on a list.

    Attributes:
        place: where an entry may start beside those that run; asked anew of the machine each time it is built.
        say: takes the lines that tell what happens.
        on_end: called with each entry that this process sees end (finished, failed, killed, held, interrupted).
        only: the ids that are its business to start; None for all.
    """

    store: Store
    place: Callable[[], Place]
    say: Say = lambda text: None
    on_end: Callable[[Entry], None] = lambda entry: None
    train: Sequence[str] = TRAIN
    only: Collection[int] | None = None
    grace_s: float = process.GRACE_S
    me: Identity = field(default_factory=Identity.of_this_process)
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ending: dict[str, float] = field(default_factory=dict)  # token → when SIGKILL is due (time.monotonic)
    _entries: list[Entry] = field(default_factory=list)
    _seen: int | None = None  # the list's version that `_entries` is
    _look_at: float = 0.0  # time.monotonic, of the next look at devices and held entries
    _tend_at: float = 0.0
    _pending: bool = False  # something will be able to start by itself
    _orphans: dict[str, float] = field(default_factory=dict)  # token → when to look again (time.monotonic)

    def step(self) -> bool:
        """Once around → whether anything is still to come: something runs, or will be able to start by itself.

        Raises:
            QueueError: the list cannot be read or written now; nothing is lost, and the next step goes on.
        """
        self._read()
        self._reap()
        if self._bring_up_to_date():
            self._read()
        self._decide()
        return self._pending or any(one.state in GOING and self._is_mine(one.id) for one in self._entries)

    def _is_mine(self, id: int) -> bool:
        return self.only is None or id in self.only

    # Reading

    def _read(self) -> None:
        version = self.store.changes()
        if self._seen != version:
            self._entries, self._seen = self.store.all(), version
            self._look_at = 0.0

    def _wrote(self) -> None:
        self._seen = None

    def _reap(self) -> None:
        starting = {entry.token for entry in self._entries if entry.state == "starting"}
        for token, child in list(self._children.items()):
            if child.poll() is not None and token not in starting:
                del self._children[token]

    # What runs

    def _bring_up_to_date(self) -> bool:
        """Everything that has ended, whoever started it; what was asked of what runs → whether anything changed."""
        before = self._seen
        for entry in self._entries:
            if entry.state not in GOING or entry.token is None:
                continue
            first = identity(entry)
            if entry.state == "starting" and first == self.me:
                child = self._children.get(entry.token)
                if child is None or child.poll() is not None:  # it ended without taking the entry
                    counts = child is not None and child.returncode != NOT_TAKEN
                    self._given_back(entry, "its process could not take it: see its log", counts)
                continue
            if first is None or not first.is_alive():
                if time.monotonic() < self._orphans.get(entry.token, 0.0):
                    continue
                if (settled := self._settle(entry)) is not None:
                    self._wrote()
                    self._tell(settled)
                    continue
                self._orphans[entry.token] = time.monotonic() + LOOK_AGAIN_AT_ONE_S
            if entry.state == "running" and first is not None:
                self._limit(entry, first)
        return self._seen != before

    def _settle(self, entry: Entry) -> Entry | None:
        try:
            return settle(self.store, entry)
        except OSError as error:  # its directory cannot be read: the others are no worse for it
            self.say(f"{entry.name}: {error}")
            return None

    def _given_back(self, entry: Entry, note: str, counts: bool) -> None:
        """For another start, later; after some that were its own fault, for none."""
        retries = entry.retries + counts
        most = RETRIES if entry.max_retries is None else entry.max_retries
        again = {"not_before": self.store.clock() + RETRY_S} if retries <= most else {"state": "failed"}
        error = tail(self.store.run(entry)) if retries > most else ""
        back = give_back(self.store, entry, note, retries=retries, error_tail=error, **again)
        self._wrote()
        if back is not None and back.state == "failed":
            self._tell(back)

    def _limit(self, entry: Entry, first: Identity) -> None:
        """End what has used up its hours, or was asked to end by somebody who may not be there any more."""
        assert entry.token is not None, "what runs has a token"
        spent = entry.hours + first.age_s() / 3600
        if not entry.wanted and entry.max_hours is not None and spent > entry.max_hours:
            if self.store.update(entry.id, ("running",), attempt=entry.token, wanted="hours") is None:
                return
            self._wrote()
            self.say(f"{entry.name}: its {units.duration(3600 * entry.max_hours)} are over")
        elif not entry.wanted:
            return
        if entry.token not in self._ending:
            process.stop(first, entry.token)
            self._ending[entry.token] = time.monotonic() + self.grace_s
        elif time.monotonic() > self._ending[entry.token]:
            process.kill(first, entry.token)

    # What starts

    def _decide(self) -> None:
        """Start what may start, hold what cannot; nothing where nothing can have changed."""
        if time.monotonic() < self._look_at:
            return
        by_id, sha = {entry.id: entry for entry in self._entries}, cache(lambda: freeze.code_sha())
        decisions = schedule(
            self._entries,
            now=self.store.clock(),
            place=_lazy(self.place, self.store.results),
            token=lambda: uuid.uuid4().hex,
            in_the_way=lambda entry: freeze.changed(entry, sha()) if entry.strict else None,
            only=self.only,
        )
        beside = {entry.token for entry in self._entries if entry.state in GOING and entry.token}
        for entry, placed in decisions.start:
            assert entry.token is not None, "schedule gives what starts a token"
            if not self._start(by_id[entry.id], entry.token, placed, beside):
                break
            beside.add(entry.token)
        self._apply(decisions, by_id)
        due = [] if decisions.next_at is None else [max(0.0, decisions.next_at - self.store.clock())]
        self._pending = bool(decisions.start or decisions.free or decisions.device or due)
        self._look_at = time.monotonic() + min([LOOK_AGAIN_S, *due])

    def _apply(self, decisions: Decisions, by_id: dict[int, Entry]) -> None:
        for id, why in decisions.hold.items():
            if by_id[id].state == "held" and by_id[id].note == why:
                continue
            held = self.store.update(id, ("queued", "held"), state="held", note=why)
            self._wrote()
            if held is not None and by_id[id].state != "held":
                self.store.log("held", why, id)
                self._tell(held)
        for id in decisions.free:
            self.store.update(id, ("held",), state="queued", note="")
            self._wrote()
        for id in sorted(decisions.device, key=list(by_id).index)[:NOTED]:
            if by_id[id].state == "queued" and by_id[id].note != decisions.wait[id]:
                noted = self.store.update(id, ("queued",), note=decisions.wait[id])
                if noted is not None:  # no reason to look at the list anew
                    self._entries[self._entries.index(by_id[id])] = noted

    def _start(self, entry: Entry, token: str, placed: Placed, beside: Collection[str]) -> bool:
        """Claim the entry and start its process → False where the list has changed meanwhile."""
        claimed = self.store.claim(entry, self.me, token, placed.device, beside)
        self._wrote()
        if claimed is None:
            return False
        code = freeze.changed(entry)
        try:
            freeze.thaw(self.store, entry)
            if entry.micro_batch_size is not None:
                lower_micro_batch(self.store.run(entry), entry.micro_batch_size)
            self._children[token] = self._spawn(claimed, token, placed)
        except GaneumError as error:
            if isinstance(error, QueueError) and error.kind != "other":  # of the list: its next step gives it back
                raise
            failed = give_back(self.store, claimed, error.what, state="failed", error_tail=str(error))
            if failed is not None:
                self._tell(failed)
            return True
        except OSError as error:
            why = (error.strerror or str(error)) + (f": {error.filename}" if error.filename else "")
            passing = not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError))
            self._given_back(claimed, f"its process cannot be started: {why}", counts=not passing)
            return True
        where = f" on {placed.device}" + (f" ({placed.note})" if placed.note else "")
        self.say(f"{entry.name}: started{where}" + (f"; {code}" if code else ""))
        self.store.log(
            "started", "; ".join([f"attempt {claimed.attempts}{where}", *([code] if code else [])]), entry.id
        )
        return True

    def _spawn(self, entry: Entry, token: str, placed: Placed) -> subprocess.Popen[bytes]:
        run, list_ = self.store.run(entry), self.store.path.resolve()
        child = [sys.executable, "-m", "ganeum.queue.child", str(list_), str(entry.id), token]
        words = [*self.train, str(freeze.config_path(run).resolve()), *placed.arguments]
        environment = {
            **os.environ,
            **placed.environment,
            process.TOKEN: token,
            "GANEUM_RESULTS": str(list_.parent),
            "PYTHONUNBUFFERED": "1",
        }
        if path := os.environ.get("PYTHONPATH"):  # the child stands elsewhere
            environment["PYTHONPATH"] = os.pathsep.join(str(Path(part).resolve()) for part in path.split(os.pathsep))
        with run.queue_log_path.open("ab") as log:
            when = time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"{HEADING} {entry.attempts}, {when}, on {placed.device} ===\n".encode())
            log.flush()
            return subprocess.Popen(
                [*child, *words],
                cwd=entry.cwd or None,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # neither Ctrl-C nor the end of this process is its business
            )

    def tend(self) -> None:
        """Sweeps that choose their next trials by the results: those trials, from time to time."""
        if time.monotonic() >= self._tend_at and any(entry.spec for entry in self._entries):
            from ganeum.queue import study

            try:
                study.tend(self.store, self.say)
            except QueueError:
                raise
            except GaneumError as error:  # a sweep that cannot go on stops no run
                self.say(str(error))
            self._wrote()
            self._tend_at = time.monotonic() + TEND_S

    def _tell(self, entry: Entry) -> None:
        self._tend_at = 0.0
        self.say(f"{entry.name}: {entry.state}" + (f", {entry.note}" if entry.note else ""))
        if entry.state not in ("queued", "paused"):
            self.on_end(entry)


def opened(path: Path, stop: threading.Event, say: Say = print) -> Store | None:
    """The list at `path`, as soon as it can be opened; None where `stop` was set before.

    Raises:
        QueueError: as `run`.
    """
    return _patiently(lambda: Store(path), stop, _unbroken(say))


def run(
    store: Store,
    *,
    until_empty: bool = False,
    only: Collection[int] | None = None,
    stop: threading.Event | None = None,
    say: Say = print,
    on_end: Callable[[Entry], None] | None = None,
    train: Sequence[str] = TRAIN,
    place: Callable[[], Place] | None = None,
    poll_s: float = POLL_S,
    grace_s: float = process.GRACE_S,
) -> None:
    """Work on the list until `stop` is set; runs that are going then go on.

    Args:
        until_empty: end where nothing runs any more and nothing will be able to start by itself.
        only: start nothing but these ids, and with `until_empty` end when they have ended.
        place: builds, from the machine as it is now, what says where an entry may start.

    Raises:
        QueueError: the list is damaged, or of a newer version. One that is locked, or on a full disk, is waited for.
    """
    stop, say = stop or threading.Event(), _unbroken(say)
    manager = Manager(store, place or on_this_machine, say, on_end or (lambda entry: None), train, only, grace_s)
    trouble = ""
    _patiently(lambda: store.enrol(manager.me), stop, say)
    try:
        while not stop.is_set():
            try:
                more = manager.step()
                manager.tend()
                if trouble:
                    say("the queue can be written again")
                trouble = ""
                if until_empty and not more and manager.step() is False:
                    return
            except QueueError as error:
                if error.kind not in ("locked", "full"):
                    raise
                if error.what != trouble:
                    say(f"{error.what}; waiting")
                trouble = error.what
                manager._wrote()
            stop.wait(poll_s)
    finally:
        with suppress(QueueError):
            store.leave(manager.me)


def _unbroken(say: Say) -> Say:
    """What is said may go to a file on a full disk, or to a terminal that is closed: no reason to end."""

    def said(text: str) -> None:
        with suppress(OSError):
            say(text)

    return said


def on_this_machine(per_gpu: int = 1) -> Place:
    """Where entries may start on this machine, as it is now; `per_gpu`: runs that may share a GPU."""
    from ganeum.queue import devices

    return devices.places(devices.look(per_gpu))


def _patiently(work: Callable[[], T], stop: threading.Event, say: Say) -> T | None:
    """What `work` gives, once the list is neither locked nor on a full disk; None where `stop` was set before."""
    said = False
    while not stop.is_set():
        try:
            return work()
        except QueueError as error:
            if error.kind not in ("locked", "full"):
                raise
            if not said:
                say(f"{error.what}; waiting")
            said = True
            stop.wait(TRY_AGAIN_S)
    return None


def _lazy(build: Callable[[], Place], results: Path) -> Place:
    """The machine is looked at only once something can start."""
    built: list[Place] = []

    def place(entry: Entry, going: Sequence[Entry]) -> Placement:
        if is_full(results):
            return Wait("the disk is full")
        if not built:
            built.append(build())
        return built[0](entry, going)

    return place
