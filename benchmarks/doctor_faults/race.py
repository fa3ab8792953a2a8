"""An A/B that shares no code with the doctor's: two processes that take turns, and the ratio of their speeds.

A, B, B, A, … in blocks of as many steps on the same batches, unless it is them that a fault changes; each neighbouring
A and B give one ratio of tokens that carry loss per second. Their median counts, over rounds of new processes; its 95 %
interval is that of the order statistics (a sign test turned round). Where both sides compute in one thread and no other
process is part of the fault, seconds for which the kernel kept them from a core are left out.
"""

from __future__ import annotations

import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1]
BLOCK_S, SHORTEST_S = 0.15, 0.02  # of the slower side's block, and of the quicker one's at least
ROUNDS = 3
# glibc gives large blocks back and faults them in again at each step: an honest training keeps them (1.20 times).
KEPT = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "10000000000", "MALLOC_TOP_PAD_": "100000000"}
BURNER = "while True:\n    sum(range(10000))"


@dataclass(frozen=True)
class Raced:
    """How many times as fast B is as A, with its 95 % interval."""

    times: float
    low: float
    high: float
    ratios: int
    seconds: float


def surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with ganeum, the faults and what a fault sets in it."""
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **KEPT, "PYTHONPATH": os.pathsep.join(path for path in paths if path), **environment}


class Runner:
    """One side, in a process of its own."""

    def __init__(self, asked: Mapping[str, Any], environment: Mapping[str, str], beside: str | None) -> None:
        command = [sys.executable, "-m", "doctor_faults.racer", json.dumps(asked)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=surroundings(environment), start_new_session=True, **pipes)
        self.beside = None if beside is None else subprocess.Popen([sys.executable, "-c", BURNER])
        self._answer()
        self._rest()

    def run(self, steps: int) -> tuple[float, float, bool, int]:
        """Of some steps: seconds, those of them kept from a core, whether one thread computed alone, tokens."""
        self._signal(signal.SIGCONT)
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        seconds, waited, alone, tokens = self._answer()
        self._rest()
        return seconds, waited, alone, tokens

    def close(self) -> None:
        """Ends it with what it started, and what ran beside it."""
        with suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        for process in (self.process, self.beside):
            if process is not None:
                process.kill()
                process.wait()

    def _rest(self) -> None:
        """Threads and loaders of its own, and what runs beside it, must not compute at the other's turn."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)
        if self.beside is not None:
            self.beside.send_signal(number)

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended: {self.process.args}")
        return json.loads(line)


def raced(start: Callable[[int], Runner], seconds: float) -> Raced:
    """B beside A over so many seconds, the warm-up not counted.

    Args:
        start: A for 0, B for 1; both are started anew for each round, since two processes of one program differ by some
            percent for where their memory lies. The interval holds what each round saw.
    """
    rounds = []
    for _ in range(ROUNDS):
        sides = list[Runner]()
        try:
            for which in (0, 1):
                sides.append(start(which))
            rounds.append(_round(*sides, seconds / ROUNDS))
        finally:
            for side in sides:
                side.close()
    logs = [log for one, _ in rounds for log in one]
    seen = [statistics.median(one) for one, _ in rounds]
    low, high = interval(logs)
    low, high = min(low, *seen), max(high, *seen)
    spent = sum(took for _, took in rounds)
    return Raced(math.exp(statistics.fmean(seen)), math.exp(low), math.exp(high), len(logs), spent)


def _round(a: Runner, b: Runner, seconds: float) -> tuple[list[float], float]:
    """Logarithms of ratios, and seconds that they took."""
    started = time.perf_counter()
    quickest, slowest = sorted(_warm(side) for side in (a, b))
    steps = max(1, round(BLOCK_S / slowest), round(SHORTEST_S / quickest))
    blocks: dict[Runner, list[tuple[float, float, bool, int]]] = {a: [], b: []}
    order = [a, b, b, a]
    while time.perf_counter() - started < seconds or len(blocks[a]) < 6:
        for side in order:
            blocks[side].append(side.run(steps))
        order = order[2:] + order[:2]
    apart = a.beside is None and b.beside is None and all(alone for side in (a, b) for _, _, alone, _ in blocks[side])
    speeds = {
        side: [tokens / (took - waited if apart else took) for took, waited, _, tokens in blocks[side]]
        for side in (a, b)
    }
    logs = [math.log(fast / slow) for slow, fast in zip(speeds[a], speeds[b], strict=True)]
    return logs, time.perf_counter() - started


def _warm(side: Runner) -> float:
    """Seconds of a step, after some."""
    side.run(5)
    taken, *_ = side.run(5)
    return max(taken / 5, 1e-5)


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The order statistics between which the median lies with that probability: the k-th from either end."""
    ordered, n = sorted(values), len(values)
    k, tail = 0, 0.5**n
    while k + 1 < n / 2 and tail <= (1 - level) / 2:
        k += 1
        tail += math.comb(n, k) * 0.5**n
    k = max(k - 1, 0) if tail > (1 - level) / 2 else k
    return ordered[k], ordered[n - 1 - k]
