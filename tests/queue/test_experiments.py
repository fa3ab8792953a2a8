"""`ganeum queue LIST`: a list of experiments, run by processes that may fail, die or be interrupted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from at_work import QUEUE, STAND_IN

from ganeum.cli import main
from ganeum.queue import manager
from ganeum.queue.enqueue import Wish, enqueue
from ganeum.queue.entry import Entry
from ganeum.queue.experiments import read_list
from ganeum.queue.placement import Placed, Wait
from ganeum.queue.store import Store
from ganeum.record import find


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    monkeypatch.setattr(manager, "TRAIN", (sys.executable, str(STAND_IN)))
    one_at_a_time = lambda entry, running: Wait("busy") if running else Placed("cpu")  # noqa: E731
    monkeypatch.setattr(manager, "on_this_machine", lambda per_gpu: one_at_a_time)
    return tmp_path


def experiments(**how: str) -> None:
    """A config for each experiment that goes so, all in the list."""
    for name, word in how.items():
        Path(f"{name}.yaml").write_text(f"data: {{directory: {word}}}\ntrain: {{max_iters: 10}}\n")
        if word != "missing":
            Path(word).mkdir(exist_ok=True)
            Path(word, "train.bin").touch()
    Path("experiment_list.conf").write_text("".join(f"{name}.yaml\n" for name in how))


def queue(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit:
        main(["queue", *arguments])
    assert isinstance(exit.value.code, int)
    return exit.value.code


def started() -> list[str]:
    return Path("started").read_text().split() if Path("started").exists() else []


def lines(text: str) -> list[str]:
    """What was printed, without blanks at the ends, without the time, and without how long it took."""
    text = re.sub(r"^\d\d-\d\d \d\d:\d\d:\d\d  ", "", text, flags=re.MULTILINE)
    return [re.sub(r"^In [^:]*: ", "In …: ", line.rstrip()) for line in text.splitlines()]


def test_all_are_run_in_order_and_shown_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    """Each experiment once, in the list's order; a table of what became of each; exit status 0."""
    experiments(one="good", two="good")
    assert 0 == queue()
    assert ["one", "two"] == started()
    out, err = capfd.readouterr()
    assert "" == err
    assert lines(out) == [
        "[1/2] one: one.yaml",
        "[2/2] two: two.yaml",
        "one started on cpu",
        "one finished: val loss 1.5000, 10 steps, 1 min 30 s",
        "two started on cpu",
        "two finished: val loss 1.5000, 10 steps, 1 min 30 s",
        "",
        "id  run  state     step    loss  val loss        time",
        " 1  one  finished    10  1.2500    1.5000  1 min 30 s",
        " 2  two  finished    10  1.2500    1.5000  1 min 30 s",
        "",
        "In …: 2 finished",
    ]


def test_nothing_that_goes_wrong_stops_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    """A bad config is told at the start; a failure and a refusal are shown with their errors; the rest is run."""
    experiments(bad="good", failing="failing", missing="missing", fine="good")
    Path("bad.yaml").write_text("train:\n  max_itres: 3\n")
    assert 1 == queue()
    assert ["failing", "missing", "fine"] == started()
    out, err = capfd.readouterr()
    assert err == (
        "ConfigError: there is no key train.max_itres\n"
        "  where  bad.yaml, line 2\n"
        "  try    train.max_iters\n"
        "  in     experiment_list.conf, line 1\n\n"
    )
    assert lines(out) == [
        "[2/4] failing: failing.yaml",
        "[3/4] missing: missing.yaml",
        "    there is no data in missing yet",
        "[4/4] fine: fine.yaml",
        "failing started on cpu",
        "failing failed: RunError: the loss is NaN (val loss 1.5000, 10 steps, 1 min 30 s)",
        "missing started on cpu",
        "missing failed: DataError: there is no data",
        "fine started on cpu",
        "fine finished: val loss 1.5000, 10 steps, 1 min 30 s",
        "",
        "failing:",
        "    RunError: the loss is NaN",
        "      where  step 2",
        "",
        "missing:",
        "    DataError: there is no data",
        "",
        "id  run      state     step    loss  val loss        time  note",
        " 1  failing  failed      10  1.2500    1.5000  1 min 30 s  RunError: the loss is NaN",
        " 2  missing  failed                                        DataError: there is no data",
        " 3  fine     finished    10  1.2500    1.5000  1 min 30 s",
        "",
        "In …: 1 finished, 2 failed; 1 line of experiment_list.conf could not be taken (1)",
    ]


