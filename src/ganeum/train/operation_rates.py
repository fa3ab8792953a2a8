"""What this machine takes for each of torch's operations, measured one by one within steps of small models.

Operations are timed where they stand, with the caches as a step leaves them; how long equal operations take becomes a
rate for each kind of work in them (:mod:`ganeum.plan.trace.roofline`). The same steps untimed say what lies between two
operations: Python and autograd.
"""

from __future__ import annotations

import datetime
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

from ganeum.config.schema import Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.errors import DeviceError
from ganeum.hardware import rates
from ganeum.hardware.device import Device
from ganeum.hardware.rates import Rates
from ganeum.models.gpt import GPT
from ganeum.models.kernels import mode_kept
from ganeum.plan.execution import LOSS_CHUNK
from ganeum.plan.trace import roofline
from ganeum.plan.trace.operations import Operations, operation
from ganeum.plan.trace.roofline import Operation
from ganeum.step import allocator
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.step.timings import Timings
from ganeum.train.calibrate import fit

SECONDS = 20.0  # about what it takes on two cores of an AMD EPYC
WHOLE, TIMED = 3, 2  # steps of a case that are timed as a whole, and by operation
LEAST_SIZES = 3  # of a group that has rates of its own: what is seen at one size says nothing of another
PHASES = {"data": "forward", "forward": "forward", "backward": "backward", "optimizer": "update"}
LEAST_S = 1e-7  # of an operation: no clock tells less
Points = list[tuple[dict[str, float], float]]

# (layers, heads, width, tokens, vocabulary, sequences, what differs from GPT-2's style in fp32 with AdamW)
CASES: tuple[tuple[int, int, int, int, int, int, dict[str, Any]], ...] = (
    (2, 2, 64, 64, 300, 16, {}),
    (2, 2, 64, 64, 300, 16, {"precision": "half"}),
    (2, 4, 128, 256, 4096, 4, {"style": "modern", "optimizer": "muon"}),
    (2, 4, 128, 256, 4096, 4, {"style": "modern", "optimizer": "muon", "precision": "half"}),
    (1, 4, 256, 512, 1024, 2, {}),
    (1, 4, 256, 512, 1024, 2, {"precision": "half"}),
    (1, 6, 384, 128, 16384, 4, {"optimizer": "adafactor", "precision": "half"}),
    (1, 6, 384, 128, 16384, 4, {"style": "modern", "optimizer": "sgd"}),
    (1, 12, 768, 64, 8192, 8, {"accumulation": 2}),
    (1, 12, 768, 64, 8192, 4, {"style": "modern", "optimizer": "muon", "precision": "half", "accumulation": 2}),
    (1, 2, 128, 1024, 512, 2, {"style": "modern", "dropout": 0.1, "precision": "half"}),
    (1, 4, 256, 64, 512, 4, {"dropout": 0.1, "optimizer": "adafactor"}),
    (1, 2, 64, 1024, 65, 4, {"style": "modern"}),
    (1, 4, 256, 128, 50257, 2, {}),
    (1, 4, 256, 128, 50257, 2, {"precision": "half"}),
    (1, 6, 384, 64, 300, 2, {"style": "modern", "optimizer": "muon"}),
)


