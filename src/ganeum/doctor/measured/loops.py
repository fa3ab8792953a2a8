"""What a loop over pieces costs beyond its own lines: in the backward pass; and what is left of it when it is one call.

A graph's nodes belong to the lines that made them. The engine of a CPU takes them in the reverse of their order, so a
clock is read where nodes of the loop begin and where they end. What one call for all pieces takes is measured with the
loop's own arguments, put together.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from statistics import median
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ganeum.doctor.measured import tensors
from ganeum.doctor.measured.contest import interval
from ganeum.doctor.measured.training import Training

PIECES = ("__getitem__", "select", "narrow", "unbind", "split", "chunk", "index_select")  # take a part of a tensor
STEPS, LONGEST_S = 8, 1.0
LARGEST = 1 << 24  # numbers of what is put together


def whole(
    forward: Mapping[str, Any], training: Training, batches: Iterator[Any], is_mine: Callable[[FrameType | None], bool]
) -> dict[str, Any]:
    """``share`` and ``interval`` of ``forward``, with ``backward`` and without ``at_once``, each a share of a step.

    Args:
        forward: ``share`` and ``interval`` of the lines alone.
        training, batches: of which some steps are taken.
        is_mine: whether a frame is in a line of the loop.
    """
    back, once, began = list[float](), list[float](), time.perf_counter()
    while not back or (len(back) < STEPS and time.perf_counter() - began < LONGEST_S):
        step_s = _seconds(partial(training.step, next(batches)))
        seen = _Loop(is_mine)
        with seen:
            training.step(next(batches))
        back.append(seen.backward / step_s)
        once.append(seen.at_once() / step_s)
    at_once, (low, high, _) = median(once), interval(back)
    ends = forward["interval"]
    return {
        "backward": median(back),
        "at_once": at_once,
        "share": _within(forward["share"] + median(back) - at_once),
        "interval": (_within(ends[0] + low - at_once), _within(ends[1] + high - at_once)),
    }


def _within(share: float) -> float:
    return min(max(share, 0.0), 0.99)


class _Loop(TorchFunctionMode):
    """Seconds of the backward pass that go into nodes of the loop; its calls are kept."""

    def __init__(self, is_mine: Callable[[FrameType | None], bool]) -> None:
        super().__init__()
        self.backward = 0.0
        self._is_mine, self._since = is_mine, 0.0
        self._nodes: dict[Any, bool] = {}  # whether they are the loop's
        self._calls: defaultdict[Callable[..., Any], list[tuple[tuple[Any, ...], dict[str, Any]]]] = defaultdict(list)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is Tensor.backward:
            return self._timed(args[0], partial(func, *args, **named))
        found = func(*args, **named)
        mine = self._is_mine(sys._getframe(1))
        for _, tensor in tensors.each(found):
            self._note(tensor.grad_fn, mine)
        name = getattr(func, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__")
        if mine and isinstance(found, Tensor) and name not in PIECES and not writes:
            self._calls[func].append((args, named))
        return found

    def _note(self, node: Any, mine: bool) -> None:
        left = [node]
        while left:
            node = left.pop()
            if node is not None and node not in self._nodes:
                self._nodes[node] = mine
                left += [one for one, _ in node.next_functions]

    def _timed(self, loss: Tensor, function: Callable[[], Any]) -> Any:
        """``function()``, a clock read wherever the nodes of ``loss`` change from the loop's to others and back."""
        reached, left = set[Any](), [loss.grad_fn]
        while left:
            node = left.pop()
            if node is not None and node not in reached and node.name() != "torch::autograd::AccumulateGrad":
                reached.add(node)
                left += [one for one, _ in node.next_functions]
        handles, before, self._since = [], False, 0.0
        for node in sorted(reached, key=lambda node: -node._sequence_nr()):
            if (mine := self._nodes.get(node, False)) != before:
                handles.append(node.register_prehook(partial(self._turn, mine)))
                before = mine
        try:
            return function()
        finally:
            self._turn(False)
            for handle in handles:
                handle.remove()
            self._nodes.clear()

    def _turn(self, mine: bool, _gradients: Any = ()) -> None:
        now = time.perf_counter()
        if self._since:
            self.backward += now - self._since
        self._since = now if mine else 0.0

    def at_once(self) -> float:
        """Seconds, forward and backward, of its functions, each called for all pieces together; those that cannot be
        count for nothing."""
        seconds = 0.0
        for function, calls in self._calls.items():
            with suppress(Exception):  # not all functions take more rows, and not all give what has a gradient
                args = [_joined([given[place] for given, _ in calls]) for place in range(len(calls[0][0]))]
                seconds += min(_seconds(partial(_both_ways, function, args, calls[0][1])) for _ in range(2))
        self._calls.clear()
        return seconds


def _joined(pieces: list[Any]) -> Any:
    """All of them along their first dimension; what is no tensor is the same for all."""
    first = pieces[0]
    if not isinstance(first, Tensor):
        return first
    if all(piece is first for piece in pieces):  # its weights, whose gradients are not to be added to
        return first.detach().requires_grad_(first.requires_grad)
    if first.numel() * len(pieces) > LARGEST:
        raise ValueError("too large")
    joined = (torch.cat if first.dim() else torch.stack)([piece.detach() for piece in pieces])
    return joined.requires_grad_(first.requires_grad)


def _both_ways(function: Callable[..., Any], args: list[Any], named: dict[str, Any]) -> None:
    found = function(*args, **named)
    if found.requires_grad:
        torch.autograd.backward(found, torch.ones_like(found))


def _seconds(function: Callable[[], object]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began