def test_started_again_it_goes_on_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    """What is finished is skipped, what failed is tried again, and a raised length is not finished any more."""
    experiments(one="good", two="failing", three="good")
    assert 1 == queue()
    Path("experiment_list.conf").write_text("one.yaml\ntwo.yaml\nthree.yaml max_iters=20\n")
    Path("started").unlink()
    capfd.readouterr()
    assert 1 == queue()
    assert ["two", "three"] == started()
    out = lines(capfd.readouterr().out)
    assert [
        "[1/3] one: finished already",
        "[2/3] two: two.yaml, which failed before",
        "[3/3] three: three.yaml max_iters=20",
    ] == out[:3]
    assert "In …: 2 finished, 1 failed" == out[-1]
    assert 20 == find("three").status().step  # type: ignore[union-attr]


def test_what_is_not_in_the_list_is_left_and_named(capfd: pytest.CaptureFixture[str]) -> None:
    """A line that was deleted leaves its entry behind: it is not run, and what runs it or takes it off is said."""
    experiments(one="good", two="good", three="good")
    assert 0 == queue("add", "two.yaml", "three.yaml", "--paused")
    assert 0 == queue("resume", "two")
    Path("experiment_list.conf").write_text("one.yaml\n")
    capfd.readouterr()
    assert 0 == queue()
    assert ["one"] == started()
    out = lines(capfd.readouterr().out)
    assert [
        "[1/1] one: one.yaml",
        "",
        "not in this list, and left as they are: 1 (two)",
        "`ganeum queue run` runs them, `ganeum queue remove` takes them off",
    ] == out[:4]
    assert "In …: 1 finished; 1 paused, 1 queued left" == out[-1]


def test_an_edited_config_counts_until_its_run_begins() -> None:
    """A line that waits is read anew at each start of the list: nothing of its run is there yet."""
    experiments(one="slow")
    with Store.default() as store:
        enqueue(store, [Wish("one.yaml")], Entry(name=""))
    Path("one.yaml").write_text("data: {directory: good}\ntrain: {max_iters: 15}\n")
    assert 0 == queue()
    assert 15 == find("one").status().step  # type: ignore[union-attr]


def test_a_killed_one_stays_so_until_it_is_taken_back(capfd: pytest.CaptureFixture[str]) -> None:
    """The list does not overrule `ganeum queue kill`, and says what does; exit status 1, since not all are finished."""
    experiments(one="good", two="good")
    with Store.default() as store:
        [entry] = enqueue(store, [Wish("one.yaml")], Entry(name=""))
        store.update(entry.id, state="killed")
    assert 1 == queue()
    assert ["two"] == started()
    assert "[1/2] one: killed before; `ganeum queue retry 1` takes it back" == lines(capfd.readouterr().out)[0]


def test_people_are_told(capfd: pytest.CaptureFixture[str]) -> None:
    """Each end by its sentence, and the night in one when the queue ends."""
    experiments(one="good", two="missing")
    assert 1 == queue("experiment_list.conf", "--notify", 'echo "$GANEUM_STATE: $GANEUM_TEXT" >> told')
    assert lines(Path("told").read_text().replace("summary: ", "")) == [
        "finished: one finished: val loss 1.5000, 10 steps, 1 min 30 s",
        "failed: two failed: DataError: there is no data",
        "In …: 1 finished, 1 failed",
        "two failed: DataError: there is no data",
        "one finished: val loss 1.5000, 10 steps, 1 min 30 s",
    ]


