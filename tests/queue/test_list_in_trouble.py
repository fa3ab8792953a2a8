"""A list that is lost, locked or on a full disk, and a clock that jumps, while runs go on."""

from __future__ import annotations

import itertools
import os
import shutil
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from at_work import add, history, queue_process, states, until, work

from ganeum.errors import QueueError
from ganeum.queue import freeze
from ganeum.queue.store import Store, rebuild

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX")


def test_a_frozen_config_is_kept_twice(store: Store) -> None:
    """In the list and beside the run: gone or edited there it is written anew; gone from both, it has failed."""
    gone, edited, lost = add(store, "gone"), add(store, "edited"), add(store, "lost")
    shutil.rmtree(store.run(gone).queued_dir)
    freeze.config_path(store.run(edited)).write_text("data: {directory: failing}\ntrain: {max_iters: 10}\n")
    freeze.config_path(store.run(lost)).unlink()
    store._db.execute("DELETE FROM configs WHERE entry = ?", (lost.id,))
    work(store)
    assert {"gone": "finished", "edited": "finished", "lost": "failed"} == states(store)
    assert "the config of lost as it was queued is gone" == store.get(lost.id).note


def test_a_list_that_is_lost_while_runs_go_on(store: Store) -> None:
    """Made again from beside the runs: the one that goes on is adopted, the other starts, none is trained twice."""
    one = add(store, "one", "slow")
    first = queue_process()
    until(lambda: history() and store.get(one.id).state == "running")
    first.kill()
    first.wait()
    add(store, "two")
    store.path.write_bytes(b"?" * 8192)
    rebuild(store.path)
    store.changes()
    assert {"one": "running", "two": "queued"} == states(store)
    second = queue_process()
    until(lambda: "two finished" in history())
    Path("go").touch()
    assert 0 == second.wait(60)
    assert {"one": "finished", "two": "finished"} == states(store)
    assert 1 == history().count("one begins with auto")


def test_a_locked_list_is_waited_for(store: Store) -> None:
    """Another program's transaction holds everything up for a while: said once, and then all goes on."""
    add(store, "one")
    other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(1.5, lambda: other.execute("ROLLBACK")).start()
    with Store(store.path, patience_s=0.05) as hasty:
        said = work(hasty)
    assert 1 == said.count("the queue is locked by another process; waiting")
    assert {"one": "finished"} == states(store)
    other.close()


def test_a_full_disk_is_waited_for(store: Store) -> None:
    """Said once; nothing is lost, and once there is room it goes on."""
    add(store, "one")
    said: list[str] = []
    with Store(store.path) as full:

        def say(text: str) -> None:
            said.append(text)
            if "full" in text:
                full._db.execute("PRAGMA max_page_count = 1000000")

        full._db.execute(f"PRAGMA max_page_count = {full._db.execute('PRAGMA page_count').fetchone()[0]}")
        for size in (3000, 100, 1):
            with suppress(QueueError):
                while True:
                    full.log("filler", "x" * size)
        work(full, say=say)
    assert 1 == said.count("the queue cannot be written: the disk is full; waiting")
    assert {"one": "finished"} == states(store)
    assert 1 == history().count("one begins with auto")


@pytest.mark.slow
def test_a_clock_that_jumps_changes_nothing(store: Store) -> None:
    """By years, forwards and back, at every look: each run is trained once, and its hours are those of its process."""
    for number in range(3):
        add(store, f"run{number}", max_hours=1.0)
    killed = add(store, "killed", "killed")
    years = itertools.cycle([0.0, 3e8, -3e8, 5e7])
    store.clock = lambda: time.time() + next(years)
    work(store)
    assert {"run0": "finished", "run1": "finished", "run2": "finished", "killed": "failed"} == states(store)
    assert 3 == sum(line.startswith("run") and "begins" in line for line in history())
    assert all(entry.hours < 0.1 for entry in store.all())
    assert 4 == store.get(killed.id).attempts
