"""What happens in queue_faults.py: each accident takes the world and the round's random numbers."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from queue_world import DATA_WORKER, MANAGERS, World, command, config, kill, token

from ganeum.errors import QueueError
from ganeum.queue import control
from ganeum.queue.entry import ENDED, Entry
from ganeum.queue.store import Store, rebuild
from ganeum.record.status import boot_id

CHANGES = {"manager": 5.5, "child": 3.5, "training": 6.5}  # of files, as a power of two: about as many as one makes


def kill_a_manager(world: World, draw: random.Random) -> None:
    draw.choice(world.managers).kill()


def kill_both_managers(world: World, draw: random.Random) -> None:
    for manager in world.managers:
        manager.kill()


def kill_managers_as_they_start(world: World, draw: random.Random) -> None:
    """Again and again, at any moment of claiming and starting."""
    for _ in range(3):
        kill_both_managers(world, draw)
        world.start_managers()
        time.sleep(draw.uniform(0.2, 1.5))
    kill_both_managers(world, draw)


def stop_a_manager(world: World, draw: random.Random) -> None:
    """SIGSTOP, as a machine that swaps does to it; it goes on later, and finds another world, or is killed."""
    manager = draw.choice(world.managers)
    manager.send_signal(signal.SIGSTOP)
    time.sleep(draw.uniform(0.3, 4.0))
    manager.send_signal(draw.choice([signal.SIGCONT, signal.SIGCONT, signal.SIGKILL]))


def stop_both_managers_and_start_a_third(world: World, draw: random.Random) -> None:
    both = list(world.managers)
    for manager in both:
        manager.send_signal(signal.SIGSTOP)
    world.start_managers(MANAGERS + 1)
    time.sleep(draw.uniform(1.0, 4.0))
    for manager in both:
        manager.send_signal(signal.SIGCONT)
    time.sleep(draw.uniform(0.0, 1.0))
    draw.choice(world.managers).kill()


def kill_a_run(world: World, draw: random.Random) -> None:
    """Any process of any attempt: its first, the training, a data worker."""
    if there := world.trainings():
        kill(draw.choice(there))


def kill_a_data_worker(world: World, draw: random.Random) -> None:
    if there := [process for process in world.trainings() if command(process)[:1] == DATA_WORKER]:
        kill(draw.choice(there))


def kill_all_but_the_data_worker(world: World, draw: random.Random) -> None:
    """Both its first process and the training: nobody is left who would end the data worker."""
    if there := [process for process in world.trainings() if config(process)]:
        attempt = token(draw.choice(there))
        for process in world.trainings():
            if token(process) == attempt and command(process)[:1] != DATA_WORKER:
                kill(process)


def kill_a_run_and_the_managers(world: World, draw: random.Random) -> None:
    kill_both_managers(world, draw)
    kill_a_run(world, draw)


def kill_all_of_a_run(world: World, draw: random.Random) -> None:
    if there := world.trainings():
        attempt = token(draw.choice(there))
        for process in there:
            if token(process) == attempt:
                kill(process)


def stop_a_run(world: World, draw: random.Random) -> None:
    """SIGSTOP to any process of any attempt, and on it goes."""
    if there := world.trainings():
        process = draw.choice(there)
        with suppress(Exception):
            process.suspend()
            time.sleep(draw.uniform(0.3, 3.0))
            process.resume()


def pause_a_run(world: World, draw: random.Random) -> None:
    _ask(world, draw, control.pause)
    if draw.random() < 0.3:
        kill_a_manager(world, draw)


def at_a_moment(role: str, what: str, world: World, draw: random.Random) -> None:
    """Exactly before one of the first changes that a process makes to files: of a manager that is just started, or has
    a run to see to; of a run's first process; of a training."""
    number = round(2 ** draw.uniform(0, CHANGES[role]))
    with world.planned(role, number, what, within_s=5.0 if world.real else 3.0):
        if role == "manager":
            draw.choice([kill_a_manager, kill_a_run, kill_all_of_a_run])(world, draw)
        elif draw.random() < 0.7:
            kill_all_of_a_run(world, draw)
        world.start_managers()
    if what == "stop":
        time.sleep(12.0 if draw.random() < 0.1 else draw.uniform(0.3, 3.0))  # 12: longer than others wait for its lock
    elif what == "full":
        time.sleep(draw.uniform(0.1, 2.0))


