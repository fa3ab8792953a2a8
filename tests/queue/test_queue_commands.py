"""`ganeum queue add`, `list`, `show`, … as a user types them, by their whole output. Nothing is trained here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from at_work import changed

from ganeum.queue.freeze import frozen_config
from ganeum.queue.store import Store
from ganeum.record import MetricsLog

NOBODY = "no process works on the queue: `ganeum queue run` does"

pytestmark = pytest.mark.usefixtures("desk")


def test_add_freezes_and_names(queue) -> None:  # type: ignore[no-untyped-def]
    """What was added stands with its id; the frozen config has what was set, and later edits do not reach it."""
    assert (0, ["1  one  queued", "2  two  queued", NOBODY], []) == queue("add", "one.yaml", "two.yaml", "max_iters=30")
    Path("one.yaml").write_text("train: {max_iters: 99}\n")
    with Store.default() as store:
        one, two = store.all()
        assert [30, 30] == [frozen_config(store.run(entry)).train.max_iters for entry in (one, two)]
    assert (("max_iters=30",), "one.yaml") == (one.overrides, one.config)


def test_data_that_are_not_there_yet_are_said_at_once(queue) -> None:  # type: ignore[no-untyped-def]
    """Of several runs once, and of a sweep; they are queued all the same, since the data may come before their turn."""
    Path("data/tinystories/train.bin").unlink()
    none, damaged = "there is no data in data/tinystories yet", "meta.json is damaged: data/tinystories/meta.json"
    assert (0, [none, "", "1  one  queued", "2  two  queued", NOBODY], []) == queue("add", "one.yaml", "two.yaml")
    Path("data/tinystories/meta.json").write_text("{")
    status, out, _ = queue("add", "one.yaml", "--sweep", "seed=1,2")
    assert (0, [damaged, "", "3  one-seed-1  queued"]) == (status, out[:3])
    status, out, err = queue("add", "one.yaml", "name=three", "--json")
    assert (0, "three", [damaged, ""]) == (status, json.loads("\n".join(out))[0]["name"], err)


def test_add_is_all_or_nothing(queue) -> None:  # type: ignore[no-untyped-def]
    """One config of three is wrong: it is told, and the list stays empty."""
    Path("bad.yaml").write_text("train: {max_itres: 1}\n")
    assert queue("add", "one.yaml", "bad.yaml", "two.yaml", "one.yaml") == (
        2,
        [],
        [
            "ConfigError: there is no key train.max_itres",
            "  where  bad.yaml, line 1",
            "  try    train.max_iters",
            "",
            "ConfigError: two of these would be the run one",
            "  where  one.yaml",
            "  why    one.yaml is it already, and a run has one directory",
            "  try    name=one-2",
        ],
    )
    assert (0, ["the queue is empty: `ganeum queue add CONFIG` fills it"], []) == queue("list")


def test_a_run_is_on_the_list_once(queue) -> None:  # type: ignore[no-untyped-def]
    """The same run again while it waits is refused, with a name that is free."""
    queue("add", "one.yaml")
    assert queue("add", "one.yaml") == (
        2,
        [],
        [
            "QueueError: the run one is in the queue already",
            "  where  results/queue.sqlite",
            "  why    it is entry 1, queued, and a run has one directory",
            "  try    name=one-2 for another run",
        ],
    )


def test_a_sweep_is_a_run_for_each_combination(queue) -> None:  # type: ignore[no-untyped-def]
    """Names say what is another about each; the sweep's name takes them all."""
    status, out, _ = queue("add", "one.yaml", "--sweep", "learning_rate=1e-4,3e-4", "--sweep", "seed=1,2", "-p", "3")
    assert 0 == status
    assert out == [
        "1  one-learning_rate-1e-4-seed-1  queued",
        "2  one-learning_rate-1e-4-seed-2  queued",
        "3  one-learning_rate-3e-4-seed-1  queued",
        "4  one-learning_rate-3e-4-seed-2  queued",
        NOBODY,
    ]
    with Store.default() as store:
        last = store.get(4)
        config = frozen_config(store.run(last))
    assert (3e-4, 2, 3) == (config.train.learning_rate, config.seed, last.priority)
    assert ("one", {"train.learning_rate": "3e-4", "seed": "2"}) == (last.sweep, last.trial)
    assert (0, [f"{id}  one-learning_rate-{rest}  killed" for id, rest in TRIALS], []) == queue(
        "kill", "--group", "one"
    )


