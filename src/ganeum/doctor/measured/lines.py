"""Which lines of somebody's step take time without teaching the model anything, and which wait for the device.

A timer interrupts a few hundred steps' milliseconds; whatever ran since the last interruption is the interrupted
line's. Not counted are the model, losses, backward passes and updates, lines of somebody's own whose results a gradient
flows through or that write weights, and functions that are taken away one by one elsewhere (:mod:`watch`). Tensors that
are written out as text teach nothing wherever that is done, in a model too.
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
from typing import Any, TypeAlias

import torch
from torch.overrides import TorchFunctionMode

from ganeum.doctor.measured import loops as over_pieces
from ganeum.doctor.measured import tensors, watch
from ganeum.doctor.measured.contest import interval
from ganeum.doctor.measured.training import Training

Line: TypeAlias = tuple[str, int]  # a file, and a line in it
Sums: TypeAlias = defaultdict[tuple[str, Line], float]  # what for ("learning", "text", ""), the line → seconds
EVERY_S = 0.001
GROUP_S, GROUPS, LONGEST_S = 0.06, 12, 2.0  # steps summed up to one share; how many; in all, where steps are long
TOLD = 3  # lines
OFTEN = 64  # calls a step, from which on a line may be a loop over pieces
APART = 32  # pieces of one tensor, from which on it is a loop whatever their size
TORCH = Path(torch.__file__).parent
TEACHES = tuple(
    str(TORCH / part) for part in ("nn", "autograd", "optim", "amp", "_compile.py", "_dynamo", "utils/checkpoint.py")
)
BACKWARD = str(TORCH / "_tensor.py")
TEXT = str(TORCH / "_tensor_str.py")
KNOWN = (watch.__file__, str(TORCH / "profiler"))
OTHERS = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    *map(str, (TORCH, Path(__file__).parents[2])),
    "<",
)
READS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__", "__contains__")


def of(training: Training) -> dict[str, Any]:
    """What a few steps show:

    ``waits``: numbers that a step reads back from the device (``calls``), and the lines that do; ``beside``: the share
    of a step that teaches nothing, its interval, of how many stretches of steps that is, and the lines, the longest
    first; ``loops``: the same of lines that a step runs again and again on pieces of tensors, teaching or not, with
    what they take in the ``backward`` pass and without what the same takes ``at_once``; and how often the first of
    them runs. The last two are None where no timer can be had: away from the main thread, without such signals, or
    with one that somebody else has set.
    """
    batches = _Endless(training)
    seen = _Calls(training)
    batch = next(batches)
    ids = tensors.ids(batch)
    with seen:
        training.step(batch)
    loops = set[Line]() if ids is None else seen.loops(ids.numel())
    stretches = _timed(training, batches)
    taught = seen.teaching | loops
    beside = _summed(stretches, lambda what, line: what == "text" or (not what and line not in taught))
    looping = _summed(stretches, lambda what, line: what != "text" and line in loops)
    if looping is not None and looping["lines"]:
        first = next(line for line in loops if _named(line) == looping["lines"][0][:2])
        looping |= {"calls": seen.calls[first], "largest": seen.largest[first]}
        with suppress(Exception):  # some graphs bear no clock: then it is the forward pass alone
            looping |= over_pieces.whole(looping, training, batches, lambda frame: _line(frame) in loops)
    return {
        "waits": {"calls": sum(seen.waits.values()), "lines": [_named(at) for at, _ in seen.waits.most_common(TOLD)]},
        "beside": beside,
        "loops": looping,
    }


def _timed(training: Training, batches: Iterator[Any]) -> list[tuple[float, Sums]]:
    """Stretches of steps: the seconds of each, and whose they are."""
    stretches = list[tuple[float, Sums]]()
    began = time.perf_counter()
    with _timer() as timer:
        while timer is not None and len(stretches) < GROUPS and time.perf_counter() - began < LONGEST_S:
            sums: Sums = defaultdict(float)
            spent = 0.0
            while not spent or (spent < GROUP_S and time.perf_counter() - began < LONGEST_S):  # batches take time, too
                batch = next(batches)
                with timer.counting(sums):
                    started = time.perf_counter()
                    training.step(batch)
                    spent += time.perf_counter() - started
                del batch
            stretches.append((spent, sums))
    return stretches


def _summed(stretches: list[tuple[float, Sums]], belongs: Callable[[str, Line], bool]) -> dict[str, Any] | None:
    if not stretches:
        return None
    lines: defaultdict[Line, float] = defaultdict(float)
    shares = list[float]()
    for spent, sums in stretches:
        mine = [(line, seconds) for (what, line), seconds in sums.items() if belongs(what, line)]
        shares.append(sum(seconds for _, seconds in mine) / spent)
        for line, seconds in mine:
            lines[line] += seconds
    whole = sum(spent for spent, _ in stretches)
    low, high, _ = interval(shares)
    longest = sorted(lines.items(), key=lambda item: -item[1])[:TOLD]
    return {
        "share": sum(lines.values()) / whole,
        "interval": (low, high),
        "stretches": len(stretches),
        "lines": [(*_named(line), seconds / whole) for line, seconds in longest],
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


class _Calls(TorchFunctionMode):
    """Notes how often each line calls torch, and how large its results are; the lines whose results a gradient flows
    through or that write weights, and those that read numbers back."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.calls: Counter[Line] = Counter()
        self.largest: Counter[Line] = Counter()  # numbers of one result
        self.teaching: set[Line] = set()
        self.waits: Counter[Line] = Counter()
        self._function: dict[Line, tuple[str, int]] = {}  # that a line is in: its file and its first line
        self._taken: Counter[tuple[tuple[str, int], int]] = Counter()  # pieces, by function and how many make a whole
        self._piece: Counter[tuple[str, int]] = Counter()  # numbers of the largest piece that a function takes
        self._weights = {parameter.data_ptr() for parameter in training.model.parameters()}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        frame = _frame(sys._getframe(1))
        if frame is None:
            return found
        line = frame.f_code.co_filename, frame.f_lineno
        self._function[line] = frame.f_code.co_filename, frame.f_code.co_firstlineno
        if name in over_pieces.PIECES and isinstance(args[0], torch.Tensor):
            self._took(self._function[line], args[0], found)
        if name in READS or (name == "to" and _came_back(args[0], found)):
            self.waits[line] += 1
        self.calls[line] += 1
        for _, tensor in tensors.each(found):
            self.largest[line] = max(self.largest[line], tensor.numel())
            if tensor.requires_grad:
                self.teaching.add(line)
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        if name.endswith("_") and first is not None and first.data_ptr() in self._weights:
            self.teaching.add(line)
        return found

    def _took(self, function: tuple[str, int], whole: torch.Tensor, found: Any) -> None:
        """Notes pieces of a tensor, where it has many of their size."""
        for _, piece in tensors.each(found):
            if piece.numel() and (of := whole.numel() // piece.numel()) >= APART:
                self._taken[function, of] += 1
                self._piece[function] = max(self._piece[function], piece.numel())

    def loops(self, tokens: int) -> set[Line]:
        """Lines that run for so many pieces of a batch that each is a token's or a few, whose results are no larger;
        and those of functions that take half of a tensor and more apart, piece by piece, if they run for each."""
        least = max(OFTEN, tokens // 8)
        found = {line for line, calls in self.calls.items() if calls >= least and self.largest[line] < tokens}
        for (function, of), taken in self._taken.items():
            if 2 * taken >= of:
                inside = (line for line, its in self._function.items() if its == function)
                small = (line for line in inside if self.largest[line] <= self._piece[function])
                found |= {line for line in small if 2 * self.calls[line] >= of}
        return found


def _came_back(tensor: torch.Tensor, found: torch.Tensor) -> bool:
    """Whether it was copied from a device."""
    return tensor.device.type != "cpu" and found.device.type == "cpu"


def _frame(frame: FrameType | None) -> FrameType | None:
    """The innermost one of somebody's own code."""
    while frame is not None and frame.f_code.co_filename.startswith(OTHERS):
        frame = frame.f_back
    return frame


def _line(frame: FrameType | None) -> Line | None:
    """The innermost line that somebody wrote."""
    own = _frame(frame)
    return None if own is None else (own.f_code.co_filename, own.f_lineno)


class _Timer:
    """Adds up seconds by line while it counts."""

    def __init__(self) -> None:
        self._sums: Sums | None = None
        self._last = 0.0

    @contextmanager
    def counting(self, sums: Sums) -> Iterator[None]:
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
        teaches = text = False
        while frame is not None:
            file = frame.f_code.co_filename
            if file.startswith(KNOWN):
                return
            text |= file == TEXT
            teaches |= file.startswith(TEACHES) or (file == BACKWARD and frame.f_code.co_name == "backward")
            if line is None and not file.startswith(OTHERS):
                line = file, frame.f_lineno
            frame = frame.f_back
        if line is not None:
            self._sums["text" if text else "learning" if teaches else "", line] += since


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
