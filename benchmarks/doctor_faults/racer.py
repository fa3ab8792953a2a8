"""One side of an A/B: builds a training, then takes as many steps as each line of its input says.

Answers a line for each: seconds and tokens that carry loss. What the training itself prints goes nowhere.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

from doctor_faults.catalogue import parts_of
from doctor_faults.subjects import assembled


def endless(batches: Any) -> Iterator[Any]:
    """Epoch after epoch."""
    while True:
        yield from batches


def main() -> None:
    """``subject``, ``names`` and ``honest`` as JSON in the first argument."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    asked = json.loads(sys.argv[1])
    built = assembled(parts_of(asked["subject"], asked["names"], asked["seed"], **asked["honest"]))
    batches, step = endless(built["batches"]), built["step"]
    print(json.dumps("ready"), file=answers)
    for line in sys.stdin:
        tokens, started = 0, time.perf_counter()
        for _ in range(int(line)):
            batch = next(batches)
            step(batch)
            tokens += int((batch["labels"] != -100).sum())
        print(json.dumps([time.perf_counter() - started, tokens]), file=answers)


if __name__ == "__main__":
    main()
