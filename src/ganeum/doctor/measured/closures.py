"""A closure that an optimizer is handed: what it computes that the step has computed just before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ganeum.doctor.measured import tensors
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import around_entry

STEPS = 3
Pass = tuple[Tensor, list[Tensor]]  # what the weights add up to, and the inputs


def given(args: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """The closure that ``Optimizer.step`` is called with, the optimizer itself among ``args``; None: it has none."""
    """The closure that ``Optimizer.step`` is called with, the optimizer itself among ``args``; None: it has none."""
    closure = args[1] if len(args) > 1 else named.get("closure")
    return closure if callable(closure) else None


def instead(args: tuple[Any, ...], named: Mapping[str, Any], closure: Callable[[], Any]) -> Any:
    """What a hook before ``Optimizer.step`` returns so that it is called with another closure."""
    return ((args[0], closure, *args[2:]), named) if len(args) > 1 else (args, {**named, "closure": closure})


def again_share(training: Training, batches: Iterable[Any], wait: Callable[[], None]) -> float:
    """The share of some steps that closures take where each is called once, and has the inputs and the weights of the
    passes before it in that step, so that its gradients are there already; otherwise 0. LBFGS asks several times, and
    sharpness-aware optimizers move the weights first.

    Args:
        wait: for the device.
    """
    passes: list[Pass] = []
    calls = again = 0
    inside = total = 0.0

    def forward(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            if torch.is_grad_enabled():
                passes.append((_sums(training), [tensor for _, tensor in tensors.each((inputs, named))]))
            return function(*inputs, **named)

        return call

    def stepping(_optimizer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        closure = given(args, named)
        if closure is None:
            return None

        def timed() -> Any:
            nonlocal calls, again, inside
            before = list(passes)
            passes.clear()
            wait()
            began = time.perf_counter()
            loss = closure()
            wait()
            inside += time.perf_counter() - began
            calls += 1
            again += bool(before) and _alike(before, passes)
            return loss

        return instead(args, named, timed)

    undo, handle = around_entry(training, forward), register_optimizer_step_pre_hook(stepping)
    steps = 0
    try:
        for batch in islice(batches, STEPS):
            passes.clear()
            began = time.perf_counter()
            training.step(batch)
            wait()
            total, steps = total + time.perf_counter() - began, steps + 1
    finally:
        handle.remove()
        undo()
    return inside / total if steps and calls == again == steps else 0.0


def _sums(training: Training) -> Tensor:
    """Of each parameter: others once anything has moved them, also where torch does not count it (``.data``)."""
    return torch.stack([p.detach().sum(dtype=torch.float32) for p in training.model.parameters()])


def _alike(some: list[Pass], others: list[Pass]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b) and len(x) == len(y) and all(torch.equal(s, t) for s, t in zip(x, y, strict=True))
        for (a, x), (b, y) in zip(some, others, strict=True)
    )
