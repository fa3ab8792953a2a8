"""Trains in a process of its own that gets only so much memory from the system: allocations really fail there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CHILD = """
import json, resource, sys
import torch
torch.set_num_threads(1)
import ganeum.train.run, ganeum.train.trackers
import tensorboard.summary.writer.record_writer
from ganeum import hardware
from ganeum.config import load
from ganeum.errors import GaneumError
from ganeum.hardware import machine
from ganeum.train import resolve, run, within_memory
order = json.loads(sys.argv[1])
torch.zeros(2**20).sum()

def limit(mib):
    held = int(machine.psutil.Process().memory_info().data)
    resource.setrlimit(resource.RLIMIT_DATA, (held + mib * 2**20, resource.RLIM_INFINITY))

if order["when"] == "start":
    limit(order["mib"])
elif order["when"] == "looked":  # another program takes memory after this one has looked how much there is
    detect = hardware.detect
    def detected(device):
        found = detect(device)
        limit(order["mib"])
        return found
    hardware.detect = detected
    resolve.SURE = 0.0
else:  # in the middle of the run: all that malloc keeps is taken, and so much given back in one piece
    taken = []
    update = within_memory.WithinMemory.update
    def limited(self, *arguments, **options):
        if self.progress.step + 1 == order["when"]:
            limit(order["mib"])
            try:
                while True:
                    taken.append(torch.empty(2**18))
            except RuntimeError:
                taken.sort(key=torch.Tensor.data_ptr)
                del taken[-order["mib"]:]
        return update(self, *arguments, **options)
    within_memory.WithinMemory.update = limited
try:
    run.train(load(order["config"], order["overrides"]))
except GaneumError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@dataclass(frozen=True)
class Ended:
    """How it ended: the exit status, and what was shown on standard output and on standard error."""

    status: int
    shown: str
    error: str


def train(config: Path, *overrides: str, mib: int, when: str | int = "start") -> Ended:
    """Trains once, with ``mib`` MiB beyond what the process holds once torch is loaded.

    Args:
        when: the limit comes at the start; once the machine was looked at; or before the step of this number.
    """
    order = {"config": str(config), "overrides": overrides, "mib": mib, "when": when}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(order)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )
    return Ended(done.returncode, done.stdout, done.stderr)
