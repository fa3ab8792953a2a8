"""The queue under fire: managers and runs killed, a full disk, a locked and a damaged list, reboots, a jumping clock.

    python benchmarks/queue_faults.py --rounds 500           # stand-ins for trainings: about three seconds a round
    python benchmarks/queue_faults.py --rounds 500 --real    # `ganeum train` itself: about ten

Two managers work on one list. In each round something happens to them, drawn from the seed; then the world is put right
(managers started again, room on the disk) and within 40 seconds every entry must be there, every run finished or on its
way, no process left that belongs to nothing; and never may two processes have trained one run at once. At the end all
runs must finish; real ones with the same weights, bit for bit. A summary is printed, and written with -o.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

import ganeum
from ganeum.config import load
from ganeum.errors import QueueError
from ganeum.hardware.machine import cpu_name
from ganeum.queue import control, freeze
from ganeum.queue.entry import ENDED, GOING, Entry
from ganeum.queue.process import TOKEN
from ganeum.queue.store import Store, rebuild
from ganeum.record import RunDirectory
from ganeum.record.status import boot_id

STEPS = 100  # of a stand-in: queue_trainer.STEPS
TRAINER = Path(__file__).with_name("queue_trainer.py")
MANAGERS = 2
WITHIN_S = 40.0  # until all is well again

# One that cannot open the list now tries again, as systemd would have it.
MANAGER = """
import sys, threading, time
from pathlib import Path
from ganeum.errors import QueueError
from ganeum.queue import failure, manager
from ganeum.queue.store import Store
failure.PAUSE_S = manager.RETRY_S = 0.5
while True:
    try:
        store = Store(Path(sys.argv[1]))
        break
    except QueueError as error:
        if error.kind not in ("locked", "full"):
            raise
        time.sleep(0.5)
manager.run(store, until_empty=False, stop=threading.Event(), say=print, train=sys.argv[2:], poll_s=0.05)
"""

# In every process of the world: another boot and another clock than the machine's, as files say.
SITE = """
import os, pathlib, time
faults = os.environ.get("GANEUM_FAULTS")
if faults:
    read_text, clock = pathlib.Path.read_text, time.time

    def read(self, *arguments, **options):
        path = os.path.join(faults, "boot") if str(self) == "/proc/sys/kernel/random/boot_id" else self
        return read_text(pathlib.Path(path), *arguments, **options)

    def now():
        try:
            with open(os.path.join(faults, "clock")) as file:
                return clock() + float(file.read() or 0)
        except OSError:
            return clock()

    pathlib.Path.read_text, time.time = read, now
"""

# While the file `full` is there, nothing is written to a file: the disk of every process of the world is full.
FULL = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int full(int fd) {
    char path[4096];
    struct stat about;
    const char *faults = getenv("GANEUM_FAULTS");
    if (!faults || fstat(fd, &about) || !S_ISREG(about.st_mode)) return 0;
    snprintf(path, sizeof path, "%s/full", faults);
    return access(path, F_OK) == 0;
}
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define GUARDED(result, name, types, values) \
    result name types { if (full(fd)) { errno = ENOSPC; return -1; } return NEXT(name) values; }
GUARDED(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
GUARDED(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
GUARDED(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
GUARDED(ssize_t, writev, (int fd, const struct iovec *parts, int number), (fd, parts, number))
"""

CONFIG = """\
model: {{n_layer: 1, n_head: 2, n_embd: 16, block_size: 16, dropout: 0.1}}
data: {{directory: {data}}}
train: {{batch_size: 4, micro_batch_size: 4, max_iters: {steps}, checkpoint_interval: 20, eval_interval: 200,
        eval_tokens: 64, precision: fp32, compile: false}}
sample: {{interval: 100000}}
log: {{interval: 50, tensorboard: false}}
device: cpu
"""


class Broken(Exception):
    """Something that must never be."""


