"""Attention that somebody wrote as products and a softmax, where torch has one kernel: how often, and what it costs.

Below autograd a step is a row of operations. A product whose result, after being scaled and masked, goes through a
softmax, and from there into another product, is attention, whatever it is called. What its kernel would save is
measured on tensors of the same shapes, forward and backward, both ways by turns.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ganeum.doctor.measured import by_turns, tensors
from ganeum.doctor.measured.training import Training

PRODUCTS = ("bmm", "mm", "baddbmm")
LARGEST = 4 << 20  # scores at once; of more heads so many are measured
SHAPES = 2  # that are measured: those that occur most


@dataclass(frozen=True)
class Attended:
    """One attention: ``n`` heads of all rows together, ``t`` queries, ``s`` keys, ``d`` and ``dv`` wide."""

    n: int
    t: int
    s: int
    d: int
    dv: int
    dtype: torch.dtype
    filled: bool = False  # by masked_fill or where
    added: bool = False  # a bias or a mask of numbers
    causal: bool = False  # what is filled is all that lies ahead, and nothing else
    scaled: bool = False
    dropout: float = 0.0


def of(training: Training) -> dict[str, Any] | None:
    """``calls`` a step, ``seconds`` of it that the kernel saves, the ``interval`` of those, and ``step_s``; None where
    a step has no such attention. A few steps are taken."""
    seen = _Seen()
    with _Named(seen), seen:
        training.step(next(iter(training.batches)))
    if not seen.found:
        return None
    device = next(training.model.parameters()).device
    saved, low, high = 0.0, 0.0, 0.0
    for shape, calls in seen.found.most_common(SHAPES):
        middle, least, most = _saves(shape, device)
        saved, low, high = saved + calls * middle, low + calls * least, high + calls * most
    step_s = by_turns.step_s(training, device)
    return {"calls": sum(seen.found.values()), "seconds": saved, "interval": (low, high), "step_s": step_s}


class _Seen(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows products through what is done to them, by their memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[Attended] = Counter()
        self.torchs_own = 0  # within scaled_dot_product_attention, whichever kernel it takes
        self._scores: dict[int, Attended] = {}
        self._weights: dict[int, Attended] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if torch._C._current_graph_task_id() >= 0:  # in a backward pass, whose products are the same ones' once more
            return found
        out = found[0] if isinstance(found, (tuple, list)) and found else found
        if not isinstance(out, Tensor):
            return found
        name = func.overloadpacket.__name__
        inputs = [tensor for _, tensor in tensors.each(args)]
        scores = next((one for t in inputs if (one := self._scores.get(_place(t))) and t.numel() == out.numel()), None)
        weights = next(
            (one for t in inputs if (one := self._weights.get(_place(t))) and t.numel() == out.numel()), None
        )
        self._scores.pop(_place(out), None)  # whatever lay there before
        self._weights.pop(_place(out), None)
        if name in PRODUCTS:
            a, b = inputs[-2], inputs[-1]
            attended = self._weights.get(_place(a))
            if attended is not None and not self.torchs_own:
                self.found[replace(attended, dv=b.size(-1))] += 1
            elif a.dim() == b.dim() and a.is_floating_point():
                rows = a.size(0) if a.dim() == 3 else 1
                self._scores[_place(out)] = Attended(rows, a.size(-2), b.size(-1), a.size(-1), 0, a.dtype)
        elif name in ("_softmax", "_safe_softmax"):
            if scores is not None and args[1] in (-1, out.dim() - 1) and out.size(-1) == scores.s:
                self._weights[_place(out)] = scores
        elif scores is not None:
            beside = [
                t for t in inputs if t.dim() > 1 and t.size(-1) > 1 and _place(t) not in (_place(out), *self._scores)
            ]
            fills = name.startswith(("masked_fill", "where"))
            self._scores[_place(out)] = replace(
                scores,
                filled=scores.filled or fills,
                added=scores.added or (bool(beside) and not fills),
                causal=scores.causal or (fills and any(_looks_back(t) for t in beside)),
                scaled=scores.scaled or name in ("div", "mul", "div_", "mul_"),
            )
        elif weights is not None:
            share = float(args[1]) if name == "native_dropout" else weights.dropout
            self._weights[_place(out)] = replace(weights, dropout=share)
        return found


def _looks_back(mask: Tensor) -> bool:
    """Whether it marks all that lies ahead, or all that does not."""
    if mask.dtype is not torch.bool or mask.numel() != mask.size(-1) * mask.size(-2):
        return False
    flat = mask.reshape(mask.shape[-2:])
    back = torch.ones_like(flat).tril()
    return torch.equal(flat, back) or torch.equal(flat, ~back)


def _place(tensor: Tensor) -> int:
    """Where its memory lies."""
    place: int = tensor.untyped_storage()._cdata
    return place


class _Named(TorchFunctionMode):
    """Tells when torch itself attends."""

    def __init__(self, seen: _Seen) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        own = func is functional.scaled_dot_product_attention
        self._seen.torchs_own += own
        try:
            return func(*args, **(kwargs or {}))
        finally:
            self._seen.torchs_own -= own


def _saves(shape: Attended, device: torch.device) -> tuple[float, float, float]:
    """Seconds that one call takes longer by hand than by torch's kernel, forward and backward: the median, and its
    interval."""
    n = max(1, min(shape.n, LARGEST // (shape.t * shape.s)))
    draw = torch.Generator().manual_seed(0)
    sides = [(shape.t, shape.d), (shape.s, shape.d), (shape.s, shape.dv)]
    q, k, v = (torch.randn(1, n, *side, generator=draw).to(device, shape.dtype).requires_grad_() for side in sides)
    bias = torch.zeros(shape.t, shape.s, device=device, dtype=shape.dtype)
    ahead = torch.ones(shape.t, shape.s, device=device, dtype=torch.bool).triu(1)
    only_causal = shape.causal and not shape.added
    mask = None if only_causal or not (shape.added or shape.filled) else bias
    gradient = torch.ones(1, n, shape.t, shape.dv, device=device, dtype=shape.dtype)
    scale = shape.d**-0.5 if shape.scaled else 1.0

    def by_hand() -> None:
        scores = q @ k.mT
        if shape.scaled:
            scores = scores * scale
        if shape.filled:
            scores = scores.masked_fill(ahead, float("-inf"))
        if shape.added:
            scores = scores + bias
        weights = scores.softmax(-1)
        if shape.dropout:
            weights = functional.dropout(weights, shape.dropout)
        (weights @ v).backward(gradient)  # type: ignore[no-untyped-call]

    def fused() -> None:
        found = functional.scaled_dot_product_attention(q, k, v, mask, shape.dropout, only_causal, scale=scale)
        found.backward(gradient)  # type: ignore[no-untyped-call]

    middle, low, high = (value * shape.n / n for value in by_turns.saved(by_hand, fused, device))
    return middle, low, high
