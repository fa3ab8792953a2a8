"""The world of queue_faults.py: a list, its runs, every process that works on them, and whether all is well with it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

import ganeum
from ganeum.config import load
from ganeum.queue import control, freeze
from ganeum.queue.entry import GOING, Entry
from ganeum.queue.failure import RETRIES
from ganeum.queue.process import TOKEN
from ganeum.queue.store import Store

HERE = Path(__file__).parent
TRAINER, PRELOADED = HERE / "queue_trainer.py", HERE / "queue_accident.c"
MANAGERS = 2
DATA_WORKER = ["sleep"]
WITHIN_S = 40.0  # until all is well again

MANAGER = """
import sys, threading
from pathlib import Path
from ganeum.queue import failure, manager
failure.PAUSE_S = manager.RETRY_S = 0.5
stop = threading.Event()
store = manager.opened(Path(sys.argv[1]), stop, print)
manager.run(store, until_empty=False, stop=stop, say=print, train=sys.argv[2:], poll_s=0.05)
"""

# In every process of the world: another boot and another clock than the machine's, as files say; and at the signal of
# queue_accident.c its stack is written down.
SITE = """
import faulthandler, os, pathlib, signal, time
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
    faulthandler.register(signal.SIGRTMIN + 5, open(os.path.join(faults, "stacks"), "a"), all_threads=False)
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

# Which function an accident met, as MODULE.FUNCTION → what was being done: the first of these that is in the stack.
MOMENTS = {
    "manager": {
        "store.claim": "while it claims an entry",
        "attempt.spawn": "between claim and start",
        "freeze.thaw": "between claim and start",
        "manager._start": "between start and the run's own word",
        "settle.settle": "while it notes how a run ended",
        "settle.give_back": "while it gives an entry back",
        "manager.opened": "while it opens the list",
        "store.enrol": "while it opens the list",
    },
    "child": {"child._take": "while it takes the entry", "child._note": "while it notes how its training ended"},
    "training": {
        "checkpoint.save": "while it writes a checkpoint",
        "queue_trainer.write": "while it writes a checkpoint",
        "status.write": "while it writes its status",
        "making.create": "while it makes its directory",
    },
}
TELLTALES = {  # a mark that a training has left → what that proves
    "twice": "trained by two processes at once",
    "again": "started after it had finished",
    "lost": "a checkpoint was lost",
}


class Broken(Exception):
    """Something that must never be."""


