"""What people read in the morning: on the phone, and by `ganeum queue summary`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.queue import summary
from ganeum.queue.entry import Entry
from ganeum.queue.progress import Progress
from ganeum.queue.store import Store
from ganeum.record import MetricsLog


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")


def ended(store: Store, name: str, state: str, val_loss: float | None = None, **settings: object) -> Entry:
    entry = store.add(Entry(name=name))
    if val_loss is not None:
        with MetricsLog(store.run(entry).metrics_path) as log:
            log.write({"step": 5000, "loss": 1.0, "val_loss": val_loss, "elapsed_s": 7380.0})
    changed = store.update(entry.id, state=state, attempts=1, ended_at=time.time() - 60, **settings)
    assert changed is not None
    return changed


def night(store: Store) -> None:
    """A run that failed, one whose micro-batch was halved, a paused one, one that fits nowhere, a sweep of three."""
    ended(store, "base", "finished", 3.25)
    ended(store, "hot", "failed", note="RunError: the loss is not a finite number at step 11")
    ended(store, "large", "finished", 3.0, micro_batch_size=8, retries=1)
    ended(store, "later", "paused", 4.5)
    ended(store, "huge", "held", note="by its plan it does not fit into GPU 0, which has 23.5 GiB for it")
    for number, loss in enumerate((3.5, 2.75, 3.0), start=1):
        ended(store, f"lr-{number}", "finished", loss, sweep="lr", trial={"train.learning_rate": f"{number}e-4"})
    store.add(Entry(name="next"))


NIGHT = """\
5 finished, 1 failed, 1 held, 1 paused; 1 queued left
hot failed: RunError: the loss is not a finite number at step 11
huge is held: by its plan it does not fit into GPU 0, which has 23.5 GiB for it
later is paused: val loss 4.5000, 5,000 steps, 2 h 3 min
best of lr: lr-2, val loss 2.7500 with train.learning_rate=2e-4 (3 of 3 trials tried)
large finished: val loss 3.0000, 5,000 steps, 2 h 3 min, 8 sequences at once, since memory had run out
base finished: val loss 3.2500, 5,000 steps, 2 h 3 min
"""


def test_a_night_on_the_phone() -> None:
    """The headline; what needs somebody first; the best of the sweep; then runs, the best first."""
    with Store.default() as store:
        night(store)
        mine = [entry for entry in store.all() if entry.name != "next"]
        left = [entry for entry in store.all() if entry.name == "next"]
        told = summary.night(store, "In 8 h 12 min", mine, left, "1 line of list.conf could not be taken (4)")
    first, *rest = NIGHT.splitlines()
    assert told.splitlines() == [f"In 8 h 12 min: {first}; 1 line of list.conf could not be taken (4)", *rest]


def test_it_is_read_again_later(capsys: pytest.CaptureFixture[str]) -> None:
    """`summary` tells the same; what ended before the time given is left out, what rests is not."""
    with Store.default() as store:
        night(store)
        ended(store, "old", "finished", 1.0)
        store.update(10, ended_at=time.time() - 90_000)
    for words, text in ((["summary"], NIGHT), (["summary", "--since", "30s"], "1 held, 1 paused; 1 queued left\n")):
        with pytest.raises(SystemExit) as exit:
            main(["queue", *words])
        assert not exit.value.code
        since, _, told = capsys.readouterr().out.partition(": ")
        assert since.startswith("Since ")
        assert told.startswith(text)
    with pytest.raises(SystemExit):
        main(["queue", "summary", "--since", "2d", "--group", "lr", "--json"])
    assert ["lr-1", "lr-2", "lr-3"] == [one["name"] for one in json.loads(capsys.readouterr().out)]


def test_many_are_counted() -> None:
    """A phone shows so many lines; the rest stand as a number."""
    with Store.default() as store:
        mine = [ended(store, f"f{i}", "failed", note="x") for i in range(10)]
        mine += [ended(store, f"ok{i}", "finished") for i in range(7)]
        told = summary.night(store, "In 1 h", mine, []).splitlines()
    assert ["f7 failed: x", "and 2 failed more", "ok0 finished"] == told[8:11]
    assert ["ok4 finished", "and 2 finished more"] == told[-2:]


@pytest.mark.parametrize(
    ("entry", "far", "text"),
    [
        (Entry("a", state="finished", note="an old note"), Progress(), "a finished"),
        (Entry("a", state="finished"), Progress(step=1, loss=2.0), "a finished: loss 2.0000, 1 step"),
        (Entry("a", state="killed"), Progress(step=3), "a was killed: 3 steps"),
        (Entry("a", state="failed", error_tail="ValueError: x\nmore"), Progress(), "a failed: ValueError: x"),
        (Entry("a", state="failed", note="NaN"), Progress(step=3, loss=9.0), "a failed: NaN (loss 9.0000, 3 steps)"),
        (Entry("a", state="queued", note="killed (SIGKILL): tried again"), Progress(), ""),
    ],
)
def test_a_sentence(entry: Entry, far: Progress, text: str) -> None:
    """What happened, why where it is not as it should be, and how far it is; nothing said twice."""
    assert (text or "a is queued again: killed (SIGKILL): tried again") == summary.sentence(entry, far)


def test_an_error_begins_where_it_begins() -> None:
    """Of one of ours the lines before it are the run's own talk; a traceback is shown by its end."""
    ours = Entry("a", error_tail="step 7/150\nstep 8/150\nRunError: NaN\n  where  step 11\n  try    less\n")
    assert ["RunError: NaN", "  where  step 11", "  try    less"] == summary.error(ours)
    frames = [f"  frame {i}" for i in range(20)]
    theirs = Entry("a", error_tail="\n".join(["Traceback (most recent call last):", *frames, "ValueError: x"]))
    assert [*frames[-11:], "ValueError: x"] == summary.error(theirs)
