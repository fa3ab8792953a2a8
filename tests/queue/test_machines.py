"""Several machines on one directory: each knows its own runs only, and leaves those of the others to them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from at_work import add, history, states, work

from ganeum.cli.queue import table
from ganeum.hardware import mounts
from ganeum.queue import child, control, process
from ganeum.queue.entry import Entry
from ganeum.queue.placement import Placed, Placement
from ganeum.queue.process import Identity
from ganeum.queue.settle import settle
from ganeum.queue.store import Store
from ganeum.record import write_json

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX")
ELSEWHERE = Identity(os.getpid(), 1.0, "the boot of node7", "node7/1a2b3c4d/4026531836")


def running_elsewhere(store: Store, name: str = "one") -> Entry:
    entry = add(store, name)
    assert store.claim(entry, ELSEWHERE, "t", "cpu", ())
    found = store.update(entry.id, state="running")
    assert found is not None
    return found


@pytest.fixture
def shared(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The list on a file system of the network."""
    monkeypatch.setattr(mounts, "shared_kind", lambda directory: "nfs4")
    store.shared = "nfs4"
    return store


def test_a_run_of_another_machine_is_left_to_it(shared: Store) -> None:
    """It is not started here as if this machine had been rebooted, and takes no place here."""
    one = running_elsewhere(shared)
    add(shared, "two")
    beside: list[int] = []

    def place(entry: Entry, going: Sequence[Entry]) -> Placement:
        beside.append(len(going))
        return Placed("cpu")

    said = work(shared, only=[2], place=lambda: place)
    assert {"one": "running", "two": "finished"} == states(shared)
    assert {0} == set(beside)
    assert settle(shared, shared.get(one.id)) is None
    assert ["two begins with auto", "two finished"] == history()
    assert (
        f"{shared.results} lies on a file system that several machines share (nfs4): the list is as safe as its locks "
        "are, and each machine takes back its own runs only"
    ) in said


def test_the_listing_names_the_machine(shared: Store) -> None:
    """Of one that runs elsewhere."""
    assert "cpu of node7" == table.place(running_elsewhere(shared))
    assert "cpu" == table.place(Entry("two", device="cpu", host=process.host()))


def test_where_nobody_else_can_have_the_directory_it_was_this_machine(store: Store) -> None:
    """A container that was made anew has another name; its disk is not shared."""
    one = running_elsewhere(store)
    settled = settle(store, one)
    assert settled is not None
    assert ("queued", "the machine was started anew: starts again") == (settled.state, settled.note)


def test_what_has_ended_elsewhere_is_noted_by_anyone(shared: Store) -> None:
    """Its process has written down how, and the other machine's queue is not there to read it."""
    one = running_elsewhere(shared)
    write_json(child.ended_path(shared.run(one)), {"token": "t", "exit_status": 0, "oom_kills": 0, "seconds": 7.0})
    settled = settle(shared, one)
    assert settled is not None
    assert "finished" == settled.state


def test_a_machine_that_does_not_come_back_loses_its_runs_by_force(shared: Store) -> None:
    """`kill` leaves it to the other machine; `kill --now` takes its word."""
    one = running_elsewhere(shared)
    asked = control.kill(shared, one)
    control.finish(shared, asked, grace_s=0.1)
    assert ("running", "kill") == (shared.get(one.id).state, shared.get(one.id).wanted)
    control.finish(shared, asked, grace_s=0)
    assert "killed" == shared.get(one.id).state


def test_a_run_in_another_container_is_known_by_its_lock(store: Store) -> None:
    """Process ids mean nothing between containers of one boot: while the training has its run, or has just begun, it
    is not taken for dead."""
    entry = add(store, "one")
    me = Identity.of_this_process()
    assert store.claim(entry, replace(me, pid=1, started=1.0, host="3f2a//7"), "t", "cpu", ())
    assert settle(store, store.get(entry.id)) is None
    store.update(entry.id, state="running")
    assert settle(store, store.get(entry.id)) is None
    store.update(entry.id, started_at=time.time() - 3600)
    run = store.run(entry)
    run.acquire()
    assert settle(store, store.get(entry.id)) is None
    run.release()
    settled = settle(store, store.get(entry.id))
    assert settled is not None
    assert ("queued", "it ended without a word: tried again") == (settled.state, settled.note)


def test_the_queue_processes_of_other_machines_are_kept(store: Store) -> None:
    """They are not known to be dead; they are not counted as working here either."""
    store.enrol(ELSEWHERE)
    me = Identity.of_this_process()
    store.enrol(me)
    assert [me] == [manager.identity for manager in store.managers()]
    assert [ELSEWHERE, me] == [manager.identity for manager in store._managers()]


def test_a_list_on_the_network_does_without_memory_that_processes_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's WAL needs it, and two machines have none; it is WAL everywhere else. A change is seen all the same."""
    with Store(tmp_path / "here" / "queue.sqlite") as local:
        assert ("wal",) == local._db.execute("PRAGMA journal_mode").fetchone()
    monkeypatch.setattr(mounts, "shared_kind", lambda directory: "nfs4")
    with Store(tmp_path / "there" / "queue.sqlite") as one, Store(tmp_path / "there" / "queue.sqlite") as two:
        assert ("delete",) == one._db.execute("PRAGMA journal_mode").fetchone()
        before = one.changes()
        two.add(Entry("run"))
        assert before != one.changes()
        assert ["run"] == [entry.name for entry in one.all()]


def test_a_list_of_a_version_before_hosts_is_completed(store: Store) -> None:
    """Its queue processes had none."""
    store.enrol(Identity.of_this_process())
    store._db.execute("ALTER TABLE managers DROP COLUMN host")
    with Store(store.path) as again:
        assert [""] == [manager.identity.host for manager in again._managers()]
        assert process.host() == Identity.of_this_process().host
