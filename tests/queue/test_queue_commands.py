"""`ganeum queue add`, `list`, `show`, … as a user types them, by their whole output. Nothing is trained here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.cli.queue import table
from ganeum.queue.entry import Entry
from ganeum.queue.freeze import frozen_config
from ganeum.queue.progress import Progress
from ganeum.queue.store import Store
from ganeum.record import MetricsLog

NOBODY = "no process works on the queue: `ganeum queue run` does"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    Path("one.yaml").write_text("train: {max_iters: 10}\n")
    Path("two.yaml").write_text("train: {max_iters: 20}\n")
    Path("data/tinystories").mkdir(parents=True)
    Path("data/tinystories/train.bin").touch()


@pytest.fixture
def queue(capsys: pytest.CaptureFixture[str]) -> object:
    """`ganeum queue …` → exit status, lines of standard output and of standard error, blanks at their ends cut off."""

    def call(*arguments: str) -> tuple[int, list[str], list[str]]:
        with pytest.raises(SystemExit) as exit:
            main(["queue", *arguments])
        out, err = capsys.readouterr()
        code = exit.value.code
        return (
            code if isinstance(code, int) else 0,
            [line.rstrip() for line in out.splitlines()],
            [line.rstrip() for line in err.splitlines()],
        )

    return call


def changed(id: int, **settings: object) -> Entry:
    """As if something had happened to an entry."""
    with Store.default() as store:
        entry = store.update(id, **settings)
    assert entry is not None
    return entry


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