TRIALS = [(1, "1e-4-seed-1"), (2, "1e-4-seed-2"), (3, "3e-4-seed-1"), (4, "3e-4-seed-2")]


def test_the_best_trial_is_named(queue) -> None:  # type: ignore[no-untyped-def]
    """By the lowest validation loss that it ever had."""
    from ganeum.queue.summary import bests

    queue("add", "one.yaml", "--sweep", "learning_rate=1e-4,3e-4,1e-3")
    with Store.default() as store:
        for id, losses in ((1, [3.0, 2.5]), (2, [2.0, 2.75])):
            changed(id, state="finished", attempts=1)
            with MetricsLog(store.run(store.get(id)).metrics_path) as log:
                for step, loss in enumerate(losses, start=1):
                    log.write({"step": step, "loss": 1.0, "val_loss": loss})
        assert bests(store, store.all()) == [
            "best of one so far: one-learning_rate-3e-4, val loss 2.0000 with train.learning_rate=3e-4 "
            "(2 of 3 trials tried)"
        ]


def test_pause_resume_kill_retry_without_a_process(queue) -> None:  # type: ignore[no-untyped-def]
    """What waits changes at once; what makes no sense is told, and does not keep the others from it."""
    queue("add", "one.yaml", "two.yaml")
    assert (0, ["1  one  paused"], []) == queue("pause", "1")
    assert (0, ["1  one  queued"], []) == queue("resume", "one")
    assert (0, ["1  one  killed", "2  two  killed"], []) == queue("kill", "1-2")
    assert (2, [], ["QueueError: 1 (one) is killed: nothing to kill"]) == queue("kill", "1")
    assert (0, ["2  two  queued"], []) == queue("retry", "2")
    assert queue("pause", "1", "2") == (2, ["2  two  paused"], ["QueueError: 1 (one) is killed: nothing to pause"])
    assert queue("resume", "1") == (
        2,
        [],
        ["QueueError: 1 (one) is killed: nothing to resume", "  try    `ganeum queue retry` starts it again"],
    )
    assert queue("pause") == (
        2,
        [],
        [
            "ConfigError: which one to pause is not said",
            "  where  ganeum queue pause",
            "  try    ganeum queue pause 3, --group NAME, or --all",
        ],
    )


def test_an_unknown_entry_gets_the_nearest_name(queue) -> None:  # type: ignore[no-untyped-def]
    """By id or by name, exit status 2."""
    queue("add", "one.yaml")
    assert queue("show", "on") == (
        2,
        [],
        ["QueueError: the queue has no entry on", "  where  results/queue.sqlite", "  try    one"],
    )


def test_move(queue) -> None:  # type: ignore[no-untyped-def]
    """To the front, to the end, beside another, whatever the priorities were."""
    queue("add", "one.yaml", "two.yaml")
    queue("add", "one.yaml", "--name", "three", "-p", "1")
    queue("add", "one.yaml", "--name", "four")

    def order() -> list[int]:
        with Store.default() as store:
            return [entry.id for entry in store.all()]

    assert [3, 1, 2, 4] == order()
    assert 0 == queue("move", "4", "--first")[0]
    assert [4, 3, 1, 2] == order()
    queue("move", "4", "3", "--last")
    assert [1, 2, 4, 3] == order()
    queue("move", "3", "--before", "two")
    assert [1, 3, 2, 4] == order()
    queue("move", "1", "--behind", "2")
    assert [3, 2, 1, 4] == order()
    queue("add", "one.yaml", "--name", "five")
    assert 5 == order()[-1]


def test_edit(queue) -> None:  # type: ignore[no-untyped-def]
    """Keys are set on the config as it was frozen, its file is read anew when asked, limits change at any time."""
    queue("add", "one.yaml", "seed=3")
    Path("one.yaml").write_text("train: {max_iters: 50}\n")

    def config() -> tuple[int | None, int]:
        with Store.default() as store:
            frozen = frozen_config(store.run(store.get(1)))
        return frozen.train.max_iters, frozen.seed

    status, out, err = queue("edit", "1", "seed=4", "-p", "2")
    assert (0, ["id  run  state   note", " 1  one  queued  priority 2"], []) == (status, out, err)
    assert (10, 4) == config()
    queue("edit", "1", "--reread")
    assert (50, 4) == config()
    changed(1, state="running")
    assert 0 == queue("edit", "1", "--max-hours", "2d")[0]
    assert queue("edit", "1", "seed=5") == (
        2,
        [],
        ["QueueError: 1 (one) is running: it cannot be changed so", "  try    `ganeum queue pause` it first"],
    )
    assert (50, 4) == config()
    with Store.default() as store:
        assert 48.0 == store.get(1).max_hours


