"""What queue_faults.py lets the queue start: `ganeum train`, or a stand-in of a second. Either tells of a second one.

    python queue_trainer.py real|stand-in train CONFIG [key=value …]

A lock of the run is held from here to the end of the training, data workers included: whoever finds it taken is a
second training of the same run, and writes that down. The stand-in does what the queue can see of a training: a status,
checkpoints, an exit status, a data worker, a checkpoint at SIGTERM, an error when the disk is full.
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
FAULTS = Path(os.environ["GANEUM_FAULTS"])


def main() -> int:
    kind, _, config, *rest = sys.argv[1:]
    run = Path(config).parents[1]
    lock = os.open(FAULTS / f"{run.name}.lock", os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        tell("twice", f"{run.name}: process {os.getpid()} found it taken")
        return 1
    tell("starts", f"{run.name} {os.getpid()}")
    if kind == "real":
        os.set_inheritable(lock, True)
        os.execv(sys.executable, [sys.executable, "-m", "ganeum", "train", config, *rest])
    try:
        return stand_in(run)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print("RunError: the disk is full", file=sys.stderr)
        return 2


def stand_in(run: Path) -> int:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    step = reached(run)
    known = sum(int(line.split()[1]) for line in told("reached", run.name)[-1:])
    if step < known:
        tell("lost", f"{run.name}: at step {step} after one at {known}")
    worker = subprocess.Popen(["sleep", "3600"]) if len(run.name) % 2 else None
    write(run, "running", step)
    while step < STEPS and not asked:
        time.sleep(0.02)
        step += 1
        if step % EVERY == 0:
            write(run, "running", step)
    write(run, "interrupted" if asked and step < STEPS else "finished", step)
    if worker:
        worker.kill()
        worker.wait()
    return 143 if asked and step < STEPS else 0


def reached(run: Path) -> int:
    """The step of the last checkpoint."""
    return max((int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")), default=0)


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
    tell("reached", f"{run.name} {step}")


def flushed(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def told(what: str, name: str) -> list[str]:
    path = FAULTS / what
    return [line for line in path.read_text().splitlines() if line.split()[0] == name] if path.exists() else []


def tell(what: str, line: str) -> None:
    try:
        with (FAULTS / what).open("a") as file:
            file.write(line + "\n")
    except OSError:  # the disk is full
        pass


if __name__ == "__main__":
    sys.exit(main())
