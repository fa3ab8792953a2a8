"""Killed at any system call, or out of disk at any write, a run goes on and ends as if nothing had happened.

A few points here. Many: GANEUM_KILL_POINTS=100 GANEUM_KILL_SEED=1 pytest -m campaign -s tests/train/test_kill_points.py
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import killing
import pytest
import tiny_corpus
from killing import DISK_FULL, DONE, KILLED, Point, Trainer

from ganeum.record import RunDirectory
from ganeum.train import checkpoint

LAST = 20  # steps of the tiny run
strace = pytest.mark.skipif(not killing.has_strace(), reason="strace is not installed")
SEED = int(os.environ.get("GANEUM_KILL_SEED", 1))
POINTS = int(os.environ.get("GANEUM_KILL_POINTS", 50))


@dataclass
class Undisturbed:
    """A run that nobody stopped: what it left, the calls it made, how long it took."""

    trainer: Trainer
    config: Path
    directory: Path
    outcome: dict[str, Any]
    points: list[Point]
    seconds: float

    def another(self, name: str) -> Path:
        """Where a run that will be disturbed puts its results."""
        return self.directory / name

    def gone_on_with(self, results: Path) -> dict[str, Any]:
        """The same command again, to the end."""
        assert self.trainer.run(self.config, results) == DONE
        return killing.outcome(results / "tiny", LAST)


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """In memory where there is such a place: a hundred fsyncs a run take their time on a disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def undisturbed(data: Path, directory: Path) -> Iterator[Undisturbed]:
    config = tiny_corpus.config(data, directory / "tiny.yaml")
    with killing.trainer() as trainer:
        start = time.monotonic()
        assert trainer.run(config, directory / "undisturbed") == DONE
        seconds = time.monotonic() - start
        outcome = killing.outcome(directory / "undisturbed" / "tiny", LAST)
        points: list[Point] = []
        if killing.has_strace():
            trace = directory / "trace"
            assert trainer.run(config, directory / "traced", strace=killing.tracing(trace)) == DONE
            assert killing.outcome(directory / "traced" / "tiny", LAST) == outcome
            points = killing.calls(trace)
        yield Undisturbed(trainer, config, directory, outcome, points, seconds)


def kill_somewhere(run: Undisturbed, draw: random.Random, results: Path) -> tuple[str, int]:
    """Kills a run (or what goes on with it) at a system call, or without strace at a time → where, and its status."""
    if run.points:
        point = draw.choice(run.points)
        return f"{point.call} {point.n}", run.trainer.run(run.config, results, strace=killing.killing(point))
    seconds = draw.uniform(0, run.seconds)
    return f"{seconds:.3f} s (no strace)", run.trainer.run(run.config, results, meanwhile=killing.after(seconds))


@pytest.mark.parametrize("number", range(6))
def test_killed_anywhere_it_ends_with_the_same_weights_and_losses(undisturbed: Undisturbed, number: int) -> None:
    """kill -9 at a random system call, then the same command: same weights bit for bit, same metrics, same samples."""
    results = undisturbed.another(f"killed-{number}")
    where, status = kill_somewhere(undisturbed, random.Random(SEED + number), results)
    assert status in (KILLED, DONE), where
    assert undisturbed.gone_on_with(results) == undisturbed.outcome, f"seed {SEED + number}, killed at {where}"


@strace
@pytest.mark.parametrize("number", range(4))
def test_a_full_disk_is_an_error_and_no_checkpoint_is_lost(undisturbed: Undisturbed, number: int) -> None:
    """From a random write on the disk is full: a RunError, every checkpoint whole; with space again it goes on."""
    results = undisturbed.another(f"full-{number}")
    fill_somewhere(undisturbed, random.Random(SEED + number), results)
    assert undisturbed.gone_on_with(results) == undisturbed.outcome


def fill_somewhere(run: Undisturbed, draw: random.Random, results: Path) -> int:
    place = draw.choice([place for place, point in enumerate(run.points) if point.call in killing.NEED_SPACE])
    status = run.trainer.run(run.config, results, strace=killing.filling(run.points, place))
    assert status in (DISK_FULL, DONE), f"seed {SEED}, {run.points[place]}: exit status {status}"
    directory = RunDirectory(results / "tiny")
    for step in checkpoint.steps(directory):
        checkpoint.check(directory.checkpoint_dir(step))
    return status


@pytest.mark.campaign
def test_many_kill_points(undisturbed: Undisturbed) -> None:
    """GANEUM_KILL_POINTS runs, each killed once, twice or three times over at random calls: none ends differently."""
    different, kills = [], 0
    for number in range(POINTS):
        draw = random.Random(SEED + number)
        results, places = undisturbed.another(f"campaign-{number}"), []
        for _ in range(1 + number % 3):
            where, status = kill_somewhere(undisturbed, draw, results)
            places.append(where)
            kills += status == KILLED
        if undisturbed.gone_on_with(results) != undisturbed.outcome:
            different.append((SEED + number, places))
    print(
        f"\n{POINTS} runs, {kills} kills at {len(undisturbed.points)} possible points (seed {SEED}): "
        f"{len(different)} differences"
    )
    assert not different


@strace
@pytest.mark.campaign
def test_many_full_disks(undisturbed: Undisturbed) -> None:
    """The disk is full from a random write on, then has space again: none ends differently."""
    different, full = [], 0
    for number in range(POINTS):
        results = undisturbed.another(f"campaign-full-{number}")
        full += fill_somewhere(undisturbed, random.Random(SEED + number), results) == DISK_FULL
        if undisturbed.gone_on_with(results) != undisturbed.outcome:
            different.append(SEED + number)
    print(f"\n{POINTS} runs, {full} full disks (seed {SEED}): {len(different)} differences")
    assert not different