def test_remove_and_clean_leave_runs(queue) -> None:  # type: ignore[no-untyped-def]
    """Off the list, never off the disk; what runs has to be killed first, and then nothing was removed."""
    queue("add", "one.yaml", "two.yaml")
    queue("add", "one.yaml", "--name", "three")
    Path("results/one/config.yaml").write_text("kept")
    changed(2, state="running")
    assert queue("remove", "1-2") == (
        2,
        [],
        ["QueueError: 2 (two) is running, so nothing was removed", "  try    ganeum queue kill 2"],
    )
    changed(2, state="finished", ended_at=0.0)
    changed(3, state="failed", ended_at=0.0)
    assert (0, ["removed: 1 finished"], []) == queue("clean")
    assert (0, ["1  one  removed"], []) == queue("remove", "one")
    assert "kept" == Path("results/one/config.yaml").read_text()
    assert queue("clean", "--state", "queued") == (
        2,
        [],
        ["ConfigError: what is queued has not ended", "  where  --state", "  try    finished, failed, killed"],
    )


def test_wait_tells_how_it_ended_by_its_exit_status(queue) -> None:  # type: ignore[no-untyped-def]
    """0 all finished, 1 some not, 124 the time is over."""
    queue("add", "one.yaml", "two.yaml")
    assert 124 == queue("wait", "--timeout", "0.0000001")[0]
    changed(1, state="finished")
    assert (0, ["id  run  state", " 1  one  finished"], []) == queue("wait", "1")
    changed(2, state="failed", note="x")
    assert 1 == queue("wait", "1", "2")[0]


def test_rebuild_finds_the_entries_beside_their_runs(queue) -> None:  # type: ignore[no-untyped-def]
    """A list that is damaged is told so by every command; `rebuild` puts it aside and loses none."""
    queue("add", "one.yaml", "two.yaml", "-p", "2")
    for suffix in ("-wal", "-shm"):
        Path(f"results/queue.sqlite{suffix}").unlink(missing_ok=True)
    Path("results/queue.sqlite").write_bytes(b"no database, whatever its name says" * 100)
    status, _, err = queue("list")
    assert (2, "QueueError: the list of the queue is damaged") == (status, err[0])
    assert queue("rebuild") == (
        0,
        ["2 entries found beside their runs; the old list is results/queue.sqlite.damaged"],
        [],
    )
    with Store.default() as store:
        assert [("one", 2), ("two", 2)] == [(entry.name, entry.priority) for entry in store.all()]


def test_install_can_only_print(queue) -> None:  # type: ignore[no-untyped-def]
    """The unit of this directory, and nothing changed; no service is there to be removed."""
    status, out, err = queue("install", "--print", "--per-gpu", "2")
    assert (0, []) == (status, err)
    assert f"WorkingDirectory={Path.cwd()}" in out
    assert f"ExecStart={sys.executable} -m ganeum queue run --stay --per-gpu 2" in out
    assert "Environment=GANEUM_RESULTS=results" in out


def test_nothing_to_run_is_said(queue) -> None:  # type: ignore[no-untyped-def]
    """An empty list ends at once, with exit status 0; a group that is none is an error."""
    status, out, _ = queue("run")
    assert (0, "nothing ended") == (status, out[-1].rpartition(": ")[2])
    assert queue("run", "--group", "x") == (
        2,
        [],
        ["QueueError: there is no group or sweep x", "  where  results/queue.sqlite"],
    )


def test_a_misspelt_command_is_no_list(queue) -> None:  # type: ignore[no-untyped-def]
    """`ganeum queue lsit` is not taken for a file."""
    assert queue("lsit") == (
        2,
        [],
        ["ConfigError: there is no command lsit", "  where  ganeum queue", "  try    ganeum queue list"],
    )


def test_the_queue_works_without_torch() -> None:
    """The manager, its sweeps, the live view and every command: loaded, and no torch with them."""
    code = (
        "import sys\n"
        "from ganeum.cli.queue import build\n"
        "import ganeum.queue.manager, ganeum.queue.study, ganeum.queue.watch, ganeum.queue.devices\n"
        "build()\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert 0 == done.returncode, done.stderr
