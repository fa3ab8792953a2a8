"""Attention of transformers' models: T5's, whose bias is learnt, by our own kernel on a CPU; and that of causal models
without the masks that they would make, and wait for, in each step.

Given no mask, a decoder of transformers looks on the device whether its positions are those of packed rows, and waits
for the answer. What it attends with under a name that it has no masks for, it takes for something that needs none: and
torch's fused attention needs none, told that it is causal. A mask that is given is used as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ganeum.models import cpu_bias_attention

NAME, BIASED = "ganeum_causal", "ganeum_biased"
FUSED = ("sdpa", NAME, BIASED)  # all of these take masks of yes and no
WITH_BIAS = ("t5", "mt5")


def with_bias(model: Any) -> None:
    """A T5 that attends with "sdpa" does so by ``cpu_bias_attention`` from now on, where torch has no fused kernel; its
    masks are made as before."""
    if model.config.model_type not in WITH_BIAS or model.config._attn_implementation != "sdpa":
        return
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(BIASED, _attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(BIASED, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    for config in configs(model):
        config._attn_implementation_internal = BIASED


def configs(model: Any) -> list[Any]:
    """Of the model and of its parts, each once."""
    return list({id(part.config): part.config for part in model.modules() if hasattr(part, "config")}.values())


@contextmanager
def without_masks(configs: Sequence[Any]) -> Iterator[None]:
    """The models of these configs, which attend with "sdpa", do so without making masks."""
    if configs:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        ALL_ATTENTION_FUNCTIONS.register(NAME, sdpa_attention_forward)
    for config in configs:
        config._attn_implementation_internal = NAME
    try:
        yield
    finally:
        for config in configs:
            config._attn_implementation_internal = "sdpa"


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: Tensor | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """transformers' interface: (B, H, T, D), (B, K, S, D) twice → (B, T, H, D)."""
    plain = dropout > 0.0 or (position_bias is not None and position_bias.requires_grad)
    written_out = query.device.type == "cpu" and not torch.compiler.is_compiling()  # which fuses passes by itself
    if position_bias is not None and plain and written_out:
        scale = query.size(-1) ** -0.5 if scaling is None else scaling
        causal = attention_mask is None and module.is_causal
        y = cpu_bias_attention.attention(
            query, key, value, position_bias, attention_mask, causal=causal, scale=scale, dropout=dropout
        )
        return y, None
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    fused: tuple[Tensor, None] = sdpa_attention_forward(
        module,
        query,
        key,
        value,
        attention_mask,
        dropout=dropout,
        scaling=scaling,
        position_bias=position_bias,
        **more,
    )
    return fused
