"""Activation checkpointing: what a block computes is dropped after the forward pass and computed again in the backward.

Kept for the backward pass, of one token in one block of the ``gpt2`` style, C = n_embd, bf16 (what each product, norm
and GELU needs of its input; the residual stream is fp32), with fused attention:

| | bytes | recomputed, FLOPs |
|---|---|---|
| none | 36 C: norms' inputs 8, qkv's input 2, q k v 6, out's input 2, MLP's input 2, GELU's 8, down's 8 | 0 |
| selective | 18 C: all but the MLP half, of which only its input is left | 8 C² of 24 C² + attention |
| whole | 4 C: the block's input | 16 C² + attention: all but ``mlp.down``, whose output nobody needs again |

The MLP holds half of the bytes and costs a third of the products, and of those one matrix need not be multiplied
again: per FLOP it saves the most. What is computed again has the same bits, dropout included.

The way is that of Chen et al. 2016 (arXiv 1604.06174), one checkpoint a block, and for the parts that are worth it
Korthikanti et al. 2022 (arXiv 2205.05198), section 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

Mode = Literal["none", "selective", "whole"]


def apply(blocks: Iterable[nn.Module], mode: Mode) -> None:
    """From now on every block recomputes in training: nothing, its MLP half, or its whole ``forward``.

    Names, weights and results stay as they are. Evaluation and generation, which keep nothing anyway, run as before.
    """
    for block in blocks:
        half, name = _mlp_half(block)
        for module, applied in ((half, name), (block, "forward")):
            vars(module).pop(applied, None)  # the class's own is there again
        if mode != "none":
            module, part = (half, name) if mode == "selective" else (block, "forward")
            setattr(module, part, partial(_recomputed, getattr(module, part)))


def _mlp_half(block: nn.Module) -> tuple[nn.Module, str]:
    """The module and its function: ours, T5's last layer, or the MLP of Llama, GPT-2 and their like; where a block has
    none of these (BART's are plain layers), all of it."""
    if hasattr(block, "feed_forward") and callable(vars(type(block)).get("feed_forward")):
        return block, "feed_forward"
    layers = getattr(block, "layer", None)
    half = layers[-1] if isinstance(layers, nn.ModuleList) else getattr(block, "mlp", block)
    return half, "forward"


def _recomputed(function: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """``function(*inputs, **named)``; of what it keeps for the backward pass only the inputs stay in memory."""
    if not torch.is_grad_enabled():
        return function(*inputs, **named)
    return checkpoint(function, *inputs, use_reentrant=False, **named)  # which also restores autocast and random states