class Phase(Timings):
    """Seconds of each phase on this process's clock, and which one runs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock, self.now = clock, "forward"
        self.taken = dict.fromkeys(PHASES.values(), 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self.now = PHASES[name]
        began = self.clock()
        yield
        self.taken[self.now] += self.clock() - began


class Timed(Operations):
    """Times each operation beside counting it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock = clock
        self.seconds: dict[Operation, list[float]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        began = self.clock()
        out = func(*args, **kwargs)
        taken = self.clock() - began
        self.seconds.setdefault(operation(func, args, kwargs, out, self.phase()), []).append(taken)
        return out


class Case:
    """A small model's step, seen as a whole and by its operations."""

    def __init__(
        self,
        layers: int,
        heads: int,
        width: int,
        tokens: int,
        vocabulary: int,
        at_once: int,
        device: Device,
        *,
        precision: str = "fp32",
        accumulation: int = 1,
        **more: Any,
    ) -> None:
        known = {name: more.pop(name) for name in ("style", "dropout") if name in more}
        model = Model(n_layer=layers, n_head=heads, n_embd=width, block_size=tokens, vocab_size=vocabulary, **known)
        train = Train(batch_size=at_once * accumulation, micro_batch_size=at_once, **more)
        self.at_once, self.clock = at_once, _clock()
        self.step = OptimizerStep(
            GPT(model),
            train,
            "cpu",
            precision=device.fast_precision if precision == "half" else "fp32",
            loss_chunk=LOSS_CHUNK["cpu"],
        )
        ids = torch.randint(vocabulary, (at_once * accumulation, tokens))
        self.batch = WindowBatch(ids, ids)
        self.wholes: list[dict[str, float]] = []
        self.timed: list[dict[Operation, list[float]]] = []

    def measure(self) -> None:
        """Takes the steps; the first is not counted."""
        for number in range(1 + WHOLE):
            phase = Phase(self.clock)
            self._take(phase)
            if number:
                self.wholes.append(phase.taken)
        for _ in range(TIMED):
            phase, seen = Phase(self.clock), Timed(self.clock)
            seen.phase = lambda phase=phase: phase.now  # type: ignore[misc]
            with seen:
                self._take(phase)
            self.timed.append(seen.seconds)

    def _take(self, phase: Phase) -> None:
        self.step.on(self.batch, at_once=self.at_once, step=0, learning_rate=1e-6, timings=phase).loss.item()

    def operations(self) -> dict[Operation, list[float]]:
        """Seconds of each, in all the timed steps."""
        found: dict[Operation, list[float]] = {}
        for seconds in self.timed:
            for one, taken in seconds.items():
                found.setdefault(one, []).extend(taken)
        return found

    def whole(self, phase: str) -> float:
        """Seconds of a phase."""
        return statistics.median(taken[phase] for taken in self.wholes)


@mode_kept()
def measure(device: Device) -> Rates:
    """Measure this CPU's operations, remember what came out, and give it back; about 20 seconds.

    Random states and torch's settings stay as they were.

    Raises:
        DeviceError: it is no CPU (a GPU's operations are told from its data sheet); or the cache cannot be written.
    """
    if device.kind != "cpu":
        raise DeviceError(
            f"the operations of {device.name} cannot be measured one by one",
            where=f"device {device.kind}",
            why="only a CPU's are measured so far; a GPU's are taken from its data sheet",
            suggestion="ganeum train measures a few of the run's own steps before it starts",
        )
    allocator.keep_freed_memory()
    products, cases = torch.get_float32_matmul_precision(), []
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for sizes in CASES:
                case = Case(*sizes[:-1], device, **sizes[-1])
                case.measure()
                del case.step  # its weights
                cases.append(case)
    finally:
        torch.set_float32_matmul_precision(products)
    found = fitted(cases)
    rates.remember(device.name, torch.get_num_threads(), found, of=rates.OPERATIONS)
    return found


def _clock() -> Callable[[], float]:
    """One thread's own time does not run while other programs do; Windows counts it in steps of 16 ms."""
    return time.process_time if torch.get_num_threads() == 1 and sys.platform != "win32" else time.perf_counter


def fitted(cases: list[Case]) -> Rates:
    """The rates behind what was measured; ``misfit`` is that of the cases' whole steps."""
    looking, points = _looking(), dict[str, Points]()
    for case in cases:
        for one, seconds in case.operations().items():
            point = (one.amounts, max(statistics.median(seconds) - looking, LEAST_S))
            for group in (one.group, one.akin):
                points.setdefault(group, []).append(point)
    found = {
        group: fit(measured)
        for group, measured in points.items()
        if group.startswith((roofline.PRODUCT, roofline.PASS, roofline.VIEW))
        or len({tuple(amounts.values()) for amounts, _ in measured}) >= LEAST_SIZES
    }
    for phase in sorted(set(PHASES.values())):
        gaps = [_gap(case, phase) for case in cases]
        square = sum((count / whole) ** 2 for count, _, whole in gaps)
        found[roofline.between(phase)] = {"calls": sum(count * gap / whole**2 for count, gap, whole in gaps) / square}
    ratios = []  # of whole steps to what the rates say of them
    for case in cases:
        often = {one: len(seconds) / TIMED for one, seconds in case.operations().items()}
        parts = roofline.measured(often, Rates("", found, 0.0))
        assert parts is not None, "everything in it was measured"
        ratios.append(sum(map(case.whole, parts)) / sum(parts.values()))
    level = statistics.median(ratios)
    scaled = {group: {kind: level * rate for kind, rate in kinds.items()} for group, kinds in found.items()}
    misfit = (sum((level / ratio - 1) ** 2 for ratio in ratios) / len(ratios)) ** 0.5
    return Rates(datetime.date.today().isoformat(), scaled, misfit)


def _looking() -> float:
    """Seconds that reading the clock takes, which are in every time."""
    clock = _clock()
    read = [clock() for _ in range(1001)]
    return statistics.median(after - before for before, after in pairwise(read))


def _gap(case: Case, phase: str) -> tuple[float, float, float]:
    """Operations of a phase in a step, the seconds that lie between them, and all of its seconds."""
    seconds = [taken for one, taken in case.operations().items() if one.phase == phase]
    whole = case.whole(phase)
    return sum(map(len, seconds)) / TIMED, max(0.0, whole - sum(map(sum, seconds)) / TIMED), whole