class World:
    """A directory with a list, its runs, and every process that works on them."""

    def __init__(self, directory: Path, real: bool, steps: int) -> None:
        self.results, self.faults = directory / "results", directory / "faults"
        for path in (self.results, self.faults, *(self.faults / name for name in ("starts", "reached", *TELLTALES))):
            path.mkdir()
        (self.faults / "boot").write_text("boot-1")
        (self.faults / "clock").write_text("0")
        (directory / "site").mkdir()
        (directory / "site" / "sitecustomize.py").write_text(SITE)
        shutil.copytree(Path(ganeum.__file__).parent, directory / "site" / "ganeum")  # as it is now, until the end
        self.manager = directory / "queue_manager.py"
        self.manager.write_text(MANAGER)
        self.list, self.real, self.yaml = self.results / "queue.sqlite", real, directory / "tiny.yaml"
        data = directory / "data"
        self.yaml.write_text(CONFIG.format(data=json.dumps(str(data)), steps=steps))
        if real:
            (directory / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 200)
            prepare = ["prepare", str(directory / "text.txt"), "--tokenizer", "bytes", "--out", str(data)]
            subprocess.run([sys.executable, "-m", "ganeum", *prepare], check=True, capture_output=True)
        library = directory / "accident.so"
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, PRELOADED, "-ldl"], check=True)
        self.environment = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "OMP_NUM_THREADS": "1",
            "GANEUM_FAULTS": str(self.faults),
            "GANEUM_RESULTS": str(self.results),
            "GANEUM_CACHE": str(directory / "cache"),
            "PYTHONPATH": os.pathsep.join([str(directory / "site"), os.environ.get("PYTHONPATH", "")]),
        }
        os.environ |= {"GANEUM_RESULTS": str(self.results), "GANEUM_FAULTS": str(self.faults)}
        exec(SITE, {})  # what is asked of the queue from here is asked in the same world
        self.managers: list[subprocess.Popen[bytes]] = []
        self.names: set[str] = set()
        self.boots = 1
        self.by_hand = Counter[str]()  # retries used up, so that the user had to queue it again: why
        self.strangers: list[subprocess.Popen[bytes]] = []
        self._stacks_read = 0

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

    def start_managers(self, number: int = MANAGERS) -> None:
        """Up to that many. None may have ended but by SIGKILL."""
        if wrong := [manager.returncode for manager in self.managers if manager.poll() not in (None, -signal.SIGKILL)]:
            self.managers = [manager for manager in self.managers if manager.poll() is None]
            said = (self.faults / "managers.log").read_text().splitlines()[-12:]
            raise Broken(f"a manager ended by itself ({wrong[0]}): " + "\n".join(said))
        self.managers = [manager for manager in self.managers if manager.poll() is None]
        while len(self.managers) < number:
            trainer = [sys.executable, str(TRAINER), "real" if self.real else "stand-in", "train"]
            command = [sys.executable, str(self.manager), str(self.list), *trainer]
            with (self.faults / "managers.log").open("ab") as log:
                self.managers.append(
                    subprocess.Popen(command, env=self.environment, stdout=log, stderr=log, start_new_session=True)
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
        """Those that train, their data workers, and the first processes of their attempts."""
        return [process for process in self.processes() if token(process)]

    def wait_for_a_training(self) -> None:
        """Until one has got as far as its trainer: what comes then hits something."""
        deadline = time.monotonic() + WITHIN_S / 2
        while time.monotonic() < deadline and not self.done():
            if any(config(process) for process in self.trainings()):
                return
            time.sleep(0.05)

    @contextmanager
    def planned(self, role: str, number: int, what: str, within_s: float) -> Iterator[None]:
        """What happens to the first process of that `role` that makes its `number`th change of a file."""
        at = self.faults / "at"
        (self.faults / "at.new").write_text(f"{role} {number} {what}")
        (self.faults / "at.new").rename(at)
        try:
            yield
            deadline = time.monotonic() + within_s
            while at.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            at.unlink(missing_ok=True)

    def moment(self) -> str | None:
        """What the process that met what was planned was at; None where none has met it."""
        met = self.faults / "met"
        if not met.exists():
            return None
        role = met.read_text().split()[0]
        met.unlink()
        text = (self.faults / "stacks").read_text()
        stack, self._stacks_read = text[self._stacks_read :], len(text)
        there = [".".join(frame) for frame in re.findall(r'File "[^"]*/(\w+)\.py", line \d+ in (\w+)', stack)]
        doing = next((doing for name, doing in MOMENTS[role].items() if name in there), "at something else")
        return f"a {role} {doing}"

    def end(self) -> None:
        while left := self.processes():
            for process in left:
                kill(process)
            time.sleep(0.02)
        for mine in [*self.managers, *self.strangers]:
            mine.kill()
            mine.wait()
        self.managers = []

    # Whether all is well

    def put_right(self) -> None:
        """What a user does after an accident: room on the disk, the queue started again."""
        (self.faults / "full").unlink(missing_ok=True)
        for process in self.processes():
            with suppress(psutil.Error):
                if process.status() == psutil.STATUS_STOPPED:
                    process.resume()
        self.start_managers()
        deadline = time.monotonic() + WITHIN_S
        while trouble := self._troubles():
            self.start_managers()
            if time.monotonic() > deadline:
                raise Broken("; ".join(trouble))
            time.sleep(0.1)

    def _troubles(self) -> list[str]:
        """What is not well yet.

        Raises:
            Broken: what can never be well again: a run that was trained twice at once, say.
        """
        entries, trainings = self.entries(), self.trainings()
        self._prove_single(trainings)
        found = [f"{name} is gone" for name in sorted(self.names - {entry.name for entry in entries})]
        if len(entries) > len(self.names):
            found.append(f"there are {len(entries)} entries of {len(self.names)} runs")
        going = {entry.token for entry in entries if entry.state in GOING}
        alive = {token(process) for process in trainings if command(process)[:1] != DATA_WORKER}
        found += [
            f"process {process.pid} belongs to no entry that runs"
            for process in trainings
            if token(process) not in going and process.is_running()
        ]
        for entry in entries:
            if entry.state in GOING and entry.token not in alive:
                found.append(f"{entry.name} is {entry.state}, and nothing of it lives")
            elif entry.state == "failed" and entry.retries >= RETRIES:
                self.by_hand[entry.note] += 1
                with Store(self.list) as store:
                    control.retry(store, entry)
            elif entry.state in ("paused", "interrupted"):
                with Store(self.list) as store:
                    control.resume(store, entry)
            elif entry.state in ("failed", "killed", "held"):
                found.append(f"{entry.name} is {entry.state}: {entry.note} {entry.error_tail[-300:]}")
        return found

    def _prove_single(self, trainings: list[psutil.Process]) -> None:
        """By two witnesses: what the trainings have left behind, and who is there now."""
        for telltale, meaning in TELLTALES.items():
            for mark in sorted((self.faults / telltale).iterdir()):
                mark.unlink()
                raise Broken(f"{mark.name.split('.')[0]}: {meaning} ({mark.name})")
        attempts: dict[str, dict[str, psutil.Process]] = defaultdict(dict)
        for process in trainings:
            if path := config(process):
                attempts[path][token(process)] = process
        for path, of_one in attempts.items():
            if len(of_one) > 1 and all(process.is_running() for process in of_one.values()):
                pids = ", ".join(str(process.pid) for process in of_one.values())
                raise Broken(f"{Path(path).parents[1].name}: {TELLTALES['twice']} (processes {pids})")

    def done(self) -> bool:
        return all(entry.state == "finished" for entry in self.entries())


def kill(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.kill()


def token(process: psutil.Process) -> str:
    """Of the attempt that a process belongs to; empty where it belongs to none, or has gone."""
    return environment(process).get(TOKEN, "")


def config(process: psutil.Process) -> str:
    """What a process trains; empty where it trains nothing itself."""
    words = command(process)
    return words[words.index("train") + 1] if "train" in words[:5] and len(words) > words.index("train") + 1 else ""


def command(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return list(process.cmdline())
    return []


def environment(process: psutil.Process) -> Mapping[str, str]:
    with suppress(psutil.Error, OSError):
        return process.environ()
    return {}
