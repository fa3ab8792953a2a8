"""Work that is done twice or for nothing: recomputation, passes without learning, closures, graphs of gradients."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ganeum.doctor.measured import closures, tensors
from ganeum.doctor.measured.acts.remembered import remembered
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import around_entry
from ganeum.doctor.measured.watch import replace as put_in
from ganeum.models import checkpointing

CHECKPOINT = "torch.utils.checkpoint:checkpoint"
ITS_OWN = ("use_reentrant", "context_fn", "determinism_check", "debug", "early_stop", "preserve_rng_state")


def not_recomputed(training: Training) -> Training:
    """Activations are kept: Hugging Face's switch, their modules' flag, torch's function itself."""
    for module in training.model.modules():
        # The first is their newer name for the second.
        names = (f"{kind}_checkpointing_disable" for kind in ("activation", "gradient"))
        off = next((found for name in names if callable(found := getattr(module, name, None))), None)
        if off is not None and any(getattr(part, "gradient_checkpointing", False) is True for part in module.modules()):
            off()
        if getattr(module, "gradient_checkpointing", False) is True:
            vars(module)["gradient_checkpointing"] = False
    if getattr(training, "taking", None) is not None:
        checkpointing.apply(training.model.blocks, "none")  # type: ignore[arg-type]

    def straight(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(part: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
            return part(*inputs, **{key: value for key, value in named.items() if key not in ITS_OWN})

        return call

    put_in(CHECKPOINT, straight)
    return training


LEARNT_FROM = 2  # steps in which is seen what comes back through each pass


def no_extra_forwards(training: Training) -> Training:
    """A forward pass that nothing is learnt from gives what it gave before for inputs of that shape, and what is
    computed from that alone is remembered, too: this shows what such passes cost; results are wrong.

    Nothing is learnt from a pass without gradient; nor from one whose place in a step, as the first, the second, …, had
    no gradient coming back through it in the first steps, where others had.
    """
    passes = _Passes(training.step)
    around_entry(training, passes.around)
    return replace(training, step=passes.step)


class _Passes:
    """The forward passes of a step, in their order."""

    def __init__(self, step: Callable[[Any], Any]) -> None:
        self._step = step
        self._steps = 0
        self._came: list[bool] = []  # for each pass of this step with gradient: whether it came back
        self._idle: set[int] = set()  # places at which it never did
        self._kept: dict[Any, Any] = {}

    def step(self, batch: Any) -> Any:
        self._came = []
        loss = self._step(batch)
        if self._steps < LEARNT_FROM:
            idle = {place for place, came in enumerate(self._came) if not came} if any(self._came) else set()
            self._idle = self._idle & idle if self._steps else idle
            self._steps += 1
        return loss

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            came, place = self._came, len(self._came) if torch.is_grad_enabled() else -1
            if place >= 0:
                came.append(False)
                if self._steps < LEARNT_FROM:
                    found = function(*inputs, **named)
                    came[place] = not tensors.on_gradient(found, lambda: operator.setitem(came, place, True))
                    return found
                if place not in self._idle:
                    return function(*inputs, **named)
            shapes = (place, *((name, t.shape, t.dtype) for name, t in tensors.each((inputs, named))))
            if shapes not in self._kept:
                self._kept[shapes] = remembered(function(*inputs, **named))
            return self._kept[shapes]

        return call


def closure_once(training: Training) -> Training:
    """An optimizer's closure is called in the first step alone: from then on its updates take the gradients that are
    there, and return the first loss."""
    first: dict[int, Any] = {}

    def stepping(optimizer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        closure, key = closures.given(args, named), id(optimizer)
        if closure is None:
            return None

        def once() -> Any:
            if key not in first:
                loss = closure()
                first[key] = loss.detach() if isinstance(loss, torch.Tensor) else loss
            return first[key]

        return closures.instead(args, named, once)

    register_optimizer_step_pre_hook(stepping)
    return training


def plain_backward(training: Training) -> Training:
    """Backward passes keep no graph, neither their own nor that of the gradients."""

    def plain(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(tensors: Any, gradient: Any = None, *_flags: Any, **named: Any) -> Any:
            return function(tensors, gradient, **{**named, "create_graph": False, "retain_graph": False})

        return call

    put_in("torch:Tensor.backward", plain)  # torch.autograd.backward, which it calls, gets the flags by place
    return training
