"""What numbers are computed with, and how: formats, compiled code, sizes that matrix units like."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from ganeum.doctor.measured.acts.applicable import NotApplicable
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import around_entry, updaters

MULTIPLE = 64  # of the vocabulary, which matrix units like


def device_of(training: Training) -> torch.device:
    """Where the weights lie."""
    return next(training.model.parameters()).device


def bf16(training: Training) -> Training:
    """Matrix products of the forward pass in bf16, by autocast around the model; logits come out in fp32."""
    return _autocast(training, torch.bfloat16)


def fp16(training: Training) -> Training:
    """The same in fp16 without scaling the loss: as fast as a real training in it, but its gradients may vanish."""
    return _autocast(training, torch.float16)


def _autocast(training: Training, dtype: torch.dtype) -> Training:
    if getattr(training, "taking", None) is not None:
        raise NotApplicable("a run of ours has its precision by a key")
    kind = device_of(training).type

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            with torch.autocast(kind, dtype):
                found = function(*inputs, **named)
            return _in_fp32(found, dtype)

        return call

    around_entry(training, within)
    return training


def _in_fp32(found: Any, dtype: torch.dtype) -> Any:
    """Tensors that somebody makes a loss of; a model that gives its own loss made it already."""
    if isinstance(found, Tensor):
        return found.float() if found.dtype is dtype else found
    if type(found) is tuple:
        return tuple(_in_fp32(one, dtype) for one in found)
    if getattr(found, "loss", None) is None and isinstance(logits := getattr(found, "logits", None), Tensor):
        found.logits = logits.float()
    return found


def fp32(training: Training) -> Training:
    """Autocast does nothing."""
    init = torch.autocast.__init__

    @wraps(init)
    def off(self: Any, *inputs: Any, **named: Any) -> None:
        init(self, *inputs[:2], **{**named, "enabled": False})

    torch.autocast.__init__ = off  # type: ignore[method-assign]
    return training


def tf32(training: Training) -> Training:
    """fp32's matrix products may be rounded to TF32."""
    if device_of(training).type != "cuda":
        raise NotApplicable("TF32 is something of NVIDIA's GPUs")
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    return training


def single(training: Training) -> Training:
    """Weights, and what is computed with them, in fp32 in place of fp64 or of 16 bits."""
    if all(p.dtype is torch.float32 for p in training.model.parameters()):
        raise NotApplicable("every weight is in fp32")
    training.model.float()
    torch.set_default_dtype(torch.float32)
    return training


def compiled(training: Training) -> Training:
    """torch.compile around the model's forward pass; it is compiled in its first step."""
    if getattr(training, "taking", None) is not None:
        raise NotApplicable("a run of ours is compiled by a key")
    training.model.compile()
    return training


def vocabulary_padded(training: Training) -> Training:
    """Rows of the embedding and the output layer up to a multiple of 64; the new ones stand for no token."""
    model: Any = training.model
    if not hasattr(model, "resize_token_embeddings"):
        raise NotApplicable("only models of transformers can have their vocabulary resized")
    optimizers = updaters(training)
    if any(one.state for one in optimizers):
        raise NotApplicable("the optimizer has begun already")
    before, rows = dict(model.named_parameters(remove_duplicate=False)), model.get_input_embeddings().weight.size(0)
    model.resize_token_embeddings(pad_to_multiple_of=MULTIPLE, mean_resizing=False)
    after: dict[int, nn.Parameter] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in before and before[name] is not parameter:
            after[id(before[name])] = parameter
    if model.get_input_embeddings().weight.size(0) == rows:  # a table may also grow within its parameter
        raise NotApplicable(f"the vocabulary is a multiple of {MULTIPLE} already")
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["params"] = [after.get(id(parameter), parameter) for parameter in group["params"]]
    return training
