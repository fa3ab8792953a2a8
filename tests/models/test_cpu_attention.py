"""Attention written out for a CPU is torch's own, for every length and block."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ganeum.config.schema import Model
from ganeum.models import cpu_attention, gpt
from ganeum.models.cpu_attention import causal_attention


def torchs(qkv: Tensor, n_head: int) -> Tensor:
    B, T, C = qkv.shape
    q, k, v = qkv.view(B, T, 3, n_head, C // (3 * n_head)).permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C // 3)


@settings(max_examples=30, deadline=None)
@given(B=st.integers(1, 3), T=st.integers(1, 150), n_head=st.integers(1, 3), D=st.sampled_from([1, 3, 8]))
def test_it_is_scaled_dot_product_attention(B: int, T: int, n_head: int, D: int) -> None:
    """Output and gradient in fp64, for one block, several, and a last one that is not full."""
    g = torch.Generator().manual_seed(T)
    qkv = torch.randn(B, T, 3 * n_head * D, generator=g, dtype=torch.float64).requires_grad_()
    d_y = torch.randn(B, T, n_head * D, generator=g, dtype=torch.float64)
    ours, theirs = causal_attention(qkv, n_head), torchs(qkv, n_head)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, qkv, d_y), torch.autograd.grad(theirs, qkv, d_y))


def test_its_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """gradcheck over three blocks, the last not full."""
    monkeypatch.setattr(cpu_attention, "BLOCK", 4)
    qkv = torch.randn(2, 11, 3 * 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: causal_attention(x, 3), qkv)


def test_in_bf16_it_is_as_near_to_fp32_as_bf16_allows() -> None:
    """Within 1 % in norm, output and gradient (torch's own bf16 kernel: 0.2 and 0.3 %)."""
    g = torch.Generator().manual_seed(0)
    qkv, d_y = torch.randn(2, 200, 3 * 64, generator=g).requires_grad_(), torch.randn(2, 200, 64, generator=g)
    half = qkv.detach().bfloat16().requires_grad_()
    ours, theirs = causal_attention(half, 4), torchs(qkv, 4)
    (mine,) = torch.autograd.grad(ours, half, d_y.bfloat16())
    (reference,) = torch.autograd.grad(theirs, qkv, d_y)
    assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()
    assert (mine.float() - reference).norm() < 0.01 * reference.norm()


def test_the_model_uses_it_on_a_cpu_and_torchs_where_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short contexts without dropout take it; long ones and dropout in training take torch's; the logits agree."""
    calls = []
    monkeypatch.setattr(gpt, "causal_attention", lambda *a: calls.append(1) or causal_attention(*a))
    torch.manual_seed(0)
    model = gpt.GPT(Model(n_layer=1, n_head=2, n_embd=16, block_size=100, vocab_size=50, dropout=0.5))
    tokens = torch.randint(50, (2, 100))
    model.train()(tokens)
    assert not calls
    written_out = model.eval()(tokens)
    assert calls == [1]
    monkeypatch.setattr(gpt, "LONGEST", 99)
    torch.testing.assert_close(model(tokens), written_out)
    assert calls == [1]
