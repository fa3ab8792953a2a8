"""What people ask of entries that do not run: other hours, another order."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ganeum.errors import QueueError
from ganeum.queue import control, mirror
from ganeum.queue.entry import Entry, State
from ganeum.queue.process import Identity
from ganeum.queue.settle import settle
from ganeum.queue.store import Store
from ganeum.record import read_json


@pytest.mark.parametrize(
    ("state", "hours", "after"), [("interrupted", 2.0, 0.0), ("interrupted", 1.5, 1.5), ("paused", 0.5, 0.5)]
)
def test_resumed_it_has_its_hours_again_where_they_were_over(
    store: Store, state: State, hours: float, after: float
) -> None:
    """Those were why it waits; what is left of them is all that the others have."""
    entry = store.add(Entry("one", state=state, max_hours=2.0, hours=hours, not_before=5.0, wanted="pause"))
    resumed = control.resume(store, entry)
    assert ("queued", after, None, "") == (resumed.state, resumed.hours, resumed.not_before, resumed.wanted)


@pytest.mark.parametrize("state", ["failed", "killed", "interrupted", "held"])
def test_retried_it_has_all_its_hours_and_starts_again(store: Store, state: State) -> None:
    """As if it had just been added; its checkpoint stays, and how many starts there were."""
    entry = store.add(Entry("one", max_hours=2.0, hours=1.5, retries=3, attempts=4))
    store.update(entry.id, state=state, note="why", error_tail="log", exit_status=2)
    again = control.retry(store, store.get(entry.id))
    assert ("queued", 0.0, 0, 4, "", "", None) == (
        again.state, again.hours, again.retries, again.attempts, again.note, again.error_tail, again.exit_status,
    )  # fmt: skip


def test_hours_of_an_attempt_that_nobody_saw_end_count_to_its_last_sign_of_life(store: Store) -> None:
    """A power cut, once an hour, would else make the hours endless."""
    entry = store.add(Entry("one"))
    assert store.claim(entry, Identity.of_this_process(), "t", "cpu", ())
    run = store.run(entry)
    run.queued_dir.mkdir(parents=True)
    run.queue_log_path.write_text("step 1\n")
    now = time.time()
    os.utime(run.queue_log_path, (now - 600, now - 600))
    running = store.update(entry.id, state="running", boot_id="before", started_at=now - 4200)
    assert running is not None
    settled = settle(store, running)
    assert settled is not None
    assert 1.0 == pytest.approx(settled.hours, abs=0.01)


def names(store: Store) -> list[str]:
    return [entry.name for entry in store.all() if entry.state != "finished"]


def test_a_place_in_the_order(store: Store) -> None:
    """Before and behind another, with its priority; at the end; in the order given."""
    a, b, c, d = store.add_all([Entry("a", priority=2), Entry("b"), Entry("c"), Entry("d")])
    assert ["d"] == [entry.name for entry in control.move(store, [d], to=a)]
    assert ["d", "a", "b", "c"] == names(store)
    assert 2 == store.get(d.id).priority
    control.move(store, [c, d], to=b, behind=True)
    assert ["a", "b", "c", "d"] == names(store)
    control.move(store, [b, a], to=None)
    assert ["c", "d", "b", "a"] == names(store)
    store.update(d.id, state="finished")
    with pytest.raises(QueueError) as gone:
        control.move(store, [a], to=d)
    assert str(gone.value) == "QueueError: nothing can be put beside 4 (d): it is finished"
    assert ["c", "b", "a"] == names(store)


def test_those_who_move_at_once_do_not_tear_the_order(store: Store) -> None:
    """Each move is one transaction on the list as it is then: whatever was last, its entry stands at the front."""
    entries = store.add_all([Entry(f"run{number}") for number in range(8)])

    def to_the_front(number: int) -> None:
        with Store(store.path) as mine:
            for _ in range(5):
                rest = [entry for entry in mine.all() if entry.id != entries[number].id]
                control.move(mine, [entries[number]], to=rest[0])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(to_the_front, range(4)))
    orders = [entry.order for entry in store.all()]
    assert [float(order) for order in range(1, 9)] == orders
    assert sorted(names(store)) == [entry.name for entry in entries]


def test_an_older_state_is_never_put_over_a_newer_one_beside_the_run(store: Store) -> None:
    """Adding ends after a queue process has already claimed the first: what stands beside its run is the claim."""
    entry = store.add(Entry("one"))
    store.run(entry).queued_dir.mkdir(parents=True)
    assert store.claim(entry, Identity.of_this_process(), "t", "cpu", ())
    store.mirror(entry.id)
    for file in Path(store.path.parent).glob("queue.sqlite*"):
        file.unlink()
    store.changes()
    assert ("starting", "t") == (store.get(entry.id).state, store.get(entry.id).token)


def test_all_that_wait_change_in_one_transaction(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paused, resumed, killed and taken back, beside their runs too, with no wait for the disk but the list's own."""
    entries = store.add_all([Entry(f"run{number}") for number in range(200)])
    store.run(entries[0]).queued_dir.mkdir(parents=True)
    flushed: list[int] = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    begun: list[str] = []
    store._db.set_trace_callback(lambda statement: begun.append(statement) if statement.startswith("BEGIN") else None)
    for act, state in (
        (control.pause, "paused"), (control.resume, "queued"), (control.kill, "killed"), (control.retry, "queued")
    ):  # fmt: skip
        changed, errors = control.each(store, entries, act)
        assert (200, [], {state}) == (len(changed), errors, {entry.state for entry in store.all()})
    assert (4, []) == (len(begun), flushed)
    assert "queued" == read_json(store.run(entries[0]).queued_dir / mirror.ENTRY)["state"]


def test_of_many_that_are_changed_together_a_full_disk_changes_none(store: Store) -> None:
    """Half of them would leave a night as nobody meant it."""
    entries = store.add_all([Entry(f"run{number}") for number in range(100)])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(QueueError) as full:
        control.each(store, entries, lambda store, entry: control.kill(store, entry, "x" * 500))
    assert ("full", {"queued"}) == (full.value.kind, {entry.state for entry in store.all()})
