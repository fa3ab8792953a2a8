"""What a user types that cannot be meant so: circles, names that read as ids, priorities without end; and a clock."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from at_work import changed

from ganeum.queue.freeze import frozen_config
from ganeum.queue.store import Store

pytestmark = pytest.mark.usefixtures("desk")


def test_nothing_waits_for_itself(queue) -> None:  # type: ignore[no-untyped-def]
    """A circle of --after is told with its way round, and nothing is changed; what is no circle may join twice."""
    queue("add", "one.yaml", "two.yaml")
    queue("add", "one.yaml", "--name", "three", "--after", "1", "--after", "two")
    assert 0 == queue("edit", "2", "--after", "1")[0]
    assert queue("edit", "1", "--after", "3") == (
        2,
        [],
        [
            "QueueError: 1 (one) would wait for itself",
            "  where  --after",
            "  why    after 3 (three), which comes after 2 (two), which comes after 1 (one)",
        ],
    )
    assert "  why    after 2 (two)" in queue("edit", "2", "--after", "2")[2]
    with Store.default() as store:
        assert [(), (1,), (1, 2)] == [entry.after for entry in store.all()]


def test_edit_changes_all_that_it_can(queue) -> None:  # type: ignore[no-untyped-def]
    """One that runs is told of, with exit status 2, and keeps none of the others from its change."""
    queue("add", "one.yaml", "two.yaml")
    queue("add", "one.yaml", "--name", "three")
    changed(2, state="running")
    assert queue("edit", "1-3", "-p", "5") == (
        2,
        ["id  run    state   note", " 1  one    queued  priority 5", " 3  three  queued  priority 5"],
        ["QueueError: 2 (two) is running: it cannot be changed so", "  try    `ganeum queue pause` it first"],
    )


def test_a_file_is_read_anew_from_where_it_was_added(  # type: ignore[no-untyped-def]
    queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the user stands by then; another file of that name there is not meant."""
    queue("add", "one.yaml")
    Path("one.yaml").write_text("train: {max_iters: 50}\n")
    Path("elsewhere").mkdir()
    Path("elsewhere/one.yaml").write_text("train: {max_iters: 99}\n")
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path / "results"))
    monkeypatch.chdir("elsewhere")
    assert 0 == queue("edit", "1", "--reread")[0]
    with Store.default() as store:
        assert 50 == frozen_config(store.run(store.get(1))).train.max_iters


def test_a_name_that_reads_as_another_id_is_not_guessed_at(queue) -> None:  # type: ignore[no-untyped-def]
    """A run called 2 and the entry 2: neither is taken for the other; where both are one, or there is one, that is."""
    queue("add", "one.yaml", "--name", "2")
    assert (0, ["1  2  paused"], []) == queue("pause", "2")
    queue("add", "two.yaml")
    queue("add", "one.yaml", "--name", "3")
    assert queue("kill", "2") == (
        2,
        [],
        [
            "QueueError: 2 is the name of a run, and stands for other entries too",
            "  where  results/queue.sqlite",
            "  why    the run 2 is entry 1",
            "  try    1 for that run; two for entry 2",
        ],
    )
    assert (0, ["3  3  killed"], []) == queue("kill", "3")
    queue("add", "one.yaml", "--name", "1-3")
    assert "  try    4 for that run; the names of the others" in queue("kill", "1-3")[2]


def test_a_priority_has_an_end(queue) -> None:  # type: ignore[no-untyped-def]
    """One that the list could not hold is refused where it is typed."""
    assert 2 == queue("add", "one.yaml", "-p", "9" * 20)[0]
    queue("add", "one.yaml")
    assert 2 == queue("edit", "1", "-p", "-" + "9" * 20)[0]
    assert 0 == queue("edit", "1", "-p", "1000000000")[0]


def test_a_clock_that_is_set_back_makes_no_night_negative(  # type: ignore[no-untyped-def]
    queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day back with each look at it: how long the queue worked is counted otherwise."""
    clock = itertools.count(2e9, -86_400.0)
    monkeypatch.setattr("time.time", lambda: next(clock))
    status, out, _ = queue("run")
    assert 0 == status
    assert re.fullmatch(r"In \d+(\.\d+)? m?s: nothing ended", out[-1]), out
