"""The queue's processes: killed at any moment, several at once, and still every run is trained once and to its end."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from at_work import PRETEND, add, history, queue_process, states, until, work

from ganeum.errors import QueueError
from ganeum.queue import freeze, manager, process
from ganeum.queue.process import Identity
from ganeum.queue.settle import identity, settle, tail
from ganeum.queue.store import Store, rebuild

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX")


def test_a_night(store: Store) -> None:
    """What can be trained is, what fails stops nothing, what comes after a failure is held with the reason."""
    one = add(store, "one")
    bad = add(store, "bad", "failing")
    add(store, "after_bad", after=(bad.id,))
    add(store, "after_one", after=(one.id,))
    ended: list[str] = []
    said = work(store, on_end=lambda entry: ended.append(f"{entry.name} {entry.state}"))
    assert {"one": "finished", "bad": "failed", "after_bad": "held", "after_one": "finished"} == states(store)
    assert sorted(["one finished", "bad failed", "after_bad held", "after_one finished"]) == sorted(ended)
    assert "bad failed: RunError: the loss is NaN (2 steps)" in said
    assert "after_bad is held: after bad (2), which is failed" in said
    assert store.get(bad.id).error_tail == (
        "step 2\nRunError: the loss is NaN\n  where  step 2\n  try    a lower learning rate"
    )
    assert history().index("one finished") < history().index("after_one begins with auto")


def test_it_says_when_nothing_is_left_once_for_each_time(store: Store) -> None:
    """A queue that stays: what is added in the meantime is another night, and an idle queue none."""
    add(store, "one")
    idle: list[dict[str, str]] = []
    stop = threading.Event()

    def on_idle() -> None:
        idle.append(states(store))
        if len(idle) == 1:
            with Store.default() as another:  # a user's
                add(another, "two")
        else:
            threading.Timer(0.5, stop.set).start()

    work(store, until_empty=False, stop=stop, on_idle=on_idle)
    assert [{"one": "finished"}, {"one": "finished", "two": "finished"}] == idle


def test_the_config_is_frozen_when_it_is_queued(store: Store) -> None:
    """What is edited afterwards changes nothing."""
    entry = add(store, "one")
    Path("config.yaml").write_text("data: {directory: failing}\ntrain: {max_iters: 3}\n")
    work(store)
    assert "finished" == store.get(entry.id).state


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


@pytest.mark.parametrize(("how", "exit_status"), [("slow", 143), ("stubborn", -9), ("with_workers", 143)])
def test_ending_a_run_ends_all_of_it(store: Store, how: str, exit_status: int) -> None:
    """SIGTERM, which lets it write a checkpoint; SIGKILL where it does not listen; its workers end with it."""
    entry = add(store, "one", how)
    stop = threading.Event()

    def kill() -> None:
        with Store(store.path) as mine:
            until(lambda: any("begins" in line for line in history()))
            time.sleep(0.3)
            mine.update(entry.id, ("running",), wanted="kill")

    asking = threading.Thread(target=kill)
    asking.start()
    work(store, grace_s=1.5, stop=stop)
    asking.join()
    ended = store.get(entry.id)
    assert ("killed", "") == (ended.state, ended.note)
    if exit_status != -9:
        assert "one interrupted by SIGTERM" in history()
        assert exit_status == ended.exit_status
    if how == "with_workers":
        until(lambda: not psutil.pid_exists(int(Path("worker").read_text())))


def test_hours_that_are_over_end_a_run_with_a_checkpoint(store: Store) -> None:
    """It is not tried again by itself."""
    entry = add(store, "one", "slow", max_hours=4 / 3600)
    said = work(store)
    ended = store.get(entry.id)
    assert ("interrupted", "its 4.0 s are over at step 3") == (ended.state, ended.note)
    assert "one: its 4.0 s are over" in said
    assert ended.hours >= 4 / 3600


def test_killed_again_and_again_it_fails_in_the_end(store: Store) -> None:
    """Four attempts, each killed at once."""
    entry = add(store, "one", "killed")
    work(store)
    ended = store.get(entry.id)
    assert ("failed", "killed (SIGKILL); tried 4 times", 4) == (ended.state, ended.note, ended.attempts)


def test_killed_for_want_of_memory_it_is_tried_with_half_the_micro_batch(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch stays; the config of the run and the frozen one say the same; the second such kill is the last."""
    entry = add(store, "one", "killed", overrides=["micro_batch_size=8"])
    killed = "it was probably killed for want of the machine's memory"
    monkeypatch.setattr("ganeum.record.deaths.explained", lambda status: killed)
    work(store)
    ended = store.get(entry.id)
    assert ["one begins with 8", "one begins with 4"] == history()
    assert ("failed", f"{killed}, once more (it held up to 0.0 GiB)", 4) == (
        ended.state, ended.note, ended.micro_batch_size,
    )  # fmt: skip
    said = f"{killed} (it held up to 0.0 GiB); once more with 4 at once, the batch as it was"
    assert said in [event.text for event in store.events()]
    assert (8, 4) == (
        freeze.frozen_config(store.run(entry)).train.batch_size,
        freeze.frozen_config(store.run(entry)).train.micro_batch_size,
    )


