"""The queue's processes: killed at any moment, several at once, and still every run is trained once and to its end."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from at_work import PRETEND, add, history, queue_process, states, until, work

from ganeum.queue import freeze, manager
from ganeum.queue.process import Identity
from ganeum.queue.settle import identity, settle, tail
from ganeum.queue.store import Store

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


def test_hours_that_are_over_end_a_run_with_a_checkpoint(store: Store) -> None:
    """It is not tried again by itself."""
    entry = add(store, "one", "slow", max_hours=2)

    def hours_pass() -> None:
        with Store(store.path) as mine:
            until(lambda: any("begins" in line for line in history()))
            mine.update(entry.id, ("running",), hours=2)

    passing = threading.Thread(target=hours_pass)
    passing.start()
    said = work(store)
    passing.join()
    ended = store.get(entry.id)
    assert ("interrupted", "its 2 h 0 min are over at step 3") == (ended.state, ended.note)
    assert "one: its 2 h 0 min are over" in said
    assert ended.hours > 2


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


def test_the_log_keeps_every_attempt_and_shows_the_last(store: Store) -> None:
    """With what a live line was overwritten by, and without a terminal's control characters."""
    entry = add(store, "one", "killed")
    work(store)
    run = store.run(entry)
    assert 4 == run.queue_log_path.read_text().count("=== attempt ")
    with run.queue_log_path.open("a") as log:
        log.write("=== attempt 5, now ===\nstep 1\rstep 2\n\x1b[1mdone\x1b[0m\n")
    assert "step 2\ndone" == tail(run)
