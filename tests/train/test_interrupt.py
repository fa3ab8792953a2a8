"""Ctrl-C and SIGTERM end a run after its step, with a checkpoint; a second one does not wait."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import killing
import pytest
import tiny_corpus
from killing import DONE, Trainer

from ganeum.train.interrupt import Interrupted

STEPS = ("max_iters=100", "log.interval=10", "sample.interval=0", "eval_interval=50", "checkpoint_interval=1000")


@pytest.fixture(scope="module")
def trainer() -> Iterator[Trainer]:
    with killing.trainer() as process:
        yield process


def when_logged(metrics: Path, do: Callable[[int], None]) -> Callable[[int], None]:
    """Waits for the second logged step, then does something to the process."""

    def act(pid: int) -> None:
        end = time.monotonic() + 30
        while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
            assert time.monotonic() < end
            time.sleep(0.001)
        do(pid)

    return act


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_step_is_finished_and_the_run_goes_on(
    yaml: Path, here: Path, trainer: Trainer, number: signal.Signals, status: int
) -> None:
    """Exit status 130 or 143, `interrupted`, a checkpoint at that very step; it ends as an undisturbed run does."""
    assert trainer.run(yaml, here / "whole", *STEPS) == DONE
    run = here / "results" / "tiny"
    send = when_logged(run / "logs" / "metrics.jsonl", lambda pid: os.kill(pid, number))
    assert trainer.run(yaml, here / "results", *STEPS, meanwhile=send) == status
    noted = json.loads((run / "status.json").read_text())
    assert noted["state"] == "interrupted"
    assert 10 <= noted["step"] < 100
    assert (run / "checkpoints" / "latest").read_text() == f"step-{noted['step']:08d}\n"
    shown = (run / "logs" / "console.log").read_text()
    assert shown.endswith(f"tiny stopped at step {noted['step']}; the same command goes on from there\n")
    assert trainer.run(yaml, here / "results", *STEPS) == DONE
    assert killing.outcome(run, 100) == killing.outcome(here / "whole" / "tiny", 100)


def test_a_second_one_stops_at_once(yaml: Path, here: Path, trainer: Trainer) -> None:
    """No checkpoint is waited for; the next start goes on as after kill -9."""
    run = here / "results" / "tiny"

    def twice(pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)  # so that both are there before it runs again
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)

    send = when_logged(run / "logs" / "metrics.jsonl", twice)
    assert trainer.run(yaml, here / "results", *STEPS, meanwhile=send) in (130, 143)
    assert not (run / "checkpoints" / "latest").exists()
    assert trainer.run(yaml, here / "results", *STEPS) == DONE


def test_the_average_of_an_epoch_survives_an_interruption(data: Path, here: Path, trainer: Trainer) -> None:
    """Interrupted in the middle of the first epoch: its end prints the average over all of its steps."""
    config = tiny_corpus.config(data, here / "tiny.yaml")
    epochs = ("data.order=epochs", "epochs=1", "sample.interval=0", "log.interval=10", "eval_interval=500")
    assert trainer.run(config, here / "whole", *epochs) == DONE
    run = here / "results" / "tiny"
    send = when_logged(run / "logs" / "metrics.jsonl", lambda pid: os.kill(pid, signal.SIGINT))
    assert trainer.run(config, here / "results", *epochs, meanwhile=send) == 130
    assert trainer.run(config, here / "results", *epochs) == DONE

    def average(console: Path) -> str:
        return console.read_text().partition(" ➤ Avg Loss: ")[2].partition("\n")[0]

    assert average(here / "whole" / "tiny" / "logs" / "console.log")
    assert average(run / "logs" / "console.log") == average(here / "whole" / "tiny" / "logs" / "console.log")


@pytest.mark.parametrize(
    ("number", "error", "status"), [(signal.SIGTERM, Interrupted, 143), (signal.SIGINT, KeyboardInterrupt, 130)]
)
@pytest.mark.parametrize("moment", ["resolve", "start"])
def test_what_breaks_on_the_way_out_is_no_error_of_the_run(
    yaml: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
    number: signal.Signals,
    error: type[BaseException],
    status: int,
) -> None:
    """An import broken off leaves half a module, at which tidying up fails: the run was interrupted all the same. A
    library that goes on without what it cannot import does not go on now."""

    def broken_off(*_: object, **__: object) -> None:
        try:
            with suppress(Exception):
                signal.raise_signal(number)
        finally:
            raise AttributeError("module 'sympy' has no attribute 'printing'")

    with monkeypatch.context() as patched:
        patched.setattr(f"ganeum.train.run.{moment}", broken_off)
        with pytest.raises(error) as stop:
            tiny_corpus.go(yaml)
    assert getattr(stop.value, "exit_status", 130) == status
    run = here / "results" / "tiny"
    assert run.exists() == (moment != "resolve")
    if run.exists():
        assert json.loads((run / "status.json").read_text())["state"] == "interrupted"


@pytest.mark.parametrize("moment", ["resolve", "start", "summary.of"])
def test_sigterm_outside_the_loop_is_an_interruption_too(
    yaml: Path, here: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Before there is a run nothing is left; then, before the first step and after the last, it says `interrupted`."""

    def terminated(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(f"ganeum.train.run.{moment}", terminated)
        with pytest.raises(Interrupted) as stop:
            tiny_corpus.go(yaml)
    assert stop.value.exit_status == 143
    run = here / "results" / "tiny"
    assert run.exists() == (moment != "resolve")
    if run.exists():
        assert json.loads((run / "status.json").read_text())["state"] == "interrupted"
    assert tiny_corpus.go(yaml)[0]["steps"] == 20
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
