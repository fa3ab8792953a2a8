"""Low-rank adapters: y = W x + alpha / rank · B A x, where only A and B are trained and W stays as it is.

From Hu et al. 2021 (arXiv 2106.09685), section 4.1. The layers are peft's (extra `lora`), which knows any model made of
linear layers. In files they have the names of the layers that they sit on, and what reads a checkpoint gets the sum:

    blocks.0.mlp.up.weight          (out, in)     W
    blocks.0.mlp.up.lora_A.weight   (rank, in)    A, random at first
    blocks.0.mlp.up.lora_B.weight   (out, rank)   B, zero at first: training begins with the model as it was
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ganeum.config.schema import Lora
from ganeum.errors import CheckpointError, ConfigError, MissingExtra
from ganeum.models.quiet import quiet

A, B = ".lora_A.weight", ".lora_B.weight"


def attach(model: nn.Module, lora: Lora) -> None:
    """Puts adapters on the layers of :func:`targets` and freezes all else; nothing for ``rank: null``.

    A is drawn from torch's global random state. Adapters are kept in what the weights are kept in, fp32 or bf16.

    Raises:
        MissingExtra: peft is not installed.
        ConfigError: the model has no such layers.
    """
    if lora.rank is None:
        return
    try:
        with quiet():
            from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtra(
            f"train.lora.rank={lora.rank} needs the package peft", suggestion="pip install 'ganeum[lora]'"
        ) from None
    layers = targets(model, lora.targets)
    if not layers:
        raise ConfigError(
            f"train.lora.targets is {lora.targets}, but the model has no such linear layers",
            why="adapters sit on linear layers other than the output layer",
            suggestion="train.lora.targets: all" if lora.targets != "all" else None,
        )
    settings: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    inject_adapter_in_model(LoraConfig(**settings, target_modules=layers), model)


def targets(model: nn.Module, which: Literal["all", "attention"]) -> list[str]:
    """Names of the linear layers that get an adapter: ``all`` but the output layer, or those inside of attention.

    Of Hugging Face models too: their output layer is what they call so, their attention has `attn` or `attention` in
    its name, and the linear layer of their GPT-2 is a class of its own.
    """
    heads = [getattr(model, "head", None), getattr(model, "get_output_embeddings", lambda: None)()]
    return [
        name
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
        and not any(module is head for head in heads)
        and (which == "all" or "attn" in name.lower() or "attention" in name.lower())
    ]


def state(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's state under the names that files have."""
    return {
        name.replace(".base_layer.", ".").replace(".default.weight", ".weight"): tensor
        for name, tensor in state_dict.items()
    }


def of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The adapters alone."""
    return {name: tensor for name, tensor in state.items() if name.endswith((A, B))}


@torch.no_grad()
def merged(
    state: Mapping[str, Tensor], lora: Lora | None, *, where: str, across: Collection[str] = ()
) -> dict[str, Tensor]:
    """A file's weights → those of the same model without adapters: W + alpha / rank · B A, in fp32.

    Args:
        lora: of the run that trained them: the file does not tell alpha.
        across: weights that lie as (in, out), as in transformers' GPT-2.
    Raises:
        CheckpointError: there are adapters, and ``lora`` is None.
    """
    adapters = of(state)
    plain = {name: tensor for name, tensor in state.items() if name not in adapters}
    if adapters and lora is None:
        raise CheckpointError(
            "these weights have adapters, and nothing tells by how much they count",
            where=where,
            why="train.lora.alpha is in the run's config.yaml, two directories above a checkpoint",
            suggestion="the checkpoint in its run's directory, or an export of it",
        )
    for name in adapters:
        if lora is not None and name.endswith(A):
            layer, a, b = name.removesuffix(A), adapters[name].float(), adapters[name.removesuffix(A) + B].float()
            weight = plain[f"{layer}.weight"].float()
            pair = (a.T, b.T) if f"{layer}.weight" in across else (b, a)
            plain[f"{layer}.weight"] = torch.addmm(weight, *pair, alpha=lora.alpha / len(a))
    return plain


def trained(model: nn.Module) -> int:
    """How many numbers training changes."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad)
