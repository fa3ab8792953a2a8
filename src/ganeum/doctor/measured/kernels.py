"""Functions that somebody wrote in Python and that compute what one kernel of torch's does: norms, activations, losses.

While a step runs, Python tells which functions it calls. One that is given a tensor and gives one back is tried beside
torch's kernels: where its numbers were the same, and on other tensors are, and its gradients, too, it is that function,
however it is written. What the kernel would save is measured on the tensors that it was given, forward and backward.
"""

from __future__ import annotations

import inspect
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path
from types import CellType, CodeType, FrameType, FunctionType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from ganeum.doctor.measured import by_turns
from ganeum.doctor.measured.subject import is_own
from ganeum.doctor.measured.tensors import IGNORED, size_bytes
from ganeum.doctor.measured.training import Training

PLAIN = (nn.Module, int, float, str, bool, type(None))  # what a function may be given beside tensors
OTHER_KINDS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS | inspect.CO_GENERATOR | inspect.CO_COROUTINE
MOST_ARGUMENTS, MOST_FUNCTIONS = 6, 4  # of a function; that are measured
KEPT_BYTES = 256 << 20  # of arguments and results
ALIKE = {torch.float32: 2e-5, torch.float64: 1e-10}  # of the largest number
EPSILONS = (1e-5, 1e-6, 1e-8, 1e-12)
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu(x)": functional.gelu,
    'gelu(x, approximate="tanh")': partial(functional.gelu, approximate="tanh"),
    "silu(x)": functional.silu,
    "mish(x)": functional.mish,
    "softplus(x)": functional.softplus,
    "elu(x)": functional.elu,
    "softmax(x, -1)": partial(functional.softmax, dim=-1),
    "log_softmax(x, -1)": partial(functional.log_softmax, dim=-1),
}
Kernel: TypeAlias = Callable[[Tensor], Tensor]


@dataclass
class Called:
    """A function with what it was given and what it gave.

    Attributes:
        function: somebody's.
        given: its arguments; tensors are copies.
        shape: of what it gave.
        within: functions that had called it.
        calls: a step, with tensors of these shapes.
    """

    function: Callable[..., Any]
    given: tuple[Any, ...]
    shape: torch.Size
    within: frozenset[CodeType]
    calls: int = 1

    @property
    def code(self) -> CodeType:
        """Of the function."""
        code: CodeType = self.function.__code__
        return code

    def again(self, x: Tensor) -> Tensor:
        """What it gives for another first tensor."""
        gave: Tensor = self.function(*self.given[: self.place], x, *self.given[self.place + 1 :])
        return gave

    @property
    def place(self) -> int:
        """Of the tensor that all is computed of, among its arguments."""
        return next(i for i, one in enumerate(self.given) if isinstance(one, Tensor) and _is_wide(one))


def of(training: Training) -> list[dict[str, Any]]:
    """Of each function, those that save most first: ``name``, ``where``, the ``kernel``, ``calls`` a step, ``seconds``
    of it that the kernel saves, the ``interval`` of those, and ``step_s``. A few steps are taken."""
    found = defaultdict[tuple[CodeType, str], list[tuple[Called, Kernel]]](list)
    known = [(called, *same) for called in _called(training) if (same := known_as(called)) is not None]
    codes = {called.code for called, *_ in known}
    for called, name, kernel in known:
        if not called.within & codes:
            found[called.code, name].append((called, kernel))
    if not found:
        return []
    device = next(training.model.parameters()).device
    step_s = by_turns.step_s(training, device)
    told = []
    most = sorted(found.items(), key=lambda item: -sum(_work(called) for called, _ in item[1]))
    for (code, name), alike in most[:MOST_FUNCTIONS]:
        largest, kernel = max(alike, key=lambda one: _work(one[0]))
        x = largest.given[largest.place]
        calls = sum(_work(called) for called, _ in alike) / x.numel()
        saves = by_turns.saved(partial(_both_ways, largest.again, x), partial(_both_ways, kernel, x), device)
        middle, low, high = (calls * seconds for seconds in saves)
        told.append(
            {
                "name": getattr(code, "co_qualname", code.co_name),  # the former since Python 3.11
                "where": f"{Path(code.co_filename).name}, line {code.co_firstlineno}",
                "kernel": f"torch.nn.functional.{name}",
                "calls": sum(called.calls for called, _ in alike),
                "seconds": middle,
                "interval": (low, high),
                "step_s": step_s,
            }
        )
    return sorted(told, key=lambda one: -float(one["seconds"]))


