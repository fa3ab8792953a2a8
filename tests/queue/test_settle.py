"""What an attempt's end makes of its entry."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import pytest

from ganeum.queue import child
from ganeum.queue.child import ended_path
from ganeum.queue.entry import Entry
from ganeum.queue.failure import End, judge
from ganeum.queue.placement import Never, Placed, Placement, Wait
from ganeum.queue.process import Identity
from ganeum.queue.schedule import schedule
from ganeum.queue.settle import settle
from ganeum.queue.store import Store
from ganeum.record import write_json

RUNNING = Entry("one", id=1, state="running", attempts=1, token="t")
NAN = "step 2\nRunError: the loss is NaN\n  where  step 2\n  try    a lower learning rate"


@pytest.mark.parametrize(
    ("end", "state", "note"),
    [
        (End(0, state="finished"), "finished", ""),
        (End(None, state="finished", step=30, same_boot=False), "finished", ""),
        (End(-9, state="finished", step=30), "finished", ""),
        (End(-15, state="finished", step=30), "finished", ""),
        (End(2, tail=NAN), "failed", "RunError: the loss is NaN"),
        (End(1, tail="Traceback\n  File x\nValueError: no"), "failed", "ValueError: no"),
        (End(-11), "failed", "its process was killed (SIGSEGV)"),
        (End(3), "failed", "exit status 3"),
        (End(143, step=30), "queued", "it was asked to end: goes on at step 30"),
        (End(-9), "queued", "killed (SIGKILL): tried again"),
        (End(None), "queued", "it ended without a word: tried again"),
        (End(None, same_boot=False), "queued", "the machine was started anew: starts again"),
        (End(2, tail="RunError: the disk is full"), "queued", "the disk is full: tried again"),
        (
            End(2, tail="RunError: one is being trained by process 7"),
            "queued",
            "another process trains this run",
        ),
        (End(1, disk_full=True, step=7), "queued", "the disk is full: goes on at step 7"),
        (End(-40), "failed", "exit status -40"),
        (End(75), "queued", "its process could not be started: tried again"),
    ],
)
def test_each_end_has_its_state(end: End, state: str, note: str) -> None:
    """What ended well is finished, what went wrong by itself failed, and what came from outside is tried again."""
    changes = judge(RUNNING, end, 1000.0).changes
    assert (state, note) == (changes["state"], changes["note"])


def test_a_last_word_that_comes_late_counts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """How it ended is written down after the first look for that, and before its process is found gone."""
    me = Identity.of_this_process()
    entry = store.claim(store.add(Entry("one")), replace(me, started=me.started - 1), "t", "cpu", ())
    assert entry is not None
    store.update(entry.id, state="running")

    def is_alive(first: Identity, token: str, config: Path) -> bool:
        (run := store.run(entry)).queued_dir.mkdir(parents=True)
        write_json(ended_path(run), {"token": "t", "exit_status": 2})
        return False

    monkeypatch.setattr("ganeum.queue.settle.is_alive", is_alive)
    ended = settle(store, store.get(entry.id))
    assert ended is not None
    assert ("failed", 2) == (ended.state, ended.exit_status)


def test_what_has_finished_before_is_no_end_of_a_longer_training() -> None:
    """Queued again with a larger length, and killed before it has said anything; once it is over, it is over."""
    longer = replace(RUNNING, done_before=30)
    assert "queued" == judge(longer, End(-9, state="finished", step=30), 0).changes["state"]
    assert "finished" == judge(longer, End(-9, state="finished", step=60), 0).changes["state"]
    assert (
        "finished" == judge(replace(RUNNING, wanted="pause"), End(-15, state="finished", step=30), 0).changes["state"]
    )


def test_an_error_of_its_own_keeps_the_end_of_its_log() -> None:
    """The listing shows one line of it, the entry keeps all of it."""
    assert NAN == judge(RUNNING, End(2, tail=NAN), 0).changes["error_tail"]


@pytest.mark.parametrize(
    ("wanted", "state", "note"),
    [
        ("kill", "killed", ""),
        ("pause", "paused", ""),
        ("hours", "interrupted", "its 2 h 0 min are over at step 30"),
    ],
)
@pytest.mark.parametrize("status", [143, -15, -9])
def test_what_was_asked_for_is_what_it_is(wanted: str, state: str, note: str, status: int) -> None:
    """Whether it ended by itself or had to be killed; a run that was finished just before is finished."""
    entry = replace(RUNNING, wanted=wanted, max_hours=2.0)
    changes = judge(entry, End(status, step=30), 0).changes
    assert (state, note, "") == (changes["state"], changes["note"], changes["wanted"])
    assert "finished" == judge(entry, End(0, state="finished"), 0).changes["state"]


def test_an_error_just_before_a_pause_is_an_error() -> None:
    """A wish does not hide what went wrong by itself; a run that was to be killed is killed all the same."""
    assert "failed" == judge(replace(RUNNING, wanted="pause"), End(2, tail=NAN), 0).changes["state"]
    assert "killed" == judge(replace(RUNNING, wanted="kill"), End(2, tail=NAN), 0).changes["state"]


def test_a_full_disk_is_not_counted_against_a_run() -> None:
    """Where there is no room at all; where there is some, it is tried three times and then told."""
    entry = replace(RUNNING, retries=3)
    assert "queued" == judge(entry, End(2, disk_full=True), 0).changes["state"]
    assert "failed" == judge(entry, End(2, tail="RunError: the disk is full: 2 GiB are needed"), 0).changes["state"]


@pytest.mark.parametrize("asked", [False, True])
def test_what_a_full_disk_ended_is_known_when_there_is_room_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """Its first process waits for room to write down how it ended, and the start is not counted; one that was asked to
    end is let go after a while."""
    me = Identity.of_this_process()
    claimed = store.claim(store.add(Entry("one")), replace(me, started=me.started - 1), "t", "cpu", ())
    assert claimed is not None
    entry = store.update(claimed.id, state="running")
    assert entry is not None
    store.run(entry).queued_dir.mkdir(parents=True)
    tries: list[int] = []

    def full(path: Path, content: object) -> None:
        tries.append(1)
        if len(tries) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, content)

    monkeypatch.setattr(child, "write_json", full)
    monkeypatch.setattr(child, "TRY_AGAIN_S", 0.0)
    child._note(store.run(entry), {"token": "t", "exit_status": 2}, child.Training(asked=asked))
    settled = settle(store, entry)
    assert settled is not None
    assert (3 if asked else 10) == len(tries)
    said = "it ended without a word: tried again" if asked else "the disk is full: starts again"
    assert (said, int(asked)) == (settled.note, settled.retries)


def test_out_of_memory_halves_the_micro_batch_once() -> None:
    """The first time; killed for that again, it has failed."""
    killed = End(-9, oom_kills=1)
    first = judge(RUNNING, killed, 0)
    assert (True, "queued") == (first.halve, first.changes["state"])
    second = judge(replace(RUNNING, micro_batch_size=4), killed, 0)
    assert (False, "failed") == (second.halve, second.changes["state"])


def test_killed_again_and_again_it_fails_unless_it_gets_further() -> None:
    """Three times without a step gained are tried again, not a fourth; each new checkpoint begins the count anew."""
    entry, states = RUNNING, []
    for _ in range(4):
        changes = judge(entry, End(-9), 0).changes
        states.append(changes["state"])
        entry = replace(entry, retries=changes.get("retries", entry.retries))
    assert ["queued", "queued", "queued", "failed"] == states
    for _ in range(10):
        changes = judge(entry, End(-9, gained=True), 0).changes
        assert "queued" == changes["state"]
        entry = replace(entry, retries=changes["retries"])
    assert "failed" == judge(replace(RUNNING, max_retries=0), End(-9), 0).changes["state"]


def decide(*entries: Entry, now: float = 100.0, room: int = 9) -> tuple[list[str], dict[int, str], dict[int, str]]:
    """Names that start, what is held, what waits; `room` runs fit, and one called `huge` nowhere."""

    def place(entry: Entry, going: object) -> Placement:
        assert isinstance(going, list)
        return Never("too large") if entry.name == "huge" else Placed("cpu") if len(going) < room else Wait("busy")

    tokens = iter("abcdefgh")
    decisions = schedule(entries, now=now, place=place, token=lambda: next(tokens))
    return [entry.name for entry, _ in decisions.start], decisions.hold, decisions.wait


def test_as_many_start_as_have_room() -> None:
    """Those that start count for those after them, and so do those that run."""
    queued = [Entry(name, id=number) for number, name in enumerate("abc", start=1)]
    assert (["a", "b", "c"], {}, {}) == decide(*queued)
    assert (["a"], {}, {2: "busy", 3: "busy"}) == decide(*queued, Entry("r", id=4, state="running", token="r"), room=2)


def test_one_that_fits_nowhere_is_held_and_stops_no_other() -> None:
    """It says so instead of waiting for ever."""
    assert (["a"], {1: "too large"}, {}) == decide(Entry("huge", id=1), Entry("a", id=2))


def test_a_pause_that_a_clock_made_endless_is_over() -> None:
    """The queue pauses for minutes; one of years means that the clock was set back."""
    assert (["a"], {}, {}) == decide(Entry("a", id=1, not_before=3e8))
    assert [] == decide(Entry("a", id=1, not_before=150.0))[0]


def test_time_and_dependencies() -> None:
    """Not before its time; not before those it comes after are finished; never where they cannot finish."""
    assert ([], {}, {1: ""}) == decide(Entry("a", id=1, at=101.0))
    assert (["a"], {}, {}) == decide(Entry("a", id=1, at=99.0))
    assert (["a"], {}, {2: "after a (1), which is queued"}) == decide(Entry("a", id=1), Entry("b", id=2, after=(1,)))
    assert (["b"], {}, {}) == decide(Entry("a", id=1, state="finished"), Entry("b", id=2, after=(1,)))
    for state in ("failed", "killed", "held"):
        _, held, _ = decide(Entry("a", id=1, state=state, after=(9,)), Entry("b", id=2, after=(1,)))  # type: ignore[arg-type]
        assert f"after a (1), which is {state}" == held[2]
    assert {2: "after entry 1, which is not in the queue any more"} == decide(Entry("b", id=2, after=(1,)))[1]


def test_what_an_earlier_one_waits_for_is_kept_from_later_ones() -> None:
    """Four cores, of which one has one, and the first in the list needs all: those behind it wait, elsewhere or not;
    one whose time has not come keeps nothing."""

    def place(entry: Entry, going: object) -> Placement:
        assert isinstance(going, list)
        kept = [one.name for one in going if one.state == "queued" and one.device == "cpu"]
        if kept and entry.name != "other":
            return Wait(f"kept for {kept[0]}")
        return Wait("3 free", keeps="cpu") if entry.name == "large" and going else Placed("cpu")

    def decided(*entries: Entry) -> tuple[list[str], dict[int, str]]:
        decisions = schedule(entries, now=100.0, place=place, token=lambda: "t")
        return [entry.name for entry, _ in decisions.start], decisions.wait

    going, small, other = Entry("r", id=1, state="running"), Entry("small", id=3), Entry("other", id=4)
    large = Entry("large", id=2)
    assert (["other"], {2: "3 free", 3: "kept for large"}) == decided(going, large, small, other)
    assert ["small", "other"] == decided(going, replace(large, at=200.0), small, other)[0]
    assert ["small", "other"] == decided(going, replace(large, after=(1,)), small, other)[0]
    assert ["large"] == decided(large, replace(small, state="paused"))[0]


def test_what_is_held_is_looked_at_again() -> None:
    """Once what was in the way has gone, it starts."""
    assert ["b"] == decide(Entry("a", id=1, state="finished"), Entry("b", id=2, state="held", after=(1,)))[0]
