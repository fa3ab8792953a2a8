"""Pretends to be `ganeum train` for the queue: a run's record without the training; `data.directory` says how it goes.

It waits for a file `go`, notes each beginning and end in `history`, and holds the run's own lock meanwhile.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ganeum.config import load
from ganeum.record import Status, create

config = load(sys.argv[1], sys.argv[2:])
how = config.data.directory


def note(what: str) -> None:
    with Path("history").open("a") as file:
        file.write(f"{config.name} {what}\n")


def interrupted(number: int, frame: object) -> None:
    run.checkpoint_dir(3).mkdir(parents=True, exist_ok=True)
    Status.of_this_process("interrupted", 3).write(run.status_path)
    note(f"interrupted by {signal.Signals(number).name}")
    sys.exit(128 + number)


run, stored, outcome = create(config, config)
signal.signal(signal.SIGTERM, signal.SIG_IGN if how == "stubborn" else interrupted)
Status.of_this_process("running").write(run.status_path)
note(f"begins with {stored.train.micro_batch_size}")
if how == "failing":
    print("step 2\nRunError: the loss is NaN\n  where  step 2\n  try    a lower learning rate")
    Status.of_this_process("failed", 2, "RunError: the loss is NaN").write(run.status_path)
    sys.exit(2)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "with_workers":
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("worker").write_text(str(worker.pid))
while how != "good" and not Path("go").exists():
    time.sleep(0.02)
steps = stored.train.max_iters or 0
run.checkpoint_dir(steps).mkdir(parents=True, exist_ok=True)
Status.of_this_process("finished", steps).write(run.status_path)
note("finished")
