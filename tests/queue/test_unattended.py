"""The queue when nobody is there any more: a terminal that is closed, `nohup`, a pipe that nobody reads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from at_work import QUEUE, until

if os.name == "nt":
    pytest.skip("signals and terminals are POSIX", allow_module_level=True)

from terminal import Terminal

from ganeum.queue.store import Store


@pytest.fixture(autouse=True)
def two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes a minute unless it is asked to end, and one after it, with a name in Korean."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GANEUM_RESULTS", "results")
    Path("slow.yaml").write_text("data: {directory: slow}\ntrain: {max_iters: 10}\n")
    Path("실험.yaml").write_text("data: {directory: good}\ntrain: {max_iters: 10}\n")
    Path("experiment_list.conf").write_text("slow.yaml\n실험.yaml\n")


def until_it_trains(patience_s: float = 60.0) -> None:
    deadline = time.monotonic() + patience_s
    while not Path("results/slow/again").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(0.3)  # its handler is set right before


def states() -> dict[str, str]:
    with Store.default() as store:
        return {entry.name: entry.state for entry in store.all()}


def ganeum(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", QUEUE, *words], capture_output=True, text=True, check=False)


def test_a_closed_terminal_ends_a_list_with_a_checkpoint() -> None:
    """ssh is cut off under `python run_manager.py`: what runs is saved, and the next start goes on with it."""
    with Terminal(code=QUEUE) as terminal:
        until_it_trains()
        terminal.hang_up()
        assert 129 == terminal.process.wait(timeout=60)
    assert {"slow": "interrupted", "실험": "queued"} == states()
    assert ["SIGTERM"] == [line.split()[0] for line in Path("signals").read_text().splitlines()]
    assert 0 == ganeum().returncode
    assert {"slow": "finished", "실험": "finished"} == states()


def test_a_closed_terminal_leaves_what_the_queue_started() -> None:
    """The same under `ganeum queue run`: it ends, and its run goes on; the next one takes it over."""
    ganeum("add", "slow.yaml", "실험.yaml")
    with Terminal("run", code=QUEUE) as terminal:
        until_it_trains()
        terminal.hang_up()
        assert 129 == terminal.process.wait(timeout=60)
    assert {"slow": "running", "실험": "queued"} == states()
    assert not Path("signals").exists()
    assert 0 == ganeum("kill", "slow", "--wait").returncode
    assert 0 == ganeum("run").returncode
    assert {"slow": "killed", "실험": "finished"} == states()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_ends_when_asked_and_leaves_its_runs(number: int, status: int) -> None:
    """Ctrl-C and SIGTERM end `ganeum queue run` and nothing else; the next ends with 1: not all have finished."""
    ganeum("add", "slow.yaml", "실험.yaml")
    command = [sys.executable, "-c", QUEUE, "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as queue:
        until_it_trains()
        os.killpg(queue.pid, number)
        out, _ = queue.communicate(timeout=60)
    assert status == queue.returncode
    assert "1 run left training; `ganeum queue run` finds it again" in out
    assert {"slow": "running", "실험": "queued"} == states()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as queue:
        with Store.default() as store:
            until(store.managers)
        assert 0 == ganeum("kill", "slow").returncode
        out, _ = queue.communicate(timeout=60)
    assert (1, {"slow": "killed", "실험": "finished"}) == (queue.returncode, states())
    assert out.splitlines()[-1].endswith(": 1 finished, 1 killed")


def test_nohup_outlives_its_terminal() -> None:
    """`nohup python run_manager.py &`: a hangup is none of its business."""
    nohup = ["nohup", sys.executable, "-c", QUEUE]
    with (
        Path("out").open("wb") as out,
        subprocess.Popen(nohup, stdout=out, stderr=out, start_new_session=True) as queue,
    ):
        until_it_trains()
        os.killpg(queue.pid, signal.SIGHUP)
        time.sleep(1.0)
        assert queue.poll() is None
        os.killpg(queue.pid, signal.SIGTERM)
        assert 143 == queue.wait(timeout=60)
    assert {"slow": "interrupted", "실험": "queued"} == states()


def test_a_pipe_that_nobody_reads_stops_nothing() -> None:
    """`ganeum queue run | head -1`: the runs are trained; no traceback."""
    Path("slow.yaml").write_text("data: {directory: good}\ntrain: {max_iters: 10}\n")
    ganeum("add", "slow.yaml", "실험.yaml")
    with subprocess.Popen(
        [sys.executable, "-c", QUEUE, "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as queue:
        assert queue.stdout is not None
        assert queue.stderr is not None
        queue.stdout.close()
        assert "" == queue.stderr.read()
    assert {"slow": "finished", "실험": "finished"} == states()


@pytest.mark.parametrize(
    "surroundings", [{"LC_ALL": "C"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"NO_COLOR": "1"}]
)
def test_a_terminal_that_knows_little_gets_what_it_can_show(
    surroundings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locale without Korean letters, no colours wished for: the list and the live view come all the same."""
    ganeum("add", "slow.yaml", "실험.yaml")
    for name, value in surroundings.items():
        monkeypatch.setenv(name, value)
    name = "??" if "PYTHONUTF8" in surroundings else "실험"
    with Terminal("list", code=QUEUE) as terminal:
        status, output = terminal.end()
    assert (0, True) == (status, f" 2  {name}" in output)
    with Terminal("watch", "--interval", "0.2", code=QUEUE) as terminal:
        terminal.until(lambda output: f"2  {name}" in output)
        terminal.type("q")
        status, output = terminal.end()
    assert (0, False) == (status, "Traceback" in output)
    assert "NO_COLOR" not in surroundings or "\x1b[3" not in output.replace("\x1b[3J", "")
