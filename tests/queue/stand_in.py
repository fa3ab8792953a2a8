"""Stands in for `ganeum train`: the record of a training without the training; `data.directory` says how it goes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from ganeum.config import load
from ganeum.record import MetricsLog, Status, create

config = load(sys.argv[1], sys.argv[2:])
how = config.data.directory
with Path("started").open("a") as file:
    file.write(f"{config.name}\n")
if how == "missing":
    print("DataError: there is no data", file=sys.stderr)
    sys.exit(2)
run, config, _ = create(config, config)
steps = config.train.max_iters or 0
Status.of_this_process("running").write(run.status_path)
with MetricsLog(run.metrics_path) as log:
    log.write({"step": steps, "loss": 1.25, "val_loss": 1.5, "elapsed_s": 90.0})


def interrupted(number: int, frame: object) -> None:
    Status.of_this_process("interrupted", 3).write(run.status_path)
    with Path("signals").open("a") as file:
        file.write(f"{signal.Signals(number).name} {os.getpgrp()}\n")
    sys.exit(128 + number)


if how == "failing":
    error = "RunError: the loss is NaN\n  where  step 2"
    print(error, file=sys.stderr)
    Status.of_this_process("failed", 2, error).write(run.status_path)
    sys.exit(2)
if how == "dying":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "slow" and run.status_path.with_name("again").exists() is False:
    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, interrupted)
    run.status_path.with_name("again").touch()
    time.sleep(60)
Status.of_this_process("finished", steps).write(run.status_path)
