"""The queue's list: claimed once by any number of processes, safe against damage, locks and a full disk."""

from __future__ import annotations

import errno
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ganeum.errors import QueueError
from ganeum.queue import mirror
from ganeum.queue.entry import Entry
from ganeum.queue.process import Identity
from ganeum.queue.store import Store, rebuild

ME = Identity.of_this_process()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "queue.sqlite") as opened:
        yield opened


def test_an_entry_comes_back_as_it_was_added(store: Store) -> None:
    """Every field, and the times at which it came."""
    entry = Entry(
        "one", priority=3, order=1.5, group="night", after=(7, 8), at=12.5, overrides=("seed=3",), strict=True,
        max_hours=1.5, trial={"train.learning_rate": "1e-3"},
    )  # fmt: skip
    added = store.add(entry)
    assert (1, store.get(1)) == (added.id, added)
    assert replace(entry, id=1, created=added.created, queued=added.created) == added


def test_the_list_is_in_the_order_of_starting(store: Store) -> None:
    """By priority, then order, then id."""
    store.add_all([Entry("a"), Entry("b", priority=1), Entry("c", order=-1.0), Entry("d", priority=1)])
    assert ["b", "d", "c", "a"] == [entry.name for entry in store.all()]


def test_that_it_was_added_is_noted_with_it(store: Store) -> None:
    """In the same transaction: none is on the list without its history, and a thousand wait for the disk once."""
    commits: list[str] = []
    store._db.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
    store.add_all([Entry("one", config="a b.yaml", overrides=("seed=1",)), Entry("two", config="c.yaml")])
    assert ["'a b.yaml' seed=1", "c.yaml"] == [event.text for event in store.events() if event.what == "added"]
    assert ["COMMIT"] == commits


def test_a_run_has_one_entry(store: Store) -> None:
    """A name in the queue is refused, and with it all that was to be added; one that has ended keeps its id."""
    store.add_all([Entry("one"), Entry("two")])
    with pytest.raises(QueueError) as refused:
        store.add_all([Entry("three"), Entry("two")])
    assert str(refused.value) == (
        "QueueError: the run two is in the queue already\n"
        f"  where  {store.path}\n"
        "  why    it is entry 2, queued, and a run has one directory\n"
        "  try    name=two-2 for another run"
    )
    assert ["one", "two"] == [entry.name for entry in store.all()]
    store.update(2, state="failed", note="RunError", attempts=3)
    again = store.add(Entry("two"))
    assert (2, "queued", "", 0) == (again.id, again.state, again.note, again.attempts)


def test_one_of_many_claims_wins(store: Store) -> None:
    """Of 16 connections that claim the same entry at once, one has it."""
    store.add(Entry("one"))
    gate = threading.Barrier(16)

    def claim(number: int) -> bool:
        with Store(store.path) as mine:
            entry = mine.get(1)
            gate.wait()
            return mine.claim(entry, ME, f"token {number}", "cpu", ()) is not None

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(claim, range(16)))
    assert 1 == sum(won)
    assert ("starting", f"token {won.index(True)}", 1) == (
        store.get(1).state, store.get(1).token, store.get(1).attempts,
    )  # fmt: skip


def test_a_place_that_was_chosen_beside_others_than_those_that_run_is_not_taken(store: Store) -> None:
    """Two queues that both saw an empty device: the second claim fails, and succeeds once it knows of the first."""
    one, two = store.add_all([Entry("one"), Entry("two")])
    assert store.claim(one, ME, "first", "cpu", ())
    assert store.claim(two, ME, "second", "cpu", ()) is None
    assert store.claim(two, ME, "second", "cpu", ("first",))


def test_an_update_is_made_by_its_attempt_only(store: Store) -> None:
    """Another state, or another token, changes nothing."""
    store.claim(store.add(Entry("one")), ME, "now", "cpu", ())
    assert store.update(1, ("queued",), state="failed") is None
    assert store.update(1, ("starting",), attempt="before", state="running") is None
    assert store.update(1, ("starting",), attempt="now", state="running") == store.get(1)
    assert "running" == store.get(1).state
    assert store.update(9, state="failed") is None


def test_what_runs_cannot_be_removed(store: Store) -> None:
    """The others can; and what is not there is said."""
    store.claim(store.add_all([Entry("one"), Entry("two")])[0], ME, "token", "cpu", ())
    assert ["two"] == [entry.name for entry in store.remove([1, 2, 3])]
    assert "one" == store.get(1).name
    with pytest.raises(QueueError) as missing:
        store.get(2)
    assert str(missing.value) == (
        f"QueueError: the queue has no entry 2\n  where  {store.path}\n"
        "  try    `ganeum queue list` shows those there are"
    )


def test_what_is_finished_may_be_cleaned_away_before_what_comes_after_it(store: Store) -> None:
    """It is not waited for any more, in the list and beside the run; what has not finished still is missed."""
    (store.results / "last" / "queued").mkdir(parents=True)
    store.add_all([Entry("one", state="finished"), Entry("two", state="failed"), Entry("last", after=(1, 2))])
    store.remove([1, 2])
    assert (2,) == store.get(3).after
    assert [(2,)] == [entry.after for entry, _ in mirror.read(store.results)]


