"""Variants of a training in processes of their own: what they answer, that they stand still, and how they end."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ganeum.doctor.measured import remedies
from ganeum.doctor.measured.fork_server import PLACE, early
from ganeum.doctor.measured.inside import counted
from ganeum.doctor.measured.remedy import Remedy
from ganeum.doctor.measured.subject import request, settled
from ganeum.doctor.measured.worker import Gone, Worker, Workers
from ganeum.errors import ConfigError

TRAININGS = Path(__file__).with_name("trainings.py")


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """One server for all tests; each sets what is built."""
    with Workers(f"{TRAININGS}:plain", limit_s=60) as all_of_them:
        yield all_of_them


def start(workers: Workers, function: str, *remedies: Remedy) -> Worker:
    workers.subject = settled(f"{TRAININGS}:{function}")
    return workers.start(remedies)


def gone(pid: int) -> bool:
    """Whether nothing is left of a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def ended(pid: int) -> bool:
    """Whether a process of Linux is over; whose child it became may not have asked for its status yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def soon(true: Callable[[], bool]) -> bool:
    """Whether it becomes so within a minute."""
    deadline = time.monotonic() + 60
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def test_a_block_counts_steps_and_tokens_that_carry_loss(workers: Workers) -> None:
    """30 steps go through eight batches almost four times; 4 × (16 − 4) labels of each count, though the step takes
    the labels away."""
    with start(workers, "plain") as worker:
        block = worker.block(30)
        assert (block.steps, block.tokens) == (30, 30 * 48)
        assert 0 < block.phases["data"] < block.seconds


def test_phases_are_found_by_hooks(workers: Workers) -> None:
    """The parts of a step add up to its time, forward, backward and optimizer among them; waiting is data."""
    with start(workers, "waiting") as worker:
        block = worker.phases(3)
        assert sum(block.phases.values()) == pytest.approx(block.seconds, rel=1e-6)
        assert min(block.phases[name] for name in ("forward", "backward", "optimizer")) > 0
        assert block.phases["data"] > 3 * 0.05


def test_a_model_whose_parts_are_called(workers: Workers) -> None:
    """Two networks in a list: their passes are forward time, and nothing is offered that needs the list's own pass."""
    with start(workers, "in_parts") as worker:
        facts = worker.facts()
        assert facts["forwards"] == 0
        offered = {one.act for one in remedies.of_training(dict(facts) | {"bf16": True, "phases": {}})}
        assert not offered & set(remedies.THROUGH_THE_MODEL)
        assert remedies.untried(facts)
        block = worker.phases(20)
        assert block.phases["forward"] > 0


def test_between_blocks_it_stands_still_with_all_that_it_started(workers: Workers, tmp_path: Path) -> None:
    """A program that the training started writes while a block is measured, and not while none is."""
    alive = tmp_path / "alive"
    told = Remedy("", "loader", "", environment={"ALIVE": str(alive)})
    with start(workers, "accompanied", told) as worker:
        while not alive.exists() or not alive.read_text():
            worker.warm(seconds=0.2)
        time.sleep(0.05)
        first = alive.read_text()
        time.sleep(0.3)
        assert alive.read_text() == first
        while alive.read_text() in ("", first):
            worker.warm(seconds=0.2)


def test_what_finds_no_memory_is_an_answer(workers: Workers) -> None:
    """An error of the step comes back in words; of memory it is said so."""
    with start(workers, "full") as worker, pytest.raises(Gone, match=r"MemoryError: 1 GiB \(trainings.py, line") as why:
        worker.block(1)
    assert why.value.memory


def test_what_the_system_ends_is_an_answer(workers: Workers) -> None:
    """SIGKILL, as of a machine without memory left."""
    with start(workers, "ended") as worker:
        with pytest.raises(Gone, match="the system ended it") as why:
            worker.block(1)
        assert why.value.memory
        assert gone(worker.pid)
        assert not worker.is_alive


def test_what_does_not_end_is_ended(workers: Workers) -> None:
    """A step without end takes no longer than the limit."""
    with start(workers, "endless") as worker:
        worker.limit_s = 0.5
        line = 1 + TRAININGS.read_text().split("time.sleep(1e6)")[0].count("\n")
        with pytest.raises(Gone, match=rf"it took longer than 0\.5 s: it is at trainings\.py, line {line}$"):
            worker.block(1)
        assert gone(worker.pid)


def test_batches_that_end_for_good_are_named(workers: Workers) -> None:
    """Two batches and no more: what is needed instead is said."""
    with start(workers, "once") as worker, pytest.raises(Gone, match="ended and cannot be iterated anew"):
        worker.block(3)


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("nothing", r"nothing\(\) gives int, where a ganeum\.doctor\.Training is expected"),
        ("unlearning", r"its model has no parameter that is trained, where one with requires_grad is expected"),
        ("leaving", r"it ended itself: sys\.exit\(3\) \(trainings\.py, line \d+\)"),
        ("empty", r"its batches are empty, or its step asks for one more than there are"),
    ],
)
def test_what_cannot_be_measured_is_named(workers: Workers, function: str, told: str) -> None:
    """What is no training, or none that can be stepped, in words instead of an error from inside torch or here."""
    with pytest.raises(Gone, match=told), start(workers, function) as worker:
        worker.facts()