def test_run_takes_what_a_sweep_queued_and_names_the_best(capfd: pytest.CaptureFixture[str]) -> None:
    """`add --sweep`, `run --group`: the trials of that sweep and nothing else, then the best of them."""
    experiments(one="good", other="good")
    assert 0 == queue("add", "other.yaml")
    assert 0 == queue("add", "one.yaml", "--sweep", "seed=1,2")
    capfd.readouterr()
    assert 0 == queue("run", "--group", "one")
    assert ["one-seed-1", "one-seed-2"] == started()
    assert lines(capfd.readouterr().out)[-3:] == [
        "",
        "best of one: one-seed-1, val loss 1.5000 with seed=1 (2 of 2 trials tried)",
        "In …: 2 finished; 1 queued left",
    ]


def test_the_outcome_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    """With --json only JSON is on standard output."""
    experiments(one="good", two="missing")
    assert 1 == queue("--json")
    found = json.loads(capfd.readouterr().out)
    assert [("one", "finished", 1.25), ("two", "failed", None)] == [
        (each["name"], each["state"], each["progress"]["loss"]) for each in found
    ]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(("sent", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interruption_reaches_the_training_once_and_stops_the_queue(sent: str, status: int) -> None:
    """Ctrl-C in a terminal goes to the whole process group: the training hears of it once, ends by itself, the next
    one is not started; the queue started again goes on with it."""
    experiments(done="good", slow="slow", later="good")
    command = [sys.executable, "-c", QUEUE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        while "slow" not in started() or not Path("results/slow/again").exists():
            time.sleep(0.01)
        os.killpg(running.pid, getattr(signal, sent))
        out, _ = running.communicate(timeout=60)
    assert status == running.returncode
    [heard] = Path("signals").read_text().splitlines()
    name, group = heard.split()
    assert "SIGTERM" == name
    assert int(group) != running.pid  # what goes to the queue's group does not reach the training a second time
    assert ["done", "slow"] == started()
    assert [line for line in lines(out)[-5:] if line] == [
        " 1  done   finished       10  1.2500    1.5000  1 min 30 s",
        " 2  slow   interrupted    10  1.2500    1.5000  1 min 30 s  starting the list again goes on with it",
        " 3  later  queued                                           busy",
        "In …: 1 finished, 1 interrupted, 1 queued",
    ]
    again = subprocess.run(command, check=False, capture_output=True, text=True)
    assert 0 == again.returncode, again.stdout + again.stderr
    assert ["done", "slow", "slow", "later"] == started()


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
@pytest.mark.slow
def test_a_killed_queue_does_not_lose_or_double_its_training() -> None:
    """kill -9 of the queue leaves its training running; a new queue finds it instead of starting a second."""
    experiments(slow="slow", later="good")
    with subprocess.Popen([sys.executable, "-c", QUEUE], stdout=subprocess.DEVNULL) as running:
        while not Path("results/slow/again").exists():
            time.sleep(0.01)
        running.kill()
    status = find("slow").status()
    assert status is not None
    assert status.pid is not None
    assert status.is_alive()
    with subprocess.Popen([sys.executable, "-c", QUEUE], stdout=subprocess.PIPE, text=True) as again:
        time.sleep(3)
        assert ["slow"] == started()
        os.kill(status.pid, signal.SIGTERM)
        again.communicate(timeout=60)
    assert 0 == again.returncode
    assert ["slow", "slow", "later"] == started()


def test_a_line_has_a_path_then_overrides_and_comments() -> None:
    """Comments, blank lines, quotes, nanoGPT's forms and a byte-order mark are read as people mean them."""
    experiments(one="good", two="good")
    Path("mine.conf").write_text(
        "\ufeff# experiments\n\none.yaml   # the first\none.yaml name=other --seed 3 prompt='a b' # c\n  two.yaml\n"
    )
    listed = read_list(Path("mine.conf"))
    assert [(3, "one"), (4, "other"), (5, "two")] == [(each.line, each.name) for each in listed]
    assert ("name=other", "seed=3", "prompt=a b") == listed[1].overrides
    assert listed[1].config is not None
    assert (3, "a b") == (listed[1].config.seed, listed[1].config.sample.prompt)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "one.yaml\none.yaml seed=2\n",
            "ConfigError: a second experiment would be the run one\n"
            "  where  mine.conf, line 2\n"
            "  why    line 1 is it already, and a run has one directory\n"
            "  try    one.yaml seed=2 name=one-2",
        ),
        (
            "one.yaml two.yaml\n",
            "ConfigError: a line names one config\n  where  mine.conf, line 1\n  try    one.yaml max_iters=1000",
        ),
        (
            "max_iters=3\n",
            "ConfigError: the line names no config\n"
            "  where  mine.conf, line 1\n"
            "  try    configs/exp_v100/test_run.yaml max_iters=1000",
        ),
        ("one.yaml name='x\n", "ConfigError: a quote is opened and never closed\n  where  mine.conf, line 1"),
        ("none.yaml\n", "ConfigError: there is no config none.yaml\n  try    one.yaml"),
    ],
)
def test_a_bad_line_is_explained(content: str, text: str) -> None:
    """What is wrong with a line stands with its number, and the other lines are still experiments."""
    experiments(one="good")
    Path("mine.conf").write_text(content + "one.yaml name=last\n")
    *_, bad, last = read_list(Path("mine.conf"))
    assert text == str(bad.error)
    assert last.error is None


