"""`ganeum queue list`, `show` and `log` by their whole output: what somebody sees who only looks."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from at_work import changed

from ganeum.cli.queue import table
from ganeum.queue.entry import Entry
from ganeum.queue.progress import Progress
from ganeum.queue.store import Store
from ganeum.record import MetricsLog

NOBODY = "no process works on the queue: `ganeum queue run` does"

pytestmark = pytest.mark.usefixtures("desk")


def test_list_shows_what_ended_what_runs_and_what_waits(queue) -> None:  # type: ignore[no-untyped-def]
    """Ended first, then what runs, then the rest in the order in which it starts."""
    queue("add", "one.yaml")
    queue("add", "two.yaml", "--priority", "5", "--at", "2099-01-01")
    queue("add", "one.yaml", "--name", "three", "--after", "one")
    queue("add", "one.yaml", "--name", "four", "--paused")
    changed(1, state="failed", note="RunError: the loss is NaN", attempts=1)
    with Store.default() as store, MetricsLog(store.run(store.get(1)).metrics_path) as log:
        log.write({"step": 4, "loss": 1.25, "val_loss": 1.5, "elapsed_s": 90.0})
    assert queue("list") == (
        0,
        [
            "id  run    state   step    loss  val loss        time  note",
            " 1  one    failed     4  1.2500    1.5000  1 min 30 s  RunError: the loss is NaN",
            " 2  two    queued                                      priority 5; not before 01-01 00:00",
            " 3  three  queued                                      after 1",
            " 4  four   paused",
            "",
            "2 queued, 1 paused, 1 failed",
            NOBODY,
        ],
        [],
    )
    assert ["nothing is so"] == queue("list", "--state", "running")[1]
    found = json.loads("\n".join(queue("list", "--json", "one")[1]))
    assert [(1, "failed", 1.25)] == [(one["id"], one["state"], one["progress"]["loss"]) for one in found]


def test_a_narrow_terminal_cuts_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """At its width, by cells: a Korean letter takes two; a bold heading."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "20")
    table.show(["id  run", " 1  a very long note indeed", " 2  가나다라마바사아자차"])
    assert "\x1b[1mid  run\x1b[0m\n 1  a very long not…\n 2  가나다라마바사…\n" == capsys.readouterr().out


def test_a_narrow_terminal_leaves_room_for_what_went_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns: the columns that say least are left out until the note can be read; at 120 all are there."""
    failed = Entry("exp1_layer6", id=1, state="failed", note="RunError: the loss is not a finite number at step 11")
    far = {1: Progress(step=11, steps=5000, loss=9.5, val_loss=8.25, elapsed_s=90.0)}
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert ["id", "run", "state", "step", "val", "loss", "note"] == table.table([failed], far, 0.0)[0].split()
    monkeypatch.setenv("COLUMNS", "120")
    heading = table.table([failed], far, 0.0)[0].split()
    assert ["id", "run", "state", "step", "loss", "val", "loss", "time", "note"] == heading


def test_show_tells_all(queue) -> None:  # type: ignore[no-untyped-def]
    """Times are this test's; the rest word for word."""
    queue("add", "one.yaml", "seed=3", "-g", "tonight", "--max-hours", "90m", "--max-retries", "1", "--strict")
    status, out, _ = queue("show", "one")
    shown = [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", line) for line in out if not line.startswith("code")]
    assert 0 == status
    assert shown == [
        "entry     1  one",
        "state     queued",
        "queued    TIME",
        "config    one.yaml seed=3",
        f"in        {Path.cwd()}",
        "group     tonight",
        "limits    1.5 hours at most, 1 start after something went wrong at most",
        "run       results/one",
        "",
        "TIME  added  one.yaml seed=3",
    ]


def test_log_prints_the_end(queue) -> None:  # type: ignore[no-untyped-def]
    """The last lines; all with 0; what has printed nothing yet is told so."""
    queue("add", "one.yaml")
    assert queue("log", "1")[2][0] == "QueueError: one has printed nothing yet: it is queued"
    with Store.default() as store:
        store.run(store.get(1)).queue_log_path.write_text("a\nb\nc\n")
    assert (0, ["b", "c"], []) == queue("log", "1", "-n", "2")
    assert (0, ["a", "b", "c"], []) == queue("log", "one", "-n", "0")
    changed(1, state="finished")
    assert (0, ["c"], []) == queue("log", "-f", "1", "-n", "1")
    assert queue("log")[2][0] == "QueueError: nothing runs"


def test_to_look_makes_no_list(queue) -> None:  # type: ignore[no-untyped-def]
    """Where nothing was ever queued, as in another directory by mistake, nothing is left behind."""
    assert (0, ["the queue is empty: `ganeum queue add CONFIG` fills it"], []) == queue("list")
    none = ["QueueError: there is no queue here yet", "  where  results/queue.sqlite"]
    for words in (
        "show 1",
        "log",
        "wait",
        "summary",
        "pause --all",
        "edit 1 -p 2",
        "move 1 --last",
        "remove 1",
        "clean",
    ):
        status, out, err = queue(*words.split())
        assert (2, [], [*none, "  try    ganeum queue add CONFIG, or another `cd`"]) == (status, out, err), words
    there_is_none = "there is no queue at results/queue.sqlite yet: ganeum queue add CONFIG"
    assert (0, [there_is_none], []) == queue("watch", "--once")
    assert not Path("results").exists()


def test_a_deleted_list_is_looked_at_as_it_was(queue) -> None:  # type: ignore[no-untyped-def]
    """Without queue.sqlite what is mirrored beside the runs is shown, not an empty queue."""
    queue("add", "one.yaml")
    for path in Path("results").glob("queue.sqlite*"):
        path.unlink()
    assert " 1  one  queued" in queue("list")[1]


def test_an_entry_reads_back_from_its_json(queue) -> None:  # type: ignore[no-untyped-def]
    """--json has every field, so that what reads it can make the same entry again."""
    queue("add", "one.yaml", "--sweep", "seed=1,2", "--stop-hopeless", "--trials", "2")
    for plain in json.loads("\n".join(queue("list", "--json")[1])):
        with Store.default() as store:
            assert replace(store.get(plain["id"])) == Entry.of(plain)