def test_a_training_that_reads_the_command_line(workers: Workers) -> None:
    """argparse finds its defaults, as if the file were run without arguments."""
    with start(workers, "parsed") as worker:
        assert worker.block(1).steps == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not say what a process has started")
def test_what_it_started_elsewhere_ends_with_it(tmp_path: Path) -> None:
    """A program in a session of its own, an orphan of one that has ended, and shared memory: nothing is left."""
    notes = tmp_path / "notes"
    told = Remedy("", "loader", "", environment={"NOTES": str(notes)})
    with Workers(f"{TRAININGS}:detached", limit_s=60) as workers, workers.start([told]):
        own, orphan, memory = notes.read_text().split("\n")
        assert Path("/dev/shm", memory).exists()
    assert soon(lambda: ended(int(own)) and ended(int(orphan)))  # killed already; the system may take its time
    assert not Path("/dev/shm", memory).exists()


def test_nobody_is_left_behind() -> None:
    """Ctrl-C in the middle of a block: neither a worker nor its server lives on."""
    started = []

    def interrupted() -> None:
        with Workers(f"{TRAININGS}:plain") as workers:
            workers._modules = ()
            started.append((workers.empty(), next(iter(workers._servers.values()))._process))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    ((worker, server),) = started
    assert gone(worker.pid)
    assert server.poll() is not None


def test_the_end_of_what_forks_is_an_answer() -> None:
    """The system ended the process that all are forked from: the worker that there is ends, and no other starts."""
    with Workers(f"{TRAININGS}:plain") as workers:
        workers._modules = ()
        worker = workers.empty()
        (server,) = workers._servers.values()
        server._process.kill()
        server._process.wait()
        with pytest.raises(Gone, match="no process can be started for it"):
            workers.empty()
        worker.close()
        assert soon(lambda: gone(worker.pid) or (sys.platform == "linux" and ended(worker.pid)))


def test_nobody_outlives_a_process_that_was_killed() -> None:
    """SIGKILL of the one that measures: its workers, which stand still, end too."""
    code = (
        "import signal, time\nfrom ganeum.doctor.measured.worker import Workers\n"
        f"workers = Workers({f'{TRAININGS}:plain'!r})\nworkers._modules = ()\nworker = workers.empty()\n"
        "worker._signal(signal.SIGSTOP)\nprint(worker.pid, flush=True)\ntime.sleep(1e6)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as measuring:
        assert measuring.stdout is not None
        pid = int(measuring.stdout.readline())
        assert not gone(pid)
        measuring.kill()
    assert soon(lambda: gone(pid))


def test_what_a_killed_server_left_is_cleared_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its directories are, at the next start; not those that somebody uses, nor one that was made just now."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, used, young = (Path(tempfile.mkdtemp(prefix=PLACE)) for _ in range(3))
    (left / "socket").touch()
    for place in (left, used):
        os.utime(place, (1, 1))
    held = os.open(used, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    code = "from ganeum.doctor.measured.fork_server import _sweep\n_sweep()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path)}, check=True)
    os.close(held)
    assert (left.exists(), used.exists(), young.exists()) == (False, True, True)


@pytest.mark.parametrize(
    ("batch", "what"),
    [
        ({"input_ids": torch.ones(4, 8, dtype=torch.int64)}, "tokens"),
        ({"input_ids": torch.ones(4, 8, dtype=torch.int64), "labels": torch.ones(4, dtype=torch.int64)}, "rows"),
        ([torch.ones(32, dtype=torch.int64), torch.ones(32, dtype=torch.int64)], "rows"),
        ((torch.rand(4, 3, 8, 8), torch.ones(4, dtype=torch.int64)), "rows"),
        ({"pixel_values": torch.rand(4, 3, 8, 8), "labels": torch.ones(4, 8, 8, dtype=torch.int64)}, "labels"),
        (None, "rows"),
    ],
)
def test_what_is_counted(batch: Any, what: str) -> None:
    """Tokens only where there are some."""
    assert counted(batch) == what


def test_variables_that_libraries_read_as_they_load() -> None:
    """Threads of OpenMP need a process in which torch was not loaded yet; waiting for each kernel does not."""
    environment = {"OMP_NUM_THREADS": "2", "CUDA_LAUNCH_BLOCKING": None, "MALLOC_CHECK_": None}
    assert early(environment) == {"OMP_NUM_THREADS": "2", "MALLOC_CHECK_": None}


def test_a_function_that_nobody_else_could_find() -> None:
    """A closure has no name in a file, and is refused with the form of one that has."""
    with pytest.raises(ConfigError, match="cannot be found by its name") as error:
        settled(lambda: 7)  # type: ignore[arg-type,return-value]
    assert "def build():" in str(error.value)


def test_remedies_are_done_in_their_order() -> None:
    """Acts of several remedies, the first first; keys are of configs only."""
    remedies = [Remedy("a", "loader", "", act="first"), Remedy("b", "fp32", ""), Remedy("c", "loader", "", act="then")]
    asked = request(settled(f"{TRAININGS}:plain"), remedies)
    assert asked["acts"] == ["first", "then"]
    assert asked["function"] == "plain"
