"""Runs benchmarks/queue_faults.py with one accident a round that it must see: what its word is worth."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import queue_faults
import queue_world
from queue_world import TRAINER, World, config

from ganeum.queue.entry import GOING, Entry
from ganeum.queue.freeze import config_path
from ganeum.queue.process import TOKEN, Identity
from ganeum.queue.store import Store

WAIT = "import time; time.sleep(8)"


def running(world: World) -> Entry:
    """An entry whose training has begun."""
    world.wait_for_a_training()
    names = {Path(path).parents[1].name for process in world.trainings() if (path := config(process))}
    return next(entry for entry in world.entries() if entry.state in GOING and entry.name in names)


def until(true: Callable[[], list[Any]]) -> list[Any]:
    """What it gives as soon as that is something."""
    deadline = time.monotonic() + 60
    while not (given := true()):
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.01)
    return given


def trained_by(world: World, entry: Entry, *command: str) -> None:
    """Another process that trains an entry's run."""
    with Store(world.list) as store:
        path = config_path(store.run(entry))
    environment = {**world.environment, TOKEN: "planted"}
    subprocess.run([sys.executable, *command, "train", str(path)], env=environment, timeout=60)


def twice(world: World) -> None:
    """A second training of a run, as a queue would start it."""
    trained_by(world, running(world), str(TRAINER), "stand-in")


def twice_without_a_lock(world: World) -> None:
    """A second training of a run, which leaves no trace; somebody must see it."""
    world.wait_for_a_training()
    training = next(process for process in world.trainings() if config(process))
    training.suspend()  # so that it is still there when somebody looks
    command = [sys.executable, "-c", WAIT, "train", config(training)]
    subprocess.Popen(command, env={**world.environment, TOKEN: "planted"})


def a_stray(world: World) -> None:
    """A process of an attempt that the list knows nothing of."""
    subprocess.Popen([sys.executable, "-c", WAIT], env={**world.environment, TOKEN: "planted"})


def again(world: World) -> None:
    """A run that has finished is started once more."""
    done = until(lambda: [entry for entry in world.entries() if entry.state == "finished"])
    with Store(world.list) as store:
        store.update(done[0].id, state="queued", priority=1)
    until(lambda: list((world.faults / "again").iterdir()))


def lost(world: World) -> None:
    """A run that is under way is killed, and its checkpoints are deleted."""
    checkpoints = world.results / running(world).name / "checkpoints"
    until(lambda: list(checkpoints.glob("step-*")))
    for process in world.trainings():
        queue_world.kill(process)
    shutil.rmtree(checkpoints)
    until(lambda: list((world.faults / "lost").iterdir()))


def dead(world: World) -> None:
    """The list says that something runs, and nothing does."""
    with Store(world.list) as store:
        still = next(entry for entry in store.all() if entry.state not in GOING)
        me = asdict(Identity.of_this_process())
        store.update(still.id, (still.state,), state="running", token="planted", **me)


def gone(world: World) -> None:
    """An entry is taken off the list."""
    with Store(world.list) as store:
        store.remove([next(entry.id for entry in store.all() if entry.state == "queued")])


PLANTS = (twice, again, lost, a_stray, dead, gone, twice_without_a_lock)
left = iter(PLANTS)
queue_faults.ACCIDENTS = {"planted": (lambda world, draw: next(left)(world), 1)}
queue_faults.MOST_BROKEN = len(PLANTS)
queue_world.WITHIN_S = 5.0
sys.argv += ["--rounds", str(len(PLANTS))]
os.environ.pop(TOKEN, None)
sys.exit(queue_faults.main())
