"""Runs experiments one after the other, each in a process of its own; what became of one never stops the next.

There is no file of the queue's own: what is finished, interrupted or running is what the run directories say. So the
queue may die at any moment, and started again it goes on where it was.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TextIO

from ganeum.hardware import limits
from ganeum.queue.experiments import Experiment
from ganeum.record import RunDirectory, is_finished, results_dir
from ganeum.record.overview import Row, overview

TRAIN = (sys.executable, "-m", "ganeum", "train")  # an experiment's arguments follow
POLL_S = 1.0


@dataclass(frozen=True)
class Result:
    """What became of one experiment. `state`: finished, failed, interrupted, died, waiting (its turn never came)."""

    experiment: Experiment
    state: str
    row: Row | None = None
    note: str = ""


@dataclass
class Stop:
    """A wish to stop, by Ctrl-C or a signal, handed on to the process that trains."""

    signal: int | None = None
    child: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        self.signal = number
        self.pass_on()

    def pass_on(self) -> None:
        # On Windows the console tells every process by itself. A closed terminal is a wish to stop like any other.
        if self.child is not None and self.signal is not None and os.name != "nt":
            self.child.send_signal(signal.SIGINT if self.signal == signal.SIGINT else signal.SIGTERM)


@contextmanager
def stopping() -> Iterator[Stop]:
    """While open, Ctrl-C, SIGTERM and SIGHUP become a `Stop` and nothing else."""
    stop = Stop()
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, stop.ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_all(
    experiments: Sequence[Experiment],
    stop: Stop,
    say: Callable[[str], None],
    *,
    stdout: TextIO | None = None,
) -> list[Result]:
    """Run each experiment that is not finished → what became of each, in the list's order.

    Args:
        say: takes the lines that tell which experiment it is.
        stdout: where the trainings print; None: where this process does.
    """
    results = []
    for number, experiment in enumerate(experiments, start=1):
        heading = f"[{number}/{len(experiments)}] {experiment.name}"
        if experiment.error is not None or experiment.config is None:
            results.append(Result(experiment, "failed", note=f"line {experiment.line} is wrong: see above"))
            continue
        run = RunDirectory(results_dir() / experiment.name)
        _wait_for_others(run, stop, say, heading)
        if is_finished(experiment.config):
            say(f"{heading}: finished already")
            results.append(Result(experiment, "finished", _row(run)))
        elif stop.signal is not None:
            results.append(Result(experiment, "waiting", _row(run)))
        else:
            say(f"{heading}: {experiment.text}")
            before = _kills()
            try:
                status = _run([*TRAIN, *experiment.arguments], stop, stdout)
            except OSError as error:  # no memory for another process, say
                results.append(Result(experiment, "failed", note=f"its process cannot be started: {error.strerror}"))
            else:
                results.append(_result(experiment, run, status, stop, _kills() - before))
    return results


def _run(command: Sequence[str], stop: Stop, stdout: TextIO | None) -> int:
    # A session of its own: Ctrl-C in the terminal reaches it once, through us, and not twice.
    stop.child = subprocess.Popen(command, stdout=stdout, start_new_session=True)
    try:
        stop.pass_on()  # what came while it started
        return stop.child.wait()
    finally:
        stop.child = None


def _wait_for_others(run: RunDirectory, stop: Stop, say: Callable[[str], None], heading: str) -> None:
    """A run that another process trains, one left over by a killed queue say, is let be until it ends."""
    status = run.status()
    if status is not None and status.state == "running" and status.is_alive():
        say(f"{heading}: process {status.pid} trains it; waiting for that to end")
        while status.is_alive() and stop.signal is None:
            time.sleep(POLL_S)


def _result(experiment: Experiment, run: RunDirectory, status: int, stop: Stop, kills: int) -> Result:
    row = _row(run)
    if status == 0:
        return Result(experiment, "finished", row)
    if stop.signal is not None or (row is not None and row.state == "interrupted"):
        return Result(experiment, "interrupted", row, "starting the queue again goes on with it")
    if row is not None and row.state in ("failed", "died"):
        return Result(experiment, row.state, row, (row.error or _ended(status, kills)).splitlines()[0])
    return Result(experiment, "failed", row, _ended(status, kills))


def _ended(status: int, kills: int) -> str:
    """How a process ended that left no word; a shell counts a signal from 128. `kills`: of the kernel, meanwhile."""
    number = -status if status < 0 else status - 128
    if number not in {int(known) for known in signal.Signals}:
        return f"exit status {status}: see above"
    name = signal.Signals(number).name
    if name == "SIGKILL" and kills > 0:
        return "its process was probably killed for want of the machine's memory (SIGKILL, and the kernel counts one)"
    return f"its process was killed ({name})"


def _kills() -> int:
    """How many processes the kernel has killed for want of memory, where it counts them."""
    counter = limits.oom_counter()
    return (limits.oom_kills(counter) or 0) if counter else 0


def _row(run: RunDirectory) -> Row | None:
    return overview(run)[0] if run.exists() else None