def known_as(called: Called) -> tuple[str, Kernel] | None:
    """The kernel that computes the same, and its name; None: there is none, or nobody can tell."""
    x, again = called.given[called.place], called.again
    with suppress(Exception):  # it is somebody's function, which may want anything
        with torch.no_grad():
            gave = again(x)
        others: list[Tensor] = []
        for name, kernel in _kernels(called):
            if not _alike(kernel(x), gave):
                continue
            if not others:
                draw = torch.Generator().manual_seed(0)
                drawn = [torch.randn(x.shape, generator=draw, dtype=x.dtype) * wide for wide in (0.5, 3.0)]
                others = [one.to(x.device) for one in drawn]
            both = [zip(_both_ways(again, one), _both_ways(kernel, one), strict=True) for one in (x, *others)]
            if all(_alike(a, b) for pair in both for a, b in pair):
                return name, kernel
    return None


def _called(training: Training) -> list[Called]:
    """In one step."""
    if sys.getprofile() is not None or sys.gettrace() is not None:
        return []
    seen = _Seen()
    batch = next(iter(training.batches))
    sys.setprofile(seen.note)
    try:
        training.step(batch)
    finally:
        sys.setprofile(None)
    return list(seen.found.values())


class _Seen:
    """What Python tells of calls."""

    def __init__(self) -> None:
        self.found: dict[tuple[Any, ...], Called] = {}
        self._open: dict[FrameType, tuple[Any, ...]] = {}
        self._fits: dict[CodeType, bool] = {}
        self._bytes = 0

    def note(self, frame: FrameType, event: str, gave: Any) -> None:
        code = frame.f_code
        if not self._fits.setdefault(code, _fits(code)):
            return
        if event == "call":
            values = frame.f_locals
            given = tuple(values.get(name) for name in code.co_varnames[: code.co_argcount])
            if _is_plain(given) and self._bytes + sum(map(size_bytes, given)) <= KEPT_BYTES:
                self._open[frame] = tuple(one.detach().clone() if isinstance(one, Tensor) else one for one in given)
        elif event == "return" and (kept := self._open.pop(frame, None)) is not None:
            if not isinstance(gave, Tensor) or not gave.requires_grad:
                return
            key = (code, *map(_of, kept))
            if key in self.found:
                self.found[key].calls += 1
            elif all(name in frame.f_locals for name in code.co_freevars):  # one that is bound later is none
                self._bytes += sum(map(size_bytes, kept))
                within = frozenset(outer.f_code for outer in self._open)
                self.found[key] = Called(_made(frame), kept, gave.shape, within)


def _of(one: Any) -> Any:
    """By which calls are told apart."""
    return tuple(one.shape) if isinstance(one, Tensor) else id(one) if isinstance(one, nn.Module) else one


def _fits(code: CodeType) -> bool:
    """Whether it is somebody's own function of a few arguments."""
    few = 0 < code.co_argcount <= MOST_ARGUMENTS and not code.co_kwonlyargcount
    return few and not code.co_flags & OTHER_KINDS and is_own(code.co_filename)


def _is_plain(given: tuple[Any, ...]) -> bool:
    """Whether it is given one tensor, and what belongs to it."""
    some = [one for one in given if isinstance(one, Tensor)]
    wide = [one for one in some if _is_wide(one)]
    plain = all(type(one) is Tensor or isinstance(one, (nn.Parameter, *PLAIN)) for one in given)
    autocast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
    return plain and not autocast and len(wide) == 1 and wide[0].dtype in ALIKE and torch.is_grad_enabled()