def test_a_run_that_was_paused_goes_on(store: Store) -> None:
    """It writes a checkpoint and releases its place; queued again, it finishes."""
    entry = add(store, "one", "slow")
    first = queue_process()
    until(lambda: history() and store.get(entry.id).state == "running")
    time.sleep(0.3)
    store.update(entry.id, ("running",), wanted="pause")
    assert 0 == first.wait(60)
    paused = store.get(entry.id)
    assert ("paused", "", None, 3) == (paused.state, paused.note, paused.token, paused.step)
    store.update(entry.id, ("paused",), state="queued")
    Path("go").touch()
    work(store)
    assert ("finished", 2) == (store.get(entry.id).state, store.get(entry.id).attempts)


def test_what_was_asked_before_its_process_was_there(store: Store) -> None:
    """Killed while it was starting: its process trains nothing."""
    entry = add(store, "one")
    assert store.claim(entry, Identity.of_this_process(), "token", "cpu", ())
    store.update(entry.id, ("starting",), wanted="kill")
    child = [sys.executable, "-m", "ganeum.queue.child", str(store.path), str(entry.id), "token", *PRETEND]
    subprocess.run([*child, str(freeze.config_path(store.run(entry)))], check=False)
    settled = settle(store, store.get(entry.id))
    assert settled
    assert ("killed", []) == (settled.state, history())


def test_a_queue_that_is_stopped_leaves_its_runs_alone(store: Store) -> None:
    """They go on, and the next one records their end."""
    entry = add(store, "one", "slow")
    stop = threading.Event()
    threading.Timer(2.0, stop.set).start()
    work(store, stop=stop)
    until(lambda: history())
    running = store.get(entry.id)
    assert "running" == running.state
    assert identity(running).is_alive()  # type: ignore[union-attr]
    Path("go").touch()
    work(store)
    assert "finished" == store.get(entry.id).state


def test_what_can_never_take_its_entry_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken installation, say: four starts, and the end of what they printed."""
    entry = add(store, "one")
    broken = Path("broken")
    broken.write_text("#!/bin/sh\necho No module named ganeum\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(manager.sys, "executable", str(broken.resolve()))
    monkeypatch.setattr(manager, "RETRY_S", 0.0)
    work(store)
    failed = store.get(entry.id)
    assert ("failed", "its process could not take it: see its log") == (failed.state, failed.note)
    assert (4, "No module named ganeum") == (failed.attempts, failed.error_tail)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no PYTHONSAFEPATH")
def test_files_where_the_user_stood_are_no_modules(store: Store) -> None:
    """A `signal.py` or another ganeum in the directory from which the run was queued."""
    entry = add(store, "one")
    Path("signal.py").write_text("raise SystemExit('not this one')")
    work(store)
    assert "finished" == store.get(entry.id).state


def test_a_directory_that_is_gone_fails_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user stood when the run was queued: without it no path of its config leads anywhere."""
    add(store, "one")
    entry = add(store, "lost", cwd="/no/such/place")
    monkeypatch.setattr(manager, "RETRY_S", 0.0)
    work(store)
    assert {"one": "finished", "lost": "failed"} == states(store)
    assert "its process cannot be started: No such file or directory: /no/such/place" == store.get(entry.id).note


def test_changed_code_is_said_and_holds_a_strict_entry(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others start, with a word about it; the strict one starts once the code is what it was."""
    add(store, "one")
    strict = add(store, "two", strict=True)
    monkeypatch.setattr(freeze, "code_sha", lambda: "another")
    said = work(store)
    assert {"one": "finished", "two": "held"} == states(store)
    assert any("one started on cpu; uncommitted code has changed since it was queued" in line for line in said)
    assert store.get(strict.id).note.startswith("uncommitted code has changed")
    monkeypatch.undo()
    os.environ["GANEUM_RESULTS"] = str(store.results)
    work(store)
    assert "finished" == store.get(strict.id).state


def test_a_process_that_cannot_be_started_is_tried_later(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for another process: the entry goes back to the queue, with the reason."""
    entry = add(store, "one")

    def refused(*words: object, **settings: object) -> None:
        stop.set()
        raise OSError(12, "Cannot allocate memory")

    stop = threading.Event()
    monkeypatch.setattr(manager.subprocess, "Popen", refused)
    work(store, stop=stop)
    back = store.get(entry.id)
    assert ("queued", "its process cannot be started: Cannot allocate memory") == (back.state, back.note)
    assert back.not_before
    assert back.not_before > time.time() + 30


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


def test_the_log_keeps_every_attempt_and_shows_the_last(store: Store) -> None:
    """With what a live line was overwritten by, and without a terminal's control characters."""
    entry = add(store, "one", "killed")
    work(store)
    run = store.run(entry)
    assert 4 == run.queue_log_path.read_text().count("=== attempt ")
    with run.queue_log_path.open("a") as log:
        log.write("=== attempt 5, now ===\nstep 1\rstep 2\n\x1b[1mdone\x1b[0m\n")
    assert "step 2\ndone" == tail(run)


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