def test_a_list_that_is_not_ours_to_write_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose it is can be looked up; `rebuild` ends so too, and not in a traceback."""
    said = (
        f"QueueError: the queue cannot be written by this user\n  where  {store.path}\n  why    {{}}\n"
        f"  try    `ls -la {store.results}` says whose it is; GANEUM_RESULTS names another directory"
    )
    store._db.execute("PRAGMA query_only = 1")
    with pytest.raises(QueueError) as readonly:
        store.add(Entry("one"))
    assert said.format("attempt to write a readonly database") == str(readonly.value)

    def refused(self: Path, target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self), None, str(target))

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(QueueError) as denied:
        rebuild(store.path)
    assert said.format("Permission denied") == str(denied.value)


def test_what_was_written_outlives_a_power_cut(store: Store) -> None:
    """SQLite waits for the disk with each transaction, not only with each checkpoint of its WAL."""
    assert ("wal", 2) == tuple(
        store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
    )


def test_a_locked_list_is_said_and_left_as_it_is(store: Store) -> None:
    """Another process's transaction that does not end: an error after the time one is willing to wait."""
    store.add(Entry("one"))
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store(store.path, patience_s=0.05) as hasty:
        with pytest.raises(QueueError) as locked:
            hasty.update(1, state="paused")
        assert "locked" == locked.value.kind
        assert str(locked.value) == (
            f"QueueError: the queue is locked by another process\n  where  {store.path}\n"
            f"  why    database is locked\n  try    the same command again; `fuser {store.path}` names the process"
        )
        assert "queued" == hasty.get(1).state
        other.execute("ROLLBACK")
        assert hasty.update(1, state="paused")
    other.close()


def test_a_full_disk_is_said_and_leaves_the_list_as_it_is(store: Store) -> None:
    """SQLite itself is told that there is no more room than the pages it has."""
    store.add(Entry("one"))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(QueueError) as full:
        store.add_all([Entry(f"run {number}", note="x" * 500) for number in range(100)])
    assert "full" == full.value.kind
    assert str(full.value) == (
        f"QueueError: the queue cannot be written: the disk is full\n  where  {store.path}\n  try    make room on it"
    )
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert ["one"] == [entry.name for entry in store.all()]
    assert store.update(1, state="paused")


@pytest.mark.parametrize("damage", ["all", "end"])
def test_a_damaged_list_is_said_and_made_again(store: Store, damage: str) -> None:
    """Nothing is lost: each entry stands beside its run too, as it last was; the damaged list is kept."""
    for name in ("one", "two"):
        (store.results / name / "queued").mkdir(parents=True)
    one, _ = store.add_all([Entry("one", priority=2), Entry("two", after=(1,))])
    store.claim(one, ME, "token", "cpu", ())
    before = store.all()
    store.close()
    content = store.path.read_bytes()
    store.path.write_bytes(b"?" * len(content) if damage == "all" else content[: len(content) // 2])
    with pytest.raises(QueueError) as damaged:
        Store(store.path)
    assert "damaged" == damaged.value.kind
    assert "  try    `ganeum queue rebuild` puts it aside" in str(damaged.value)
    assert (store.path.with_name("queue.sqlite.damaged"), 2) == rebuild(store.path)
    with Store(store.path) as again:
        assert before == again.all()
        assert 3 == again.add(Entry("three")).id


def test_a_list_that_was_deleted_comes_back_from_the_runs(store: Store) -> None:
    """Also under the hands of a process that has it open: it goes on with the new one."""
    (store.results / "one" / "queued").mkdir(parents=True)
    store.add(Entry("one"))
    seen = store.changes()
    for file in store.results.glob("queue.sqlite*"):
        file.unlink()
    assert store.changes() != seen
    assert ["one"] == [entry.name for entry in store.all()]


def test_a_list_made_anew_that_is_locked_at_first_is_opened_later(store: Store) -> None:
    """Deleted under the hands of a process that has it open, and taken by another before that could look."""
    (store.results / "one" / "queued").mkdir(parents=True)
    store.add(Entry("one"))
    with Store(store.path, patience_s=0.05) as hasty:
        for file in store.results.glob("queue.sqlite*"):
            file.unlink()
        other = sqlite3.connect(store.path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(QueueError, match="the queue is locked by another process"):
            hasty.changes()
        other.execute("ROLLBACK")
        other.close()
        hasty.changes()
        assert ["one"] == [entry.name for entry in hasty.all()]


def test_a_newer_list_is_refused_and_an_older_one_completed(tmp_path: Path) -> None:
    """A column that an older version did not have is added with its default."""
    path = tmp_path / "queue.sqlite"
    with Store(path) as store:
        store.add(Entry("one"))
        store._db.execute('ALTER TABLE entries DROP COLUMN "retries"')
    with Store(path) as store:
        assert 0 == store.get(1).retries
        store._db.execute("PRAGMA user_version = 99")
    with pytest.raises(QueueError, match="the queue was written by a newer ganeum"):
        Store(path)


def test_managers_that_died_are_forgotten(store: Store) -> None:
    """Only those that are alive are listed."""
    store.enrol(replace(ME, started=ME.started - 1))
    assert [] == store.managers()
    store.enrol(ME)
    assert [ME] == [manager.identity for manager in store.managers()]
    store.leave(ME)
    assert [] == store.managers()
