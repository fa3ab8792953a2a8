"""Memory of the machine that ends a run: once more with half of what it took at once, and what was planned is said."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from at_work import add, history, work

from ganeum.cli import main
from ganeum.config.load import load_stored
from ganeum.queue import child, freeze, needs
from ganeum.queue.entry import Entry
from ganeum.queue.process import Identity
from ganeum.queue.settle import lower_micro_batch, settle
from ganeum.queue.store import Store
from ganeum.record import MetricsLog, RunDirectory, write_json

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and sessions are POSIX")
KILLED = "it was probably killed for want of the machine's memory"


def killed(store: Store, entry: Entry, made: bool = True, peak_gib: float | None = 5.25, **left: Any) -> Entry:
    """The entry after the kernel has killed its training, which had made its run or had not come so far."""
    run = store.run(entry)
    if made:
        run.config_path.write_bytes(freeze.config_path(run).read_bytes())
        write_json(run.plan_path, {"memory_gib": {"high": 3.5}})
    gone = Identity.of_this_process()
    assert store.claim(entry, gone, "t", "cpu", ())
    running = store.update(entry.id, state="running", started=1.0)
    assert running is not None
    noted = {"token": "t", "exit_status": -9, "oom_kills": 1, "seconds": 9.0, "peak_gib": peak_gib, **left}
    write_json(child.ended_path(run), noted)
    settled = settle(store, running)
    assert settled is not None
    return settled


def lowered(run: RunDirectory, entry: Entry) -> list[int | str]:
    """The micro-batch of the run's config, and of the frozen one, as the next attempt finds them."""
    assert entry.micro_batch_size is not None
    lower_micro_batch(run, entry.micro_batch_size)
    paths = [path for path in (run.config_path, freeze.config_path(run)) if path.is_file()]
    return [load_stored(path).train.micro_batch_size for path in paths]


def test_half_is_of_what_the_trainer_had_come_to_by_itself(store: Store) -> None:
    """Configured are 8; since its own memory ran out it took 4, so 4 were too much, and 2 are tried."""
    entry = add(store, "one", overrides=["micro_batch_size=8"])
    run = store.run(entry)
    with MetricsLog(run.metrics_path) as log:
        log.write({"step": 10, "loss": 1.0, "micro_batch_size": 4})
    again = killed(store, entry)
    assert ("queued", 2) == (again.state, again.micro_batch_size)
    assert [2, 2] == lowered(run, again)


def test_half_of_what_the_plan_chose_where_the_run_was_killed_before_it_had_chosen(store: Store) -> None:
    """`auto` with no run yet: the plan is made now, and its choice halved."""
    entry = add(store, "one")
    chosen = needs.at_once(Entry("one", device="cpu", cwd=entry.cwd))
    assert chosen == 8  # the whole batch of a tiny model
    again = killed(store, entry, made=False)
    assert ("queued", 4) == (again.state, again.micro_batch_size)
    assert [4] == lowered(store.run(entry), again)


def test_a_frozen_auto_stays_where_there_is_a_run(store: Store) -> None:
    """The run's own config says a number; the frozen one is what the user asked for."""
    entry = add(store, "one")
    again = killed(store, entry)
    assert [4, "auto"] == lowered(store.run(entry), again)


@pytest.mark.parametrize(
    ("overrides", "device", "said"),
    [
        (["micro_batch_size=1"], None, "fewer sequences at once than one are not possible"),
        ([], "cuda", "how many sequences it takes at once is not known: set train.micro_batch_size"),
    ],
)
def test_where_there_is_no_half_it_fails(
    store: Store, monkeypatch: pytest.MonkeyPatch, overrides: list[str], device: str | None, said: str
) -> None:
    """One sequence is the least; and what nobody knows cannot be halved."""
    if device:
        monkeypatch.setattr(needs, "at_once", lambda entry: None)
    ended = killed(store, add(store, "one", overrides=overrides), made=False)
    assert ("failed", None) == (ended.state, ended.micro_batch_size)
    assert f"{KILLED} (it held up to 5.2 GiB); {said}" == ended.note


def test_what_was_planned_is_told_beside_what_was_held(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """In the note, in the history that `show` prints, in its JSON; also where the process wrote nothing after the plan:
    the system counts the most that it held."""
    entry = add(store, "one", overrides=["micro_batch_size=8"])
    ended = killed(store, entry)
    expected = (
        f"{KILLED} (planned: at most 3.5 GiB; it held up to 5.2 GiB); once more with 4 at once, the batch as it was"
    )
    assert expected == ended.note
    assert ("out of memory", expected) in [(event.what, event.text) for event in store.events(entry=entry.id)]
    with pytest.raises(SystemExit):
        main(["queue", "show", "one", "--json"])
    assert expected in [event["text"] for event in json.loads(capsys.readouterr().out)["events"]]
    with pytest.raises(SystemExit):
        main(["queue", "show", "one"])
    assert f"out of memory  {expected}" in capsys.readouterr().out


def test_killed_for_that_again_it_says_what_it_held_too(store: Store) -> None:
    """With half of it; that is the end."""
    entry = add(store, "one", overrides=["micro_batch_size=8"])
    store.update(entry.id, micro_batch_size=4)
    ended = killed(store, store.get(entry.id), peak_gib=4.0)
    assert ("failed", f"{KILLED}, once more (planned: at most 3.5 GiB; it held up to 4.0 GiB)") == (
        ended.state, ended.note,
    )  # fmt: skip


def test_no_retries_are_none_for_memory_too(store: Store) -> None:
    """`--max-retries 0`."""
    ended = killed(store, add(store, "one", overrides=["micro_batch_size=8"], max_retries=0))
    assert ("failed", f"{KILLED} (planned: at most 3.5 GiB; it held up to 5.2 GiB)") == (ended.state, ended.note)
    assert ended.micro_batch_size is None


def test_the_most_that_a_training_held_is_counted_by_the_system(store: Store) -> None:
    """A process of Python holds 5 MiB at the least; nothing of it has to write that down itself."""
    entry = add(store, "one")
    work(store)
    left = json.loads(child.ended_path(store.run(entry)).read_text())
    assert 0.005 < left["peak_gib"] < 2.0
    assert ["one begins with auto", "one finished"] == history()
