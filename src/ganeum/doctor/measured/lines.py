"""Which lines of somebody's step take time without teaching the model anything, and which wait for the device.

A timer interrupts a few hundred steps' milliseconds; whatever ran since the last interruption is the interrupted
line's. Not counted are the model, losses, backward passes and updates, lines of somebody's own whose results a gradient
flows through or that write weights, and functions that are taken away one by one elsewhere (:mod:`watch`).
"""

from __future__ import annotations

import linecache
import signal
import sys
import sysconfig
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ganeum.doctor.measured import tensors, watch
from ganeum.doctor.measured.contest import interval
from ganeum.doctor.measured.training import Training

Line = tuple[str, int]  # a file, and a line in it
EVERY_S = 0.001
GROUP_S, GROUPS, LONGEST_S = 0.06, 12, 2.0  # steps summed up to one share; how many; in all, where steps are long
TOLD = 3  # lines
TORCH = Path(torch.__file__).parent
TEACHES = tuple(
    str(TORCH / part) for part in ("nn", "autograd", "optim", "amp", "_compile.py", "_dynamo", "utils/checkpoint.py")
)
BACKWARD = str(TORCH / "_tensor.py")
KNOWN = (watch.__file__, str(TORCH / "profiler"))
OTHERS = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    *map(str, (TORCH, Path(__file__).parents[2])),
    "<",
)
READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__contains__")


def of(training: Training) -> dict[str, Any]:
    """``waits``: numbers that a step reads back from the device, and the lines that do; ``beside``: the share of a step
    that teaches nothing, its interval, the number of shares that this comes from, and the lines, the longest first.

    A few steps are taken. ``beside`` is None where no timer can be had: away from the main thread, without such
    signals, or with one that somebody else has set.
    """
    batches = _Endless(training)
    seen = _Teaching(training)
    batch = next(batches)
    with seen:
        training.step(batch)
    return {
        "waits": {"calls": sum(seen.waits.values()), "lines": [_named(at) for at, _ in seen.waits.most_common(TOLD)]},
        "beside": _beside(training, batches, seen.lines),
    }


def _beside(training: Training, batches: Iterator[Any], teaching: set[Line]) -> dict[str, Any] | None:
    shares: list[float] = []
    sums: defaultdict[Line, float] = defaultdict(float)
    whole, began = 0.0, time.perf_counter()
    with _timer() as timer:
        if timer is None:
            return None
        while len(shares) < GROUPS and time.perf_counter() - began < LONGEST_S:
            group: defaultdict[Line, float] = defaultdict(float)
            spent = 0.0
            while spent < GROUP_S:
                batch = next(batches)
                with timer.counting(group):
                    started = time.perf_counter()
                    training.step(batch)
                    spent += time.perf_counter() - started
                del batch
            idle = {line: seconds for line, seconds in group.items() if line not in teaching}
            shares.append(sum(idle.values()) / spent)
            for line, seconds in idle.items():
                sums[line] += seconds
            whole += spent
    low, high, _ = interval(shares)
    return {
        "share": sum(sums.values()) / whole,
        "interval": (low, high),
        "groups": len(shares),
        "lines": [
            (*_named(line), seconds / whole) for line, seconds in sorted(sums.items(), key=lambda item: -item[1])[:TOLD]
        ],
    }


def _named(line: Line) -> tuple[str, str]:
    """Where it is, and its text."""
    file, number = line
    return f"{Path(file).name}, line {number}", linecache.getline(file, number).strip()[:80]


class _Endless:
    """Batches, from the beginning again where they end."""

    def __init__(self, training: Training) -> None:
        self._batches = training.batches
        self._iterator = iter(training.batches)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        with suppress(StopIteration):
            return next(self._iterator)
        self._iterator = iter(self._batches)
        return next(self._iterator)


class _Teaching(TorchFunctionMode):
    """Notes the lines whose results a gradient flows through, those that write weights, and those that read numbers
    back."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.lines: set[Line] = set()
        self.waits: Counter[Line] = Counter()
        self._weights = {parameter.data_ptr() for parameter in training.model.parameters()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        line = _line(sys._getframe(1))
        if line is None:
            return found
        if name in READS or (name == "to" and _came_back(args[0], found)):
            self.waits[line] += 1
        if any(tensor.requires_grad for _, tensor in tensors.each(found)):
            self.lines.add(line)
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if name.endswith("_") and first is not None and first.data_ptr() in self._weights:
            self.lines.add(line)
        return found


def _came_back(tensor: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether it was copied from a device."""
    return tensor.device.type != "cpu" and found.device.type == "cpu"


def _line(frame: FrameType | None) -> Line | None:
    """The innermost line that somebody wrote."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(OTHERS):
            return file, frame.f_lineno
        frame = frame.f_back
    return None


class _Timer:
    """Adds up seconds by line while it counts."""

    def __init__(self) -> None:
        self._sums: defaultdict[Line, float] | None = None
        self._last = 0.0

    @contextmanager
    def counting(self, sums: defaultdict[Line, float]) -> Iterator[None]:
        """Into ``sums``, while inside."""
        self._sums, self._last = sums, time.perf_counter()
        try:
            yield
        finally:
            self._sums = None

    def interrupted(self, _signal: int, frame: FrameType | None) -> None:
        now = time.perf_counter()
        if self._sums is None:
            return
        since, self._last = now - self._last, now
        line: Line | None = None
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith((*TEACHES, *KNOWN)) or (file == BACKWARD and frame.f_code.co_name == "backward"):
                return
            if line is None and not file.startswith(OTHERS):
                line = file, frame.f_lineno
            frame = frame.f_back
        if line is not None:
            self._sums[line] += since


@contextmanager
def _timer() -> Iterator[_Timer | None]:
    """One that interrupts every millisecond; None where there can be none."""
    alarm = getattr(signal, "SIGALRM", None)
    if alarm is None or threading.current_thread() is not threading.main_thread():
        yield None
        return
    if signal.getsignal(alarm) is not signal.SIG_DFL or any(signal.getitimer(signal.ITIMER_REAL)):
        yield None
        return
    timer = _Timer()
    with watch.watched():
        signal.signal(alarm, timer.interrupted)
        signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)
        try:
            yield timer
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(alarm, signal.SIG_DFL)
