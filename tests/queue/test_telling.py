"""People are told how a run ended: once, whoever saw it, also where no queue process was there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from at_work import add, history, queue_process, states, two, until, work

from ganeum.queue import control, manager
from ganeum.queue.enqueue import from_list
from ganeum.queue.entry import Entry
from ganeum.queue.experiments import read_list
from ganeum.queue.process import Identity
from ganeum.queue.settle import settle
from ganeum.queue.store import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX")


def another(store: Store) -> None:
    """A queue process that works on the list besides, and may have somebody to tell."""
    parent = Identity.of(os.getppid())
    assert parent is not None
    store.enrol(parent)


def test_each_end_is_told_once(store: Store) -> None:
    """What finishes, fails or is held; a second queue process has nothing left to tell."""
    add(store, "one")
    bad = add(store, "bad", "failing")
    add(store, "after_bad", after=(bad.id,))
    told: list[str] = []
    tell = lambda entry: told.append(f"{entry.name} {entry.state}")  # noqa: E731
    work(store, tell=tell)
    assert ["after_bad held", "bad failed", "one finished"] == sorted(told)
    work(store, tell=tell)
    assert 3 == len(told)


def test_of_two_queues_one_tells(store: Store) -> None:
    """Both see that it has ended."""
    add(store, "one")
    another(store)
    work(store)
    told: list[str] = []
    queues = [manager.Manager(Store(store.path), two, tell=lambda entry: told.append(entry.name)) for _ in range(2)]
    for queue in queues:
        queue._read()
    for queue in queues:
        queue._tell_people()
        queue.store.close()
    assert ["one"] == told


def test_what_ended_while_no_queue_was_there_is_told_by_the_next(store: Store) -> None:
    """`ganeum queue kill` without one, and a queue that was killed before it could tell."""
    entry = add(store, "one", "slow")
    queue = queue_process()
    until(lambda: any("begins" in line for line in history()))
    queue.kill()
    queue.wait()
    asked = control.kill(store, store.get(entry.id))
    control.finish(store, asked, grace_s=20)
    assert "killed" == store.get(entry.id).state
    told: list[str] = []
    said = work(store, tell=lambda entry: told.append(entry.name))
    assert ["one"] == told
    assert 1 == sum(line.startswith("while no queue process was there: one was killed") for line in said)


def test_a_queue_with_nobody_to_tell_leaves_it_to_another_for_a_while(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then lets it be: who asks to be told next month hears nothing of today."""
    add(store, "one")
    another(store)
    work(store)
    assert store.get(1).untold is not None
    monkeypatch.setattr(manager, "LET_BE_S", 0.0)
    work(store)
    assert store.get(1).untold is None


def test_what_a_queue_saw_end_itself_is_not_said_to_have_ended_unseen(store: Store) -> None:
    """It had nobody to tell and was the only one: the next says nothing of it, and has nobody told."""
    add(store, "one")
    work(store)
    add(store, "two")
    told: list[str] = []
    said = work(store, tell=lambda entry: told.append(entry.name))
    assert ["two"] == told
    assert [] == [line for line in said if "one" in line or "while no queue" in line]


def test_what_was_queued_again_is_not_told(store: Store) -> None:
    """It failed, and somebody was there before anybody was told."""
    add(store, "one", "failing")
    work(store)
    control.retry(store, store.get(1))
    control.pause(store, store.get(1))
    told: list[Entry] = []
    work(store, tell=told.append)
    assert [] == told
    assert store.get(1).untold is None


def test_what_ctrl_c_has_ended_goes_on_and_is_told_to_nobody(store: Store) -> None:
    """It is interrupted and not paused, also where the queue is killed before it has seen the end: the next start of
    its list goes on with it."""
    entry = add(store, "one", "slow")
    stop = threading.Event()
    threading.Thread(target=lambda: (until(lambda: any("begins" in x for x in history())), stop.set())).start()
    work(store, stop=stop)
    asked = control.interrupt(store, store.get(entry.id))
    until(lambda: Path("history").read_text().count("interrupted by SIGTERM") == 1)
    until(lambda: settle(store, store.get(entry.id)) is not None)
    ended = store.get(entry.id)
    assert "interrupt" == asked.wanted
    assert ("interrupted", "starting the list again goes on with it", None) == (ended.state, ended.note, ended.untold)
    assert "queued" == control.resume(store, ended).state
    Path("go").touch()
    work(store)
    assert {"one": "finished"} == states(store)


def test_the_list_started_again_before_ctrl_c_has_ended_its_run(store: Store) -> None:
    """It still writes its checkpoint: it ends, as it was asked to, and goes on."""
    entry = add(store, "one", "slow")
    queue = queue_process()
    until(lambda: any("begins" in line for line in history()))
    queue.kill()
    queue.wait()
    control.interrupt(store, store.get(entry.id))
    Path("list.conf").write_text("config.yaml name=one\n")
    [again] = from_list(store, read_list(Path("list.conf")))
    assert again is not None
    assert "" == again.wanted
    Path("go").touch()
    work(store, only=[entry.id])
    assert {"one": "finished"} == states(store)
    assert ["one begins with auto", "one interrupted by SIGTERM", "one begins with auto", "one finished"] == history()


def test_what_is_interrupted_before_its_process_is_there(store: Store) -> None:
    """Ctrl-C in the moment in which a run starts."""
    entry = add(store, "one")
    queue = manager.Manager(store, two)
    assert store.claim(entry, queue.me, "t", "cpu", ())
    control.interrupt(store, store.get(entry.id))
    queue._read()
    queue._bring_up_to_date()
    assert "interrupted" == store.get(entry.id).state
