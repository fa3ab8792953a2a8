"""Work that is done twice or for nothing: recomputation, forward passes without learning, graphs of gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import torch

from ganeum.doctor.measured import tensors
from ganeum.doctor.measured.acts.data import Changed
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


def no_extra_forwards(training: Training) -> Training:
    """A forward pass without gradient inside a step gives what it gave for the first inputs of that shape, and one on
    inputs that the step has had already what it gave then: this shows what such passes cost; results are wrong."""
    kept: dict[Any, Any] = {}
    had: dict[Any, Any] = {}

    def remembered(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            if torch.is_grad_enabled():
                if (these := tensors.which((inputs, named))) in had:
                    return had[these]
                found = function(*inputs, **named)
                had[these] = tensors.detached(found)
                return found
            shapes = tuple((name, t.shape) for name, t in tensors.each((inputs, named)))
            if shapes not in kept:
                kept[shapes] = function(*inputs, **named)
            return kept[shapes]

        return call

    def begun(batch: Any) -> Any:
        had.clear()
        return batch

    around_entry(training, remembered)
    return replace(training, batches=Changed(training.batches, begun))


def plain_backward(training: Training) -> Training:
    """Backward passes keep no graph, neither their own nor that of the gradients."""

    def plain(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(tensors: Any, gradient: Any = None, *_flags: Any, **named: Any) -> Any:
            return function(tensors, gradient, **{**named, "create_graph": False, "retain_graph": False})

        return call

    put_in("torch:Tensor.backward", plain)  # torch.autograd.backward, which it calls, gets the flags by place
    return training