def lock_the_list(world: World, draw: random.Random) -> None:
    with sqlite3.connect(world.list, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        if draw.random() < 0.5:
            kill_both_managers(world, draw)
            world.start_managers()  # they open a list that is locked
        time.sleep(12.0 if draw.random() < 0.1 else draw.uniform(0.1, 3.0))
        other.execute("ROLLBACK")
    other.close()


def fill_the_disk(world: World, draw: random.Random) -> None:
    (world.faults / "full").touch()
    if draw.random() < 0.3:
        kill_both_managers(world, draw)
        world.start_managers()  # they open a list on a full disk
    time.sleep(draw.uniform(0.1, 3.0))
    if draw.random() < 0.5:
        kill_a_manager(world, draw)


def reboot(world: World, draw: random.Random) -> None:
    """Everything dies at once, and the boot has another id."""
    world.end()
    world.boots += 1
    (world.faults / "boot").write_text(f"boot-{world.boots}")
    boot_id.cache_clear()


def give_a_run_s_id_to_a_stranger(world: World, draw: random.Random) -> None:
    """All die, and what the list has as a run's process is another program's by the time the queue looks."""
    world.end()
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
    world.strangers.append(stranger)
    with sqlite3.connect(world.list) as other:
        other.execute("UPDATE entries SET pid = ? WHERE state IN ('starting', 'running')", (stranger.pid,))
    other.close()


def turn_the_clock(world: World, draw: random.Random) -> None:
    (world.faults / "clock").write_text(str(draw.uniform(-86_400, 86_400) * draw.choice([0, 1, 30])))


def damage_the_list(world: World, draw: random.Random) -> None:
    """All die, and the middle of the file is overwritten; the user makes the list again from the runs."""
    world.end()
    world.entries()  # whoever closes it last brings all of it into this one file
    size = world.list.stat().st_size
    with world.list.open("r+b") as file:
        file.seek(0 if draw.random() < 0.3 else size // 3)
        file.write(draw.randbytes(size // 2))
    try:
        world.entries()
    except QueueError:
        rebuild(world.list)


def lose_the_list(world: World, draw: random.Random) -> None:
    world.end()
    for suffix in ("", "-wal", "-shm"):
        world.list.with_name(world.list.name + suffix).unlink(missing_ok=True)


def _ask(world: World, draw: random.Random, what: Callable[[Store, Entry], Any]) -> None:
    with Store(world.list) as store:
        if open_ := [entry for entry in store.all() if entry.state not in ENDED]:
            with suppress(QueueError):  # it has just ended
                what(store, draw.choice(open_))


Accident = Callable[[World, random.Random], None]
KINDS: dict[str, dict[str, tuple[Accident, int]]] = {  # each accident with its weight
    "managers killed or stopped": {
        "a manager killed": (kill_a_manager, 3),
        "both managers killed": (kill_both_managers, 2),
        "managers killed as they start": (kill_managers_as_they_start, 2),
        "a manager killed at one of its changes to files": (partial(at_a_moment, "manager", "kill"), 12),
        "a manager stopped (SIGSTOP) at one of its changes to files": (partial(at_a_moment, "manager", "stop"), 3),
        "a manager stopped for a while": (stop_a_manager, 2),
        "both managers stopped, a third started": (stop_both_managers_and_start_a_third, 3),
    },
    "runs killed, stopped or paused": {
        "any process of a run killed": (kill_a_run, 4),
        "all of a run killed": (kill_all_of_a_run, 2),
        "a run and both managers killed": (kill_a_run_and_the_managers, 3),
        "a data worker killed": (kill_a_data_worker, 2),
        "all of a run but its data worker killed": (kill_all_but_the_data_worker, 2),
        "a run's first process killed at one of its changes to files": (partial(at_a_moment, "child", "kill"), 6),
        "a training killed at one of its changes to files": (partial(at_a_moment, "training", "kill"), 6),
        "any process of a run stopped for a while": (stop_a_run, 2),
        "a run paused": (pause_a_run, 3),
    },
    "the disk full": {
        "the disk full for a while": (fill_the_disk, 3),
        "the disk full at a manager's change to a file": (partial(at_a_moment, "manager", "full"), 3),
        "the disk full at a first process's change to a file": (partial(at_a_moment, "child", "full"), 2),
        "the disk full at a training's change to a file": (partial(at_a_moment, "training", "full"), 2),
    },
    "the list locked, damaged or deleted": {
        "the list locked": (lock_the_list, 3),
        "the list damaged": (damage_the_list, 2),
        "the list deleted": (lose_the_list, 1),
    },
    "the machine started anew, process ids given out again, the clock turned": {
        "the machine started anew": (reboot, 3),
        "a process id given to a stranger": (give_a_run_s_id_to_a_stranger, 2),
        "the clock turned": (turn_the_clock, 2),
    },
}
ACCIDENTS = {name: accident for accidents in KINDS.values() for name, accident in accidents.items()}
