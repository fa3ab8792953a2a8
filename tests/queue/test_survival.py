"""Queues, runs and machines that die: what ran is found again, and nothing is trained twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from at_work import PRETEND, add, history, queue_process, states, until, work

from ganeum.queue import freeze, process
from ganeum.queue.process import Identity
from ganeum.queue.settle import identity, settle
from ganeum.queue.store import Store

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX")


def test_killed_while_runs_go_on_the_next_queue_adopts_them(store: Store) -> None:
    """kill -9 of the queue: its run goes on, is not started again, and its end is recorded by the next."""
    entry = add(store, "one", "slow")
    first = queue_process()
    until(lambda: history() and store.get(entry.id).state == "running")
    before = store.get(entry.id)
    first.kill()
    first.wait()
    assert before.token
    assert process.is_alive(identity(before), before.token, freeze.config_path(store.run(before)))  # type: ignore[arg-type]
    second = queue_process()
    time.sleep(1.0)
    assert before == store.get(entry.id)
    Path("go").touch()
    assert 0 == second.wait(60)
    assert ["one begins with auto", "one finished"] == history()
    after = store.get(entry.id)
    assert ("finished", 0, 1) == (after.state, after.exit_status, after.attempts)


def test_killed_between_claiming_and_starting(store: Store) -> None:
    """A claimed entry without a process is given back, once its manager is dead and not before."""
    entry = add(store, "one")
    dead = replace(Identity.of_this_process(), started=1.0)
    claimed = store.claim(entry, dead, "token", "cpu", ())
    assert claimed
    work(store)
    assert ("finished", 2) == (store.get(entry.id).state, store.get(entry.id).attempts)


def test_a_process_whose_entry_was_given_back_trains_nothing(store: Store) -> None:
    """It was started, its queue died, and another gave the entry back before it could take it."""
    entry = add(store, "one")
    store.claim(entry, replace(Identity.of_this_process(), started=1.0), "old", "cpu", ())
    assert settle(store, store.get(entry.id))
    child = [sys.executable, "-m", "ganeum.queue.child", str(store.path), str(entry.id), "old", *PRETEND]
    assert 75 == subprocess.run([*child, str(freeze.config_path(store.run(entry)))], check=False).returncode
    assert [] == history()
    assert "queued" == store.get(entry.id).state


@pytest.mark.slow
def test_two_queues_on_one_list_train_each_run_once(store: Store) -> None:
    """Twelve runs, three queues: each begins once and finishes, never more than two at once."""
    for number in range(12):
        add(store, f"run{number}")
    queues = [queue_process() for _ in range(3)]
    assert [0, 0, 0] == [queue.wait(120) for queue in queues]
    assert {"finished"} == set(states(store).values())
    assert 12 == sum("begins" in line for line in history())
    assert {1} == {entry.attempts for entry in store.all()}


def test_another_process_with_the_same_id_is_not_the_run(store: Store) -> None:
    """An id is given out again: the process that has it now started at another moment, and is left alone."""
    entry = add(store, "one")
    me = Identity.of_this_process()
    store.claim(entry, me, "token", "cpu", ())
    store.update(entry.id, state="running", pid=me.pid, started=me.started - 1, boot_id=me.boot_id)
    settled = settle(store, store.get(entry.id))
    assert settled
    assert ("queued", "it ended without a word: tried again") == (settled.state, settled.note)


def test_after_a_restart_of_the_machine_a_run_is_resumed(store: Store) -> None:
    """Another boot: whatever has its id, it is interrupted and goes on, and that is not counted against it."""
    entry = add(store, "one")
    me = Identity.of_this_process()
    store.claim(entry, me, "token", "cpu", ())
    store.update(entry.id, state="running", pid=me.pid, started=me.started, boot_id="the boot before")
    store.run(entry).checkpoint_dir(4).mkdir(parents=True)
    (store.run(entry).path / "config.yaml").write_bytes(freeze.config_path(store.run(entry)).read_bytes())
    settled = settle(store, store.get(entry.id))
    assert settled
    assert ("queued", "the machine was started anew: goes on at step 4", 0) == (
        settled.state, settled.note, settled.retries,
    )  # fmt: skip
    work(store)
    assert "finished" == store.get(entry.id).state


def test_a_training_whose_parent_was_killed_alone_is_waited_for(store: Store) -> None:
    """It still trains: it is not started a second time, and what it says in the end counts."""
    entry = add(store, "one", "slow")
    first = queue_process()
    until(lambda: history() and store.get(entry.id).state == "running")
    first.kill()
    first.wait()
    os.kill(store.get(entry.id).pid or 0, signal.SIGKILL)
    assert settle(store, store.get(entry.id)) is None
    second = queue_process()
    time.sleep(1.0)
    Path("go").touch()
    assert 0 == second.wait(60)
    assert ["one begins with auto", "one finished"] == history()
    assert "finished" == store.get(entry.id).state


def test_a_data_worker_that_is_left_alone_keeps_nobody_waiting(store: Store) -> None:
    """Its training and the first process of the attempt are killed: the worker is ended, and the run goes on."""
    entry = add(store, "one", "with_workers")
    first = queue_process()
    until(lambda: Path("worker").exists() and Path("worker").read_text())
    worker = int(Path("worker").read_text())
    for one in process.members(store.get(entry.id).token or ""):
        if one.pid != worker:
            one.kill()
    until(lambda: not psutil.pid_exists(worker))
    Path("go").touch()
    assert 0 == first.wait(60)
    assert ["one begins with auto", "one begins with auto", "one finished"] == history()


@pytest.mark.parametrize(
    ("how", "grace_s", "exit_status"), [("slow", 60.0, 143), ("stubborn", 0.5, -9), ("with_workers", 60.0, 143)]
)
def test_ending_a_run_ends_all_of_it(store: Store, how: str, grace_s: float, exit_status: int) -> None:
    """SIGTERM, which lets it write a checkpoint; SIGKILL where it does not listen; its workers end with it."""
    entry = add(store, "one", how)
    stop = threading.Event()

    def kill() -> None:
        with Store(store.path) as mine:
            until(lambda: any("begins" in line for line in history()))
            until(lambda: how != "with_workers" or (Path("worker").exists() and Path("worker").read_text()))
            mine.update(entry.id, ("running",), wanted="kill")

    asking = threading.Thread(target=kill)
    asking.start()
    work(store, grace_s=grace_s, stop=stop)
    asking.join()
    ended = store.get(entry.id)
    assert ("killed", "") == (ended.state, ended.note)
    if exit_status != -9:
        assert "one interrupted by SIGTERM" in history()
        assert exit_status == ended.exit_status
    if how == "with_workers":
        until(lambda: not psutil.pid_exists(int(Path("worker").read_text())))
