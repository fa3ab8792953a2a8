"""One side of an A/B: builds a training, then takes as many steps as each line of its input says.

Answers a line for each: seconds, those of them that the main thread stood ready and was not let onto a core, whether
only that thread computed, and tokens that carry loss. What the training itself prints goes nowhere.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from doctor_faults.amends import AMENDS
from doctor_faults.catalogue import parts_of
from doctor_faults.subjects import assembled

MOST_ASIDE = 1.1  # times the main thread's computing, of all threads together


def endless(batches: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from batches


def waited() -> float:
    """Seconds in the kernel's queue for a core so far, of the main thread (Linux's schedstat)."""
    try:
        return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


def main() -> None:
    """``subject``, ``names``, ``without``, ``seed``, ``honest`` as JSON in the first argument; ``ready``: the batches
    of those steps lie ready before the clock is read; ``amended``: a cause taken away, too."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    asked = json.loads(sys.argv[1])
    parts = parts_of(asked["subject"], asked["names"], asked["seed"], asked["without"], **asked["honest"])
    if asked["amended"] is not None:
        AMENDS[asked["amended"]](parts)
    built = assembled(parts)
    batches, step = endless(built["batches"]), built["step"]
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        some = itertools.islice(batches, int(line))
        taken = list(some) if asked["ready"] else some
        tokens, started = 0, (time.perf_counter(), waited(), time.process_time(), time.thread_time())
        for batch in taken:
            step(batch)
            tokens += int((batch["labels"] != -100).sum())
        ended = (time.perf_counter(), waited(), time.process_time(), time.thread_time())
        seconds, waiting, process, thread = (after - before for after, before in zip(ended, started, strict=True))
        print(json.dumps([seconds, waiting, process < MOST_ASIDE * thread, tokens]), file=answers)


if __name__ == "__main__":
    main()
