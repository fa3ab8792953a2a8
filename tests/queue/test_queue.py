"""`ganeum queue`: a list of experiments, run one after the other by processes that may fail, die or be interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.queue import sequential
from ganeum.queue.experiments import read_list
from ganeum.record import Status, find

STAND_IN = Path(__file__).with_name("stand_in.py")
QUEUE = f"""
import sys
from ganeum.cli import main
from ganeum.queue import sequential
sequential.TRAIN = (sys.executable, {str(STAND_IN)!r})
main(["queue", *sys.argv[1:]])
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    monkeypatch.setattr(sequential, "TRAIN", (sys.executable, str(STAND_IN)))
    return tmp_path


def experiments(**how: str) -> None:
    """A config for each experiment that goes so, all in the list."""
    for name, word in how.items():
        Path(f"{name}.yaml").write_text(f"data: {{directory: {word}}}\ntrain: {{max_iters: 10}}\n")
    Path("experiment_list.conf").write_text("".join(f"{name}.yaml\n" for name in how))


def queue(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit:
        main(["queue", *arguments])
    assert isinstance(exit.value.code, int)
    return exit.value.code


def started() -> list[str]:
    return Path("started").read_text().split() if Path("started").exists() else []


def test_all_are_run_in_order_and_shown_at_the_end(capfd: pytest.CaptureFixture[str]) -> None:
    """Each experiment once, in the list's order; a table of what became of each; exit status 0."""
    experiments(one="good", two="good")
    assert 0 == queue()
    assert ["one", "two"] == started()
    out, err = capfd.readouterr()
    assert "" == err
    assert [line.rstrip() for line in out.splitlines()] == [
        "[1/2] one: one.yaml",
        "[2/2] two: two.yaml",
        "",
        "experiment  state     step    loss  val loss        time",
        "one         finished    10  1.2500    1.5000  1 min 30 s",
        "two         finished    10  1.2500    1.5000  1 min 30 s",
    ]


def test_nothing_that_goes_wrong_stops_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    """A bad config is told at the start; a failure, a refusal and a killed process are shown; the rest is run."""
    experiments(bad="good", failing="failing", missing="missing", dying="dying", fine="good")
    Path("bad.yaml").write_text("train:\n  max_itres: 3\n")
    assert 1 == queue()
    assert ["failing", "missing", "dying", "fine"] == started()
    out, err = capfd.readouterr()
    assert err == (
        "ConfigError: there is no key train.max_itres\n"
        "  where  bad.yaml, line 2\n"
        "  try    train.max_iters\n"
        "  in     experiment_list.conf, line 1\n\n"
        "DataError: there is no data\n"
    )
    table = out[out.index("experiment ") :]
    assert [line.rstrip() for line in table.splitlines()] == [
        "experiment  state     step    loss  val loss        time",
        "bad.yaml    failed                                        line 1 is wrong: see above",
        "failing     failed      10  1.2500    1.5000  1 min 30 s  RunError: the loss is NaN",
        "missing     failed                                        exit status 2: see above",
        "dying       died        10  1.2500    1.5000  1 min 30 s  its process was killed (SIGKILL)",
        "fine        finished    10  1.2500    1.5000  1 min 30 s",
    ]


def test_started_again_it_goes_on_where_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    """What is finished is skipped, the rest is started again, and a raised length is not finished any more."""
    experiments(one="good", two="failing", three="good")
    assert 1 == queue()
    Path("two.yaml").write_text("data: {directory: failing}\ntrain: {max_iters: 10}\n")
    Path("experiment_list.conf").write_text("one.yaml\ntwo.yaml\nthree.yaml max_iters=20\n")
    Path("started").unlink()
    assert 1 == queue()
    assert ["two", "three"] == started()
    assert "[1/3] one: finished already" in capfd.readouterr().out
    assert 20 == find("three").status().step  # type: ignore[union-attr]


def test_the_outcome_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    """With --json only JSON is on standard output."""
    experiments(one="good", two="missing")
    assert 1 == queue("--json")
    found = json.loads(capfd.readouterr().out)
    assert [("one", "finished", 1.25), ("two", "failed", None)] == [
        (each["name"], each["state"], each["run"] and each["run"]["loss"]) for each in found
    ]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize(
    ("sent", "received", "status"),
    [("SIGINT", "SIGINT", 130), ("SIGTERM", "SIGTERM", 143), ("SIGHUP", "SIGTERM", 129)],
)
def test_an_interruption_reaches_the_training_once_and_stops_the_queue(sent: str, received: str, status: int) -> None:
    """Ctrl-C in a terminal goes to the whole process group: the training hears of it once, ends by itself, the next
    one is not started; the queue started again goes on with it."""
    experiments(done="good", slow="slow", later="good")
    command = [sys.executable, "-c", QUEUE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        while "slow" not in started() or not Path("results/slow/again").exists():
            time.sleep(0.01)
        os.killpg(running.pid, getattr(signal, sent))
        out, _ = running.communicate(timeout=30)
    assert status == running.returncode
    [heard] = Path("signals").read_text().splitlines()
    name, group = heard.split()
    assert received == name
    assert int(group) != running.pid  # what goes to the queue's group does not reach the training a second time
    assert ["done", "slow"] == started()
    states = [line.split()[:2] for line in out[out.index("experiment ") :].splitlines()[1:]]
    assert [["done", "finished"], ["slow", "interrupted"], ["later", "waiting"]] == states
    assert 0 == subprocess.run(command, check=False, capture_output=True).returncode
    assert ["done", "slow", "slow", "later"] == started()


@pytest.mark.skipif(os.name == "nt", reason="kill -9 is POSIX")
def test_a_killed_queue_does_not_lose_or_double_its_training(capfd: pytest.CaptureFixture[str]) -> None:
    """kill -9 of the queue leaves its training running; a new queue waits for that one instead of starting a second."""
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
        assert again.stdout is not None
        assert f"[1/2] slow: process {status.pid} trains it; waiting for that to end\n" == again.stdout.readline()
        assert ["slow"] == started()
        os.kill(status.pid, signal.SIGTERM)
        assert "[1/2] slow: slow.yaml\n" == again.stdout.readline()
        again.communicate(timeout=30)
    assert 0 == again.returncode
    assert ["slow", "slow", "later"] == started()


def test_a_line_has_a_path_then_overrides_and_comments() -> None:
    """Comments, blank lines, quotes, nanoGPT's forms and a byte-order mark are read as people mean them."""
    experiments(one="good", two="good")
    Path("list").write_text(
        "\ufeff# experiments\n\none.yaml   # the first\none.yaml name=other --seed 3 prompt='a b' # c\n  two.yaml\n"
    )
    listed = read_list(Path("list"))
    assert [(3, "one"), (4, "other"), (5, "two")] == [(each.line, each.name) for each in listed]
    assert ("one.yaml", "name=other", "seed=3", "prompt=a b") == listed[1].arguments
    assert listed[1].config is not None
    assert (3, "a b") == (listed[1].config.seed, listed[1].config.sample.prompt)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "one.yaml\none.yaml seed=2\n",
            "ConfigError: a second experiment would be the run one\n"
            "  where  list, line 2\n"
            "  why    line 1 is it already, and a run has one directory\n"
            "  try    one.yaml seed=2 name=one-2",
        ),
        (
            "one.yaml two.yaml\n",
            "ConfigError: a line names one config\n  where  list, line 1\n  try    one.yaml max_iters=1000",
        ),
        (
            "max_iters=3\n",
            "ConfigError: the line names no config\n"
            "  where  list, line 1\n"
            "  try    configs/exp_v100/test_run.yaml max_iters=1000",
        ),
        ("one.yaml name='x\n", "ConfigError: a quote is opened and never closed\n  where  list, line 1"),
        ("none.yaml\n", "ConfigError: there is no config none.yaml\n  try    one.yaml"),
    ],
)
def test_a_bad_line_is_explained(content: str, text: str) -> None:
    """What is wrong with a line stands with its number, and the other lines are still experiments."""
    experiments(one="good")
    Path("list").write_text(content + "one.yaml name=last\n")
    *_, bad, last = read_list(Path("list"))
    assert text == str(bad.error)
    assert last.error is None


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            None,
            "ConfigError: there is no list of experiments list\n  where  list\n"
            "  try    a file experiment_list.conf with a config a line: configs/exp_v100/test_run.yaml",
        ),
        (
            b"# configs/exp_v100/exp1_layer6.yaml\n",
            "ConfigError: the list names no experiment\n  where  list\n"
            "  why    a line that begins with # is not meant\n"
            "  try    a config a line, without # before it: configs/exp_v100/test_run.yaml",
        ),
        (b"caf\xe9.yaml\n", "ConfigError: the list of experiments is not UTF-8 text\n  where  list"),
    ],
)
def test_a_bad_list_is_explained(content: bytes | None, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No list, an empty one or no text: exit status 2, no traceback."""
    if content is not None:
        Path("list").write_bytes(content)
    assert 2 == queue("list")
    assert text + "\n" == capsys.readouterr().err


def test_a_process_that_cannot_start_does_not_stop_the_queue(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No memory for another process, or no program: said in the table."""
    experiments(one="good")
    monkeypatch.setattr(sequential, "TRAIN", ("/no/such/program",))
    assert 1 == queue()
    assert "its process cannot be started: No such file or directory" in capfd.readouterr().out


def test_a_status_of_a_finished_run_is_what_counts(here: Path) -> None:
    """A finished run whose config cannot be read any more is left to the training to explain, and stops nothing."""
    experiments(one="good", two="good")
    assert 0 == queue()
    (here / "results/one/config.yaml").write_text("train: {max_iters: x}")
    assert 1 == queue()
    assert ["one", "two", "one"] == started()
    status = Status.read(find("one").status_path)
    assert status is not None
    assert "finished" == status.state


def test_a_kill_that_left_no_word_is_told_by_the_kernels_count() -> None:
    """A process that died before it had a run directory: memory only where the count has moved, and only of SIGKILL."""
    memory = "its process was probably killed for want of the machine's memory (SIGKILL, and the kernel counts one)"
    assert [sequential._ended(status, 1) for status in (-9, 137)] == [memory, memory]
    assert sequential._ended(-9, 0) == "its process was killed (SIGKILL)"
    assert sequential._ended(-11, 1) == "its process was killed (SIGSEGV)"
    assert sequential._ended(2, 1) == "exit status 2: see above"
