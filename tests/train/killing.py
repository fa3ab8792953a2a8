"""Training processes that are killed, or run out of disk, at a chosen system call.

A process imports torch once and forks a child for every run; strace takes hold of the child before it begins. The
calls of an undisturbed run are counted first; a point is one of them, all equally likely, so that what writes more
is hit more often.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Every call that can change a disk,.
CALLS = (
    "write,pwrite64,writev,rename,renameat2,fsync,fdatasync,unlink,unlinkat,rmdir,mkdir,ftruncate,chmod,"
    "fchmodat,sendfile,copy_file_range"
)
NEED_SPACE = ("write", "pwrite64", "mkdir")
KILLED, DONE, DISK_FULL = -signal.SIGKILL, 0, 2

ZYGOTE = """
import ctypes, json, os, signal, sys, traceback
import torch, torch._dynamo
torch.set_num_threads(1)
import ganeum.train.run, ganeum.train.trackers
import tensorboard.compat.proto.event_pb2, tensorboard.summary.writer.record_writer
from ganeum.config import load
from ganeum.errors import GaneumError
from ganeum.train.interrupt import Interrupted
print("ready", flush=True)
for line in sys.stdin:
    arguments = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # anyone may trace this process (Yama)
        except OSError:
            pass
        sys.stdout = sys.stderr = open(os.devnull, "w")
        os.environ["GANEUM_RESULTS"] = arguments["results"]
        os.environ["GANEUM_CACHE"] = arguments["results"] + "/.cache"
        os.kill(os.getpid(), signal.SIGSTOP)
        status = 1
        try:
            ganeum.train.run.train(load(arguments["config"], arguments["overrides"]))
            status = 0
        except GaneumError as error:
            full = "the disk is full" in str(error) or "No space left on device" in str(error)
            status = 2 if full else 3
        except Interrupted as stop:
            status = stop.exit_status
        except BaseException:
            pass
        os._exit(status)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


@dataclass(frozen=True)
class Point:
    """The n-th use of a system call by the training's thread."""

    call: str
    n: int


class Trainer:
    """Runs `train` in forked children; `run` gives the exit status (negative: the signal that ended it)."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._answer() == "ready"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def run(
        self,
        config: Path,
        results: Path,
        *overrides: str,
        strace: list[str] | None = None,
        meanwhile: Callable[[int], None] | None = None,
    ) -> int:
        """Trains once into `results`; under strace with these arguments, or with something done to the process."""
        assert self._process.stdin is not None
        order = {"config": str(config), "results": str(results), "overrides": overrides}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        child = int(self._answer())
        _until(lambda: _state(child) == "T", child)
        tracer = None
        if strace is not None:
            tracer = subprocess.Popen(["strace", "-f", "-qq", "-p", str(child), *strace], stderr=subprocess.DEVNULL)
            _until(lambda: _state(child) == "t" or _tracer(child) != 0, child)
        os.kill(child, signal.SIGCONT)
        if meanwhile is not None:
            meanwhile(child)
        status = int(self._answer())
        if tracer is not None:
            tracer.wait()
        return status

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextmanager
def trainer() -> Iterator[Trainer]:
    process = Trainer()
    try:
        yield process
    finally:
        process.close()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _tracer(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("TracerPid")))


def _until(there: Any, pid: int) -> None:
    end = time.monotonic() + 30
    while not there():
        assert time.monotonic() < end, f"process {pid} is in state {_state(pid)}"
        time.sleep(0.002)


def after(seconds: float) -> Callable[[int], None]:
    """kill -9 after a time, for machines without strace."""

    def kill(pid: int) -> None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)

    return kill


def has_strace() -> bool:
    """Installed, and allowed to trace here."""
    probe = ["strace", "-o", os.devnull, "true"]
    return shutil.which("strace") is not None and subprocess.run(probe, capture_output=True).returncode == 0


def calls(trace: Path) -> list[Point]:
    """The calls of the first thread in a trace, in order; the others' are left out (there are few or none)."""
    counts: Counter[str] = Counter()
    points: list[Point] = []
    lines = [line.split(None, 1) for line in trace.read_text(errors="replace").splitlines()]
    for thread, rest in lines:
        call = rest.partition("(")[0]
        if thread == lines[0][0] and call in CALLS.split(","):
            counts[call] += 1
            points.append(Point(call, counts[call]))
    return points


def tracing(trace: Path) -> list[str]:
    """strace's arguments that write down every call."""
    return ["-e", f"trace={CALLS}", "-o", str(trace)]


def killing(point: Point) -> list[str]:
    """strace's arguments that kill the process as it enters this call."""
    return ["-e", f"trace={point.call}", "-e", f"inject={point.call}:signal=KILL:when={point.n}", "-o", os.devnull]


def filling(points: list[Point], place: int) -> list[str]:
    """strace's arguments that let nothing succeed that needs space, from this place in the sequence of calls on."""
    done = Counter(point.call for point in points[:place])
    injections = [f"inject={call}:error=ENOSPC:when={done[call] + 1}+" for call in NEED_SPACE]
    options = [option for injection in injections for option in ("-e", injection)]
    return ["-e", f"trace={','.join(NEED_SPACE)}", *options, "-o", os.devnull]


def outcome(run: Path, last_step: int) -> dict[str, Any]:
    """What must be the same however often a run was killed: weights, every logged number but the times, samples."""
    numbers = ("step", "tokens_seen", "loss", "val_loss", "val_bpb", "learning_rate", "grad_norm")
    lines = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text().splitlines()]
    weights = run / "checkpoints" / f"step-{last_step:08d}" / "model.safetensors"
    plan = json.loads((run / "plan.json").read_text())
    return {
        "plan": (sorted(plan), [(choice["key"], choice["value"]) for choice in plan["choices"]]),
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "metrics": [{name: line.get(name) for name in numbers} for line in lines],
        "samples": {path.name: path.read_text() for path in sorted((run / "samples").glob("*.txt"))},
        "best": (run / "checkpoints" / "best").read_text(),
        "latest": (run / "checkpoints" / "latest").read_text(),
        "left over": sorted(str(path.relative_to(run)) for path in run.rglob(".*")),
    }
