"""A process that works on the list: it takes over what runs, starts what may, and brings the list up to date.

Any number of them may work on one list, and each may be killed at any moment: nothing that matters is in their memory.
What runs goes on without them, and the next one finds it by what the list and the run directories say.
"""

from __future__ import annotations

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
from ganeum.queue.attempt import spawn
from ganeum.queue.child import NOT_TAKEN, asked_path
from ganeum.queue.entry import GOING, TOLD, Entry
from ganeum.queue.failure import RETRIES
from ganeum.queue.placement import Placed
from ganeum.queue.places import lazily
from ganeum.queue.places import on_this_machine as on_this_machine
from ganeum.queue.process import Identity
from ganeum.queue.progress import progress
from ganeum.queue.schedule import Decisions, Place, schedule
from ganeum.queue.settle import give_back, identity, lower_micro_batch, settle, tail
from ganeum.queue.store import Store
from ganeum.queue.summary import sentence

TRAIN = (sys.executable, "-m", "ganeum", "train")  # the frozen config follows
POLL_S = 0.5
LOOK_AGAIN_S = 10.0  # at what waits for a device that another program may let go of, and at held entries
LOOK_AGAIN_AT_ONE_S = 3.0  # a training whose parent was killed alone is found by looking at every process
TEND_S = 30.0  # sweeps that choose their next trials by the results
NOTED = 5  # of what waits for a device have the reason written: what is free changes all the time
LET_BE_S = 60.0  # for a process that has somebody to tell to do so
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
        tell: tells people of one that has ended, whoever saw that: one process does, once. None: nobody is to be told.
        only: the ids that are its business to start; None for all.
    """

    store: Store
    place: Callable[[], Place]
    say: Say = lambda text: None
    on_end: Callable[[Entry], None] = lambda entry: None
    tell: Callable[[Entry], None] | None = None
    train: Sequence[str] = TRAIN
    only: Collection[int] | None = None
    grace_s: float = process.GRACE_S
    me: Identity = field(default_factory=Identity.of_this_process)
    began: float = field(default=0.0, init=False)
    _children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ending: dict[str, float] = field(default_factory=dict)  # token → when SIGKILL is due (time.monotonic)
    _entries: list[Entry] = field(default_factory=list)
    _seen: int | None = None  # the list's version that `_entries` is
    _look_at: float = 0.0  # time.monotonic, of the next look at devices and held entries
    _tend_at: float = 0.0
    _pending: bool = False  # something will be able to start by itself
    _orphans: dict[str, float] = field(default_factory=dict)  # token → when to look again (time.monotonic)

    def __post_init__(self) -> None:
        self.began = self.store.clock()

    def step(self) -> bool:
        """Once around → whether anything is still to come: something runs, or will be able to start by itself.

        Raises:
            QueueError: the list cannot be read or written now; nothing is lost, and the next step goes on.
        """
        self._read()
        self._reap()
        if self._bring_up_to_date():
            self._read()
        self._tell_people()
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
                if first is not None and first.is_elsewhere():
                    continue
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
            self._ending[entry.token] = time.monotonic() + self.grace_s
        if time.monotonic() > self._ending[entry.token]:
            process.kill(first, entry.token)
        else:  # again and again: its first process may be killed before it has handed it on
            process.stop(first, entry.token, asked_path(self.store.run(entry), entry.token))

    # What starts

    def _decide(self) -> None:
        """Start what may start, hold what cannot; nothing where nothing can have changed."""
        if time.monotonic() < self._look_at:
            return
        by_id, sha = {entry.id: entry for entry in self._entries}, cache(lambda: freeze.code_sha())
        decisions = schedule(
            self._entries,
            now=self.store.clock(),
            place=lazily(self.place, self.store.results),
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
            untold = None if by_id[id].state == "held" else self.store.clock()
            held = self.store.update(id, ("queued", "held"), state="held", note=why, untold=untold)
            self._wrote()
            if held is not None and by_id[id].state != "held":
                self.store.log("held", why, id)
                self._tell(held)
        for id in decisions.free:
            self.store.update(id, ("held",), state="queued", note="")
            self._wrote()
        for id in [id for id in by_id if id in decisions.device][:NOTED]:
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
            self._children[token] = spawn(self.store, claimed, token, placed, self.train)
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
        where = f" on {placed.note or placed.device}"
        self.say(f"{entry.name} started{where}" + (f"; {code}" if code else ""))
        self.store.log(
            "started", "; ".join([f"attempt {claimed.attempts}{where}", *([code] if code else [])]), entry.id
        )
        return True

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
        self.say(self._sentence(entry))
        if entry.state in TOLD:
            self.on_end(entry)

    def _tell_people(self) -> None:
        """Of what has ended, also while no queue process was there; where nobody is to be told, it is let be in the
        end, so that they do not hear of old things once somebody is."""
        now = self.store.clock()
        for entry in self._entries:
            if entry.untold is None or (self.tell is None and 0 <= now - entry.untold < LET_BE_S):
                continue
            self._wrote()
            if self.store.told(entry.id) and entry.state in TOLD:
                if entry.untold < self.began:
                    self.say(f"while no queue process was there: {self._sentence(entry)}")
                if self.tell is not None:
                    self.tell(entry)

    def leave(self) -> None:
        """What ended meanwhile is no news to the next one; another that is there now may have somebody to tell."""
        self.store.leave(self.me)
        for entry in [] if self.tell or self.store.managers() else self.store.all():
            if entry.untold is not None and entry.untold >= self.began:
                self.store.told(entry.id)

    def _sentence(self, entry: Entry) -> str:
        return sentence(entry, progress(self.store.run(entry), entry))


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
    tell: Callable[[Entry], None] | None = None,
    on_idle: Callable[[], None] = lambda: None,
    train: Sequence[str] = TRAIN,
    place: Callable[[], Place] | None = None,
    poll_s: float = POLL_S,
    grace_s: float = process.GRACE_S,
) -> None:
    """Work on the list until `stop` is set; runs that are going then go on.

    Args:
        until_empty: end where nothing runs any more and nothing will be able to start by itself.
        only: start nothing but these ids, and with `until_empty` end when they have ended.
        on_idle: called when there was something to do and nothing is left of it.
        place: builds, from the machine as it is now, what says where an entry may start.

    Raises:
        QueueError: the list is damaged, or of a newer version. One that is locked, or on a full disk, is waited for.
    """
    stop, say = stop or threading.Event(), _unbroken(say)
    manager = Manager(store, place or on_this_machine, say, on_end or (lambda entry: None), tell, train, only, grace_s)
    if store.shared is not None:
        say(
            f"{store.results} lies on a file system that several machines share ({store.shared}): the list is as safe "
            "as its locks are, and each machine takes back its own runs only"
        )
    trouble, busy = "", False
    _patiently(lambda: store.enrol(manager.me), stop, say)
    try:
        while not stop.is_set():
            try:
                more = manager.step()
                manager.tend()
                if trouble:
                    say("the queue can be written again")
                trouble = ""
                if not more and (busy or until_empty) and not manager.step():
                    busy = False
                    on_idle()
                    if until_empty:
                        return
                busy = busy or more
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
            manager.leave()


def _unbroken(say: Say) -> Say:
    """What is said may go to a file on a full disk, or to a terminal that is closed: no reason to end."""

    def said(text: str) -> None:
        with suppress(OSError):
            say(text)

    return said


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