def test_a_bad_line_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    """By its error, where that says the line itself; else below it."""
    Path("experiment_list.conf").write_text("one.yaml name='x\nnone.yaml\n")
    assert 1 == queue()
    assert capsys.readouterr().err == (
        "ConfigError: a quote is opened and never closed\n  where  experiment_list.conf, line 1\n\n"
        "ConfigError: there is no config none.yaml\n  in     experiment_list.conf, line 2\n\n"
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            None,
            "ConfigError: there is no list of experiments mine.conf\n  where  mine.conf\n"
            "  try    a file experiment_list.conf with a config a line: configs/exp_v100/test_run.yaml",
        ),
        (
            b"# configs/exp_v100/exp1_layer6.yaml\n",
            "ConfigError: the list names no experiment\n  where  mine.conf\n"
            "  why    a line that begins with # is not meant\n"
            "  try    a config a line, without # before it: configs/exp_v100/test_run.yaml",
        ),
        (b"caf\xe9.yaml\n", "ConfigError: the list of experiments is not UTF-8 text\n  where  mine.conf"),
    ],
)
def test_a_bad_list_is_explained(content: bytes | None, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No list, an empty one or no text: exit status 2, no traceback."""
    if content is not None:
        Path("mine.conf").write_bytes(content)
    assert 2 == queue("mine.conf")
    assert text + "\n" == capsys.readouterr().err


def test_a_line_may_choose_a_section() -> None:
    """`--config-section` takes one config of a file that holds several; the run is called after both."""
    Path("several.yaml").write_text("a: {train: {max_iters: 3}}\nb: {train: {max_iters: 4}}\n")
    Path("mine.conf").write_text("several.yaml --config-section b seed=2\nseveral.yaml --config-section=a\n")
    listed = read_list(Path("mine.conf"))
    assert [("several-b", "b", 4), ("several-a", "a", 3)] == [
        (each.name, each.section, each.config and each.config.train.max_iters) for each in listed
    ]


def test_a_status_of_a_finished_run_is_what_counts(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A finished run whose config cannot be read any more is told with its line, and stops nothing."""
    experiments(one="good", two="good")
    assert 0 == queue()
    (here / "results/one/config.yaml").write_text("train: {max_iters: x}")
    capfd.readouterr()
    assert 1 == queue()
    out, err = capfd.readouterr()
    assert "[2/2] two: finished already" == lines(out)[0]
    assert err.startswith("RunError: the config of the run one is damaged")
    assert ["one", "two"] == started()