def _is_wide(one: Tensor) -> bool:
    return one.is_floating_point() and one.dim() > 1


def _kernels(called: Called) -> Iterator[tuple[str, Kernel]]:
    """Those that may be it, by their names."""
    x = called.given[called.place]
    beside = [one for one in called.given if isinstance(one, Tensor) and one is not x]
    labels = next((one for one in beside if not one.is_floating_point()), None)
    if labels is not None and len(beside) == 1:
        yield from _losses(x, labels, called.shape)
    elif called.shape == x.shape:
        owner = next((one for one in called.given if isinstance(one, nn.Module)), None)
        weights = [*beside, *(() if owner is None else owner.parameters(recurse=False))]
        if all(weight.shape == x.shape[-1:] for weight in weights):
            if not weights:
                yield from ACTIVATIONS.items()
            numbers = [*called.given, *(() if owner is None else vars(owner).values())]
            epsilons = [one for one in numbers if isinstance(one, float) and 0 < one < 0.01]
            for epsilon in (*epsilons, *EPSILONS):
                yield from _norms(x.shape[-1:], weights, epsilon)


def _norms(shape: tuple[int, ...], weights: list[Tensor], epsilon: float) -> Iterator[tuple[str, Kernel]]:
    layer, mean_square = functional.layer_norm, getattr(functional, "rms_norm", None)
    for w, b in permutations([*weights, *[None] * (2 - len(weights))], 2) if len(weights) <= 2 else ():
        yield "layer_norm(x, …)", partial(layer, normalized_shape=shape, weight=w, bias=b, eps=epsilon)
        if b is None and mean_square is not None:
            yield "rms_norm(x, …)", partial(mean_square, normalized_shape=shape, weight=w, eps=epsilon)


def _losses(x: Tensor, labels: Tensor, shape: torch.Size) -> Iterator[tuple[str, Kernel]]:
    """Of each place, or of all; of the labels beside the logits, or of the ones behind."""
    if labels.shape != x.shape[:-1]:
        return
    for shifted in (False, True) if x.dim() > 2 else (False,):
        wanted = (labels[..., 1:] if shifted else labels).flatten()
        classes = wanted[wanted != IGNORED]
        if shape and shape.numel() != wanted.numel():
            continue
        if classes.numel() and not 0 <= int(classes.min()) <= int(classes.max()) < x.shape[-1]:
            return  # they are no classes, and a GPU would not forgive the trial
        for how in ("none",) if shape else ("mean", "sum"):

            def loss(x: Tensor, shifted: bool = shifted, wanted: Tensor = wanted, how: str = how) -> Tensor:
                logits = (x[..., :-1, :] if shifted else x).flatten(0, -2)
                lost = functional.cross_entropy(logits, wanted, reduction=how, ignore_index=IGNORED)
                return lost.view(shape)

            yield "cross_entropy(logits, labels)", loss


def _made(frame: FrameType) -> Callable[..., Any]:
    """The function that a frame runs, once more."""
    code = frame.f_code
    cells = tuple(CellType(frame.f_locals[name]) for name in code.co_freevars)
    return FunctionType(code, frame.f_globals, None, None, cells)


def _both_ways(function: Kernel, x: Tensor) -> tuple[Tensor, Tensor]:
    """What it gives, and the gradient of that."""
    x = x.detach().requires_grad_()
    found = function(x)
    slope = torch.linspace(0.5, 1.5, found.numel(), dtype=found.dtype, device=found.device).view(found.shape)
    return found.detach(), torch.autograd.grad(found, x, slope)[0]


def _alike(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype not in ALIKE:
        return False
    return bool((a - b).abs().max() <= ALIKE[a.dtype] * b.abs().max())


def _work(called: Called) -> int:
    """Numbers that all its calls are given."""
    return int(called.given[called.place].numel()) * called.calls
