"""Norms and GELU in one kernel: the numbers of transformers' own modules, under the same names."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import PAIRS, TEXTS, made
from torch import nn

from ganeum.models import kernels_of_theirs

CASES = ["t5 gated untied", "mt5", "gpt2", "llama", "qwen3", "mistral"]


def exchanged(name: str) -> tuple[nn.Module, nn.Module]:
    """A model of transformers, and a copy of it with other modules in it."""
    theirs = made((PAIRS | TEXTS)[name])
    ours = copy.deepcopy(theirs)
    kernels_of_theirs.put_in(ours)
    return theirs, ours


@pytest.mark.parametrize("name", CASES)
def test_what_is_exchanged_keeps_names_and_numbers(name: str) -> None:
    """Every norm and every GELU, in fp32 and in bf16 (weights and what comes in), each to its format's rounding."""
    theirs, ours = exchanged(name)
    assert list(theirs.state_dict()) == list(ours.state_dict())
    pairs = [
        (one, other)
        for (_, one), (_, other) in zip(theirs.named_modules(), ours.named_modules(), strict=True)
        if type(one) is not type(other)
    ]
    assert {type(other) for _, other in pairs} <= {kernels_of_theirs.RMSNorm, nn.GELU}
    assert pairs
    for one, other in pairs:
        width = one.weight.numel() if hasattr(one, "weight") else 8
        x = torch.randn(3, 5, width, generator=torch.Generator().manual_seed(1)) * 3
        torch.testing.assert_close(other(x), one(x), rtol=1e-5, atol=1e-5)
        narrow = other.bfloat16()(x.bfloat16())
        assert narrow.dtype == one.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
        torch.testing.assert_close(narrow, one(x.bfloat16()), rtol=2e-2, atol=2e-2)


def test_a_norm_with_another_formula_stays() -> None:
    """Gemma multiplies by 1 + weight."""
    from transformers import GemmaConfig, GemmaForCausalLM

    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 50}
    model = GemmaForCausalLM(GemmaConfig(hidden_size=16, intermediate_size=16, head_dim=8, pad_token_id=0, **small))
    kernels_of_theirs.put_in(model)
    assert not any(isinstance(module, kernels_of_theirs.RMSNorm) for module in model.modules())
