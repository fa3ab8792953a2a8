"""What queue_faults.py lets the queue start: `ganeum train`, or a stand-in of two seconds; either proves it is alone.

    python queue_trainer.py real|stand-in train CONFIG [key=value …]

A lock of the run is held from here to the end of the training, its data worker included: whoever finds it taken was
started beside another. What is to be known later becomes the name of an empty file: that needs no room on the disk,
and of two that make the same one only one can.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STEPS, EVERY = 100, 5  # two seconds; queue_faults.py knows how many
FAULTS = Path(os.environ.get("GANEUM_FAULTS", ""))


def main() -> int:
    kind, _, config, *rest = sys.argv[1:]
    run = Path(config).parents[1]
    lock = os.open(FAULTS / f"{run.name}.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        mark("twice", f"{run.name}.{os.getpid()}")
        return 1
    if not mark("starts", f"{run.name}.{os.environ['GANEUM_QUEUE_TOKEN']}"):
        mark("twice", f"{run.name}.of-one-attempt")
        return 1
    if has_finished(run):
        mark("again", f"{run.name}.{os.getpid()}")
    step = reached(run)
    if step < max(marked("reached", run.name), default=0):
        mark("lost", f"{run.name}.at-{step}")
    mark("reached", f"{run.name}.{step}")
    os.set_inheritable(lock, True)
    worker = subprocess.Popen(["sleep", "3600"], close_fds=False) if len(run.name) % 2 else None
    if kind == "real":
        os.execv(sys.executable, [sys.executable, "-m", "ganeum", "train", config, *rest])
    try:
        return stand_in(run, step)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("RunError: the disk is full", file=sys.stderr)
        return 2
    finally:
        if worker:
            worker.kill()
            worker.wait()


def stand_in(run: Path, step: int) -> int:
    """What the queue can see of a training: a status, checkpoints, an exit status, one more checkpoint at SIGTERM."""
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    write(run, "running", step)
    while step < STEPS and not asked:
        time.sleep(0.02)
        step += 1
        if step % EVERY == 0:
            write(run, "running", step)
    write(run, "interrupted" if asked and step < STEPS else "finished", step)
    return 143 if asked and step < STEPS else 0


def reached(run: Path) -> int:
    """The step of the last checkpoint."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


def has_finished(run: Path) -> bool:
    try:
        return bool(json.loads((run / "status.json").read_text())["state"] == "finished")
    except (OSError, ValueError):
        return False


def write(run: Path, state: str, step: int) -> None:
    """A checkpoint and a status, as a training makes them: beside their places, then renamed."""
    if step:
        growing = run / "checkpoints" / f".step-{step:08d}.tmp"
        growing.mkdir(parents=True, exist_ok=True)
        flushed(growing / "model.safetensors", str(step))
        if not (final := run / "checkpoints" / f"step-{step:08d}").exists():
            growing.rename(final)
    me = os.getpid()
    started = float(Path(f"/proc/{me}/stat").read_text().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    boot = next(float(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line[:5] == "btime")
    content = {"state": state, "step": step, "pid": me, "process_started": boot + started}
    content["boot_id"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    flushed(run / ".status.json.tmp", json.dumps(content))
    (run / ".status.json.tmp").rename(run / "status.json")
    mark("reached", f"{run.name}.{step}")


def flushed(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def mark(what: str, name: str) -> bool:
    """An empty file of that name → whether it was not there."""
    try:
        os.close(os.open(FAULTS / what / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


def marked(what: str, run: str) -> list[int]:
    return [int(mark.name.split(".")[1]) for mark in (FAULTS / what).iterdir() if mark.name.split(".")[0] == run]


if __name__ == "__main__":
    sys.exit(main())