class World:
    """A directory with a list, its runs, and every process that works on them."""

    def __init__(self, directory: Path, real: bool, steps: int) -> None:
        self.results, self.faults = directory / "results", directory / "faults"
        self.results.mkdir()
        self.faults.mkdir()
        (self.faults / "boot").write_text("boot-1")
        (self.faults / "clock").write_text("0")
        (directory / "site").mkdir()
        (directory / "site" / "sitecustomize.py").write_text(SITE)
        shutil.copytree(Path(ganeum.__file__).parent, directory / "site" / "ganeum")  # as it is now, until the end
        self.list, self.real, self.yaml = self.results / "queue.sqlite", real, directory / "tiny.yaml"
        data = directory / "data"
        self.yaml.write_text(CONFIG.format(data=json.dumps(str(data)), steps=steps))
        if real:
            (directory / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200)
            prepare = ["prepare", str(directory / "text.txt"), "--tokenizer", "bytes", "--out", str(data)]
            subprocess.run([sys.executable, "-m", "ganeum", *prepare], check=True, capture_output=True)
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "GANEUM_FAULTS": str(self.faults),
            "GANEUM_RESULTS": str(self.results),
            "GANEUM_CACHE": str(directory / "cache"),
            "PYTHONPATH": os.pathsep.join([str(directory / "site"), os.environ.get("PYTHONPATH", "")]),
        }
        if shutil.which("gcc"):
            library = directory / "full.so"
            subprocess.run(
                ["gcc", "-shared", "-fPIC", "-w", "-o", library, "-xc", "-", "-ldl"], input=FULL.encode(), check=True
            )
            self.environment["LD_PRELOAD"] = str(library)
        os.environ |= {"GANEUM_RESULTS": str(self.results), "GANEUM_FAULTS": str(self.faults)}
        exec(SITE, {})  # what is asked of the queue from here is asked in the same world
        self.managers: list[subprocess.Popen[bytes]] = []
        self.names: set[str] = set()
        self.boots = 1
        self.by_hand = 0  # entries that had to be queued again by the user: retries used up
        self.strangers: list[subprocess.Popen[bytes]] = []

    # What goes on in it

    def add(self, number: int) -> None:
        configs = []
        for _ in range(number):
            name = f"run{len(self.names) + 1}" + "x" * (len(self.names) % 2)
            configs.append((load(self.yaml, [f"name={name}"]), Entry(name=name, config=str(self.yaml))))
            self.names.add(name)
        with Store(self.list) as store:
            freeze.add(store, configs)

    def entries(self) -> list[Entry]:
        with Store(self.list) as store:
            return store.all()

    def start_managers(self) -> None:
        if wrong := [manager.returncode for manager in self.managers if manager.poll() not in (None, -signal.SIGKILL)]:
            self.managers = [manager for manager in self.managers if manager.poll() is None]
            said = (self.faults / "managers.log").read_text().splitlines()[-12:]
            raise Broken(f"a manager ended by itself ({wrong[0]}): " + "\n".join(said))
        self.managers = [manager for manager in self.managers if manager.poll() is None]
        while len(self.managers) < MANAGERS:
            trainer = [sys.executable, str(TRAINER), "real" if self.real else "stand-in", "train"]
            with (self.faults / "managers.log").open("ab") as log:
                self.managers.append(
                    subprocess.Popen(
                        [sys.executable, "-c", MANAGER, str(self.list), *trainer],
                        env=self.environment,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )

    def processes(self) -> list[psutil.Process]:
        """Every process of this world that lives."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("GANEUM_FAULTS") == str(self.faults)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return found

    def trainings(self) -> list[psutil.Process]:
        """Those that train, and the first processes of their attempts."""
        return [process for process in self.processes() if TOKEN in _environment(process)]

    def wait_for_a_training(self) -> None:
        """Until one has got as far as its trainer: what comes then hits something."""
        deadline = time.monotonic() + WITHIN_S / 2
        while time.monotonic() < deadline and not self.done():
            if any("train" in command(process)[:5] for process in self.trainings()):
                return
            time.sleep(0.05)

    def end(self) -> None:
        while left := self.processes():
            for process in left:
                _kill(process)
            time.sleep(0.02)
        for process in [*self.managers, *self.strangers]:
            process.kill()
            process.wait()
        self.managers = []

    # Whether all is well

    def put_right(self) -> None:
        """What a user does after an accident: room on the disk, the queue started again."""
        (self.faults / "full").unlink(missing_ok=True)
        self.start_managers()
        deadline = time.monotonic() + WITHIN_S
        while trouble := self._troubles():
            self.start_managers()
            if time.monotonic() > deadline:
                raise Broken("; ".join(trouble))
            time.sleep(0.1)

    def _troubles(self) -> list[str]:
        entries = self.entries()
        missing = self.names - {entry.name for entry in entries}
        found = [f"{name} is gone" for name in sorted(missing)]
        if len(entries) > len(self.names):
            found.append(f"there are {len(entries)} entries of {len(self.names)} runs")
        tokens = {entry.token for entry in entries if entry.state in GOING}
        found += [
            f"process {process.pid} belongs to no entry that runs"
            for process in self.trainings()
            if _environment(process).get(TOKEN) not in tokens
        ]
        alive = {_environment(process).get(TOKEN) for process in self.trainings()}
        for entry in entries:
            if entry.state in GOING and entry.token not in alive:
                found.append(f"{entry.name} is {entry.state}, and nothing of it lives")
            elif entry.state == "failed" and ("tried" in entry.note or "killed" in entry.note):
                self.by_hand += 1
                with Store(self.list) as store:
                    control.retry(store, entry)
            elif entry.state in ("paused", "interrupted"):
                with Store(self.list) as store:
                    control.resume(store, entry)
            elif entry.state in ("failed", "killed", "held"):
                found.append(f"{entry.name} is {entry.state}: {entry.note} {entry.error_tail[-300:]}")
        for word in ("twice", "lost"):
            path = self.faults / word
            if path.exists():
                raise Broken(f"{word}: {path.read_text()}")
        return found

    def done(self) -> bool:
        return all(entry.state == "finished" for entry in self.entries())


# What happens to it: each with the world and the round's random numbers.


def kill_a_manager(world: World, draw: random.Random) -> None:
    draw.choice(world.managers).kill()


def kill_both_managers(world: World, draw: random.Random) -> None:
    for manager in world.managers:
        manager.kill()


def kill_a_run(world: World, draw: random.Random) -> None:
    """Any process of any attempt: its first, the training, a data worker."""
    if there := world.trainings():
        _kill(draw.choice(there))


def kill_a_run_and_the_managers(world: World, draw: random.Random) -> None:
    kill_both_managers(world, draw)
    kill_a_run(world, draw)


def kill_all_of_a_run(world: World, draw: random.Random) -> None:
    if there := world.trainings():
        token = _environment(draw.choice(there)).get(TOKEN)
        for process in there:
            if _environment(process).get(TOKEN) == token:
                _kill(process)


def kill_managers_as_they_start(world: World, draw: random.Random) -> None:
    """Again and again, at any moment of claiming and starting."""
    for _ in range(3):
        kill_both_managers(world, draw)
        world.start_managers()
        time.sleep(draw.uniform(0.2, 1.5))
    kill_both_managers(world, draw)


def lock_the_list(world: World, draw: random.Random) -> None:
    with sqlite3.connect(world.list, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(draw.uniform(0.1, 3.0))
        other.execute("ROLLBACK")
    other.close()


def fill_the_disk(world: World, draw: random.Random) -> None:
    (world.faults / "full").touch()
    time.sleep(draw.uniform(0.1, 3.0))
    if draw.random() < 0.5:
        draw.choice(world.managers).kill()


def reboot(world: World, draw: random.Random) -> None:
    """Everything dies at once, and the boot has another id; the clock may have been wrong."""
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


def pause_a_run(world: World, draw: random.Random) -> None:
    _ask(world, draw, control.pause)
    if draw.random() < 0.3:
        kill_a_manager(world, draw)


FAULTS: dict[str, tuple[Callable[[World, random.Random], None], int]] = {
    "manager killed": (kill_a_manager, 4),
    "both managers killed": (kill_both_managers, 3),
    "a run's process killed": (kill_a_run, 6),
    "a run and both managers killed": (kill_a_run_and_the_managers, 4),
    "all of a run killed": (kill_all_of_a_run, 3),
    "managers killed as they start": (kill_managers_as_they_start, 3),
    "list locked": (lock_the_list, 2),
    "disk full": (fill_the_disk, 3),
    "reboot": (reboot, 3),
    "process id given to a stranger": (give_a_run_s_id_to_a_stranger, 2),
    "clock turned": (turn_the_clock, 2),
    "list damaged": (damage_the_list, 2),
    "list lost": (lose_the_list, 1),
    "a run paused": (pause_a_run, 3),
}


def _ask(world: World, draw: random.Random, what: Callable[[Store, Entry], Any]) -> None:
    with Store(world.list) as store:
        if open_ := [entry for entry in store.all() if entry.state not in ENDED]:
            with suppress(QueueError):  # it has just ended
                what(store, draw.choice(open_))


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.kill()


def command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.Error, OSError):
        return {}


def weights(world: World) -> set[str]:
    """The sums of the weights that the finished runs ended with."""
    latest = [sorted((world.results / name / "checkpoints").glob("step-*"))[-1] for name in sorted(world.names)]
    return {hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest() for path in latest}


def campaign(rounds: int, seed: int, real: bool, steps: int, directory: Path, minutes: float) -> dict[str, Any]:
    """`rounds` accidents, or as many as there are in `minutes` → the summary."""
    world, begun = World(directory, real, steps), time.monotonic()
    happened: Counter[str] = Counter()
    broken: list[str] = []
    names, weights_of = list(FAULTS), [weight for _, weight in FAULTS.values()]
    try:
        world.add(4)
        world.put_right()
        for number in range(rounds):
            if time.monotonic() - begun > 60 * minutes:
                break
            draw = random.Random(seed * 1_000_003 + number)
            open_ = sum(entry.state not in ENDED for entry in world.entries())
            if open_ < 4:
                world.add(4 - open_)
            if draw.random() < 0.8:
                world.wait_for_a_training()
            time.sleep(draw.uniform(0.0, 6.0 if real else 1.0))
            fault = draw.choices(names, weights_of)[0]
            happened[fault] += 1
            try:
                FAULTS[fault][0](world, draw)
                time.sleep(draw.choice([0.0, 0.0, draw.uniform(0.0, 1.0)]))
                world.put_right()
            except (Broken, QueueError, sqlite3.Error) as error:
                broken.append(f"round {number} (seed {seed}), {fault}: {error}")
                print(broken[-1], flush=True)
                if isinstance(error, Broken) and "twice" in str(error):
                    (world.faults / "twice").unlink(missing_ok=True)
                if isinstance(error, Broken) and "lost" in str(error):
                    (world.faults / "lost").unlink(missing_ok=True)
                if len(broken) >= 5:
                    break
            if (number + 1) % 25 == 0:
                print(f"{number + 1} rounds, {len(broken)} broken", flush=True)
        deadline = time.monotonic() + 10 * WITHIN_S
        while not broken and not world.done():
            if time.monotonic() > deadline:
                states = Counter(entry.state for entry in world.entries())
                broken.append(f"the rest did not finish: {dict(states)}")
                break
            world.put_right()
            time.sleep(0.5)
        if not broken:
            last = steps if real else STEPS
            reached = {name: RunDirectory(world.results / name).status() for name in sorted(world.names)}
            broken += [
                f"{name} is finished at {status.step if status else 'no'} of {last} steps"
                for name, status in reached.items()
                if status is None or status.state != "finished" or status.step != last
            ]
        sums = weights(world) if real and not broken else set()
        if len(sums) > 1:
            broken.append(f"{len(sums)} different weights")
        starts = (world.faults / "starts").read_text().splitlines()
        return {
            "rounds": sum(happened.values()),
            "seed": seed,
            "trainings": "ganeum train" if real else "stand-ins",
            "runs": len(world.names),
            "finished": sum(entry.state == "finished" for entry in world.entries()) if not broken else None,
            "processes_started": len(starts),
            "queued_again_by_hand": world.by_hand,
            "different_weights": len(sums) if real else None,
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "faults": dict(happened),
            "broken": broken,
            "ganeum": ganeum.__version__,
            "python": platform.python_version(),
            "cpu": cpu_name(),
            "date": time.strftime("%Y-%m-%d"),
        }
    finally:
        world.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--minutes", type=float, default=600.0, help="no further round after so many")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--real", action="store_true", help="train with `ganeum train`")
    parser.add_argument("--steps", type=int, default=400, help="of a real training")
    parser.add_argument("--keep", type=Path, help="a directory that does not exist: everything stays there")
    parser.add_argument("-o", type=Path, help="write the summary here, as JSON")
    options = parser.parse_args()
    directory = options.keep or Path(tempfile.mkdtemp(prefix="queue_faults_"))
    directory.mkdir(exist_ok=options.keep is None)
    told = campaign(options.rounds, options.seed, options.real, options.steps, directory, options.minutes)
    text = json.dumps(told, indent=2)
    print(text)
    if options.o:
        options.o.write_text(text + "\n")
    if options.keep is None and not told["broken"]:
        shutil.rmtree(directory)
    return 1 if told["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
