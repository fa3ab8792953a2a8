"""Attention by its fastest kernel, without a mask that masks nothing, without what nobody reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ganeum.doctor.measured import tensors
from ganeum.doctor.measured.acts.applicable import NotApplicable
from ganeum.doctor.measured.acts.data import Changed
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import around_entry
from ganeum.doctor.measured.watch import replace as put_in

EVERY = [
    backend
    for name in ("CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
    if (backend := getattr(SDPBackend, name, None)) is not None
]
READS = ("output_attentions", "output_hidden_states")


def theirs(model: nn.Module) -> list[Any]:
    """The models of transformers in it, outermost first."""
    return [module for module in model.modules() if hasattr(module, "set_attn_implementation")]


def configs(model: nn.Module) -> list[Any]:
    """Every config of transformers in it, each once."""
    found = [module.config for module in model.modules() if hasattr(getattr(module, "config", None), "to_dict")]
    return list({id(config): config for config in found}.values())


def sdpa(training: Training) -> Training:
    """torch's fused attention in a model of transformers that attends "eager"."""
    if not any(getattr(config, "_attn_implementation", None) == "eager" for config in configs(training.model)):
        raise NotApplicable("no attention of transformers' is eager")
    models = theirs(training.model)
    if any(getattr(config, "output_attentions", False) for config in configs(training.model)):
        raise NotApplicable("the attention's weights are asked for, which a fused kernel does not have")
    try:
        for model in models:
            model.set_attn_implementation("sdpa")
    except (ValueError, ImportError) as error:
        raise NotApplicable(f"this model has no fused attention: {str(error).splitlines()[0]}") from error
    if any(getattr(config, "_attn_implementation", None) == "eager" for config in configs(training.model)):
        raise NotApplicable("this model has no fused attention")
    return training


def all_kernels(training: Training) -> Training:
    """Every backend of torch's attention is allowed again where the model is entered, and wherever it attends."""
    from torch.nn import functional

    if (own := torch._C._nn.scaled_dot_product_attention) is not functional.scaled_dot_product_attention:
        put_in("torch.nn.functional:scaled_dot_product_attention", lambda _: own)

    def every(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            with sdpa_kernel(EVERY):
                return function(*inputs, **named)

        return call

    around_entry(training, every)
    put_in("torch.nn.functional:scaled_dot_product_attention", every)
    torch.backends.mkldnn.set_flags(True)  # type: ignore[no-untyped-call]
    return training


def no_mask(training: Training) -> Training:
    """A mask (B, T) that is all ones is not handed to the model."""
    masks = [tensors.mask(batch) for batch, _ in zip(training.batches, range(8), strict=False)]
    if not masks or any(mask is None or not bool(mask.all()) for mask in masks):
        raise NotApplicable("the masks of its batches mask something, or there are none")
    full = [False]

    def look(batch: Any) -> Any:
        mask = tensors.mask(batch)  # before it is on the device, where looking would wait
        full[0] = mask is not None and bool(mask.all())
        return batch

    def without(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            if full[0] and tensors.MASK in named:
                named = {**named, tensors.MASK: None}
            return function(*inputs, **named)

        return call

    around_entry(training, without)
    return replace(training, batches=Changed(training.batches, look))


def no_cache(training: Training) -> Training:
    """transformers' cache for generation is not kept while training."""
    return _set(training, ("use_cache",), "the cache for generation is off already")


def fewer_outputs(training: Training) -> Training:
    """Attention weights and hidden states of every layer are not handed out."""
    return _set(training, READS, "neither attention weights nor hidden states are handed out")


def _set(training: Training, names: tuple[str, ...], otherwise: str) -> Training:
    found = False
    for config in configs(training.model):
        for name in names:
            if getattr(config, name, False):
                found = True
                setattr(config, name, False)

    def without(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            return function(*inputs, **{key: False if key in names else value for key, value in named.items()})

        return call

    undo = around_entry(training, without)
    if not found and not _asked(training, names):
        undo()
        raise NotApplicable(otherwise)
    return training


def _asked(training: Training, names: tuple[str, ...]) -> bool:
    """Whether a step asks for one of them by an argument."""
    from ganeum.doctor.measured.untouched import outcome

    asked: list[bool] = []

    def look(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*inputs: Any, **named: Any) -> Any:
            asked.append(any(named.get(name) for name in names))
            return function(*inputs, **named)

        return call

    undo = around_entry(training, look)
    try:
        outcome(training, next(iter(training.batches)))
    finally:
        undo()
    return any(asked)
