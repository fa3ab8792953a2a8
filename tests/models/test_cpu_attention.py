"""Attention written out for a CPU is torch's own, for every length, block and grouping, normed and turned or not."""

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
from ganeum.models.rotary import Rotary, Rotation

Norms = tuple[Tensor, Tensor, float]


def torchs(qkv: Tensor, n_head: int, norms: Norms | None = None, rotation: Rotation | None = None) -> Tensor:
    """By torch's operators: keys repeated, norms by their formula, rotation as a product of complex numbers."""
    B, T, heads, D = qkv.shape
    K = (heads - n_head) // 2
    q, k, v = (t.transpose(1, 2) for t in qkv.split((n_head, K, K), dim=2))
    if norms is not None and rotation is not None:
        turn = torch.complex(*rotation)  # (T, D / 2)
        q, k = (
            turned(w * x / (x.square().mean(-1, keepdim=True) + norms[2]).sqrt(), turn)
            for x, w in ((q, norms[0]), (k, norms[1]))
        )
    k, v = (t.repeat_interleave(n_head // K, dim=1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, n_head * D)


def turned(x: Tensor, turn: Tensor) -> Tensor:
    pairs = torch.complex(*x.chunk(2, dim=-1)) * turn
    return torch.cat((pairs.real, pairs.imag), dim=-1)


def inputs(
    B: int, T: int, K: int, G: int, D: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Norms, Rotation]:
    g = torch.Generator().manual_seed(T)
    qkv = torch.randn(B, T, (G + 2) * K, D, generator=g, dtype=dtype).requires_grad_()
    q_norm, k_norm = (torch.randn(D, generator=g, dtype=dtype).requires_grad_() for _ in range(2))
    cos, sin = Rotary(T, D, 100.0)(0, T)
    return qkv, (q_norm, k_norm, 1e-3), (cos.to(dtype), sin.to(dtype))


sizes = {"B": st.integers(1, 3), "T": st.integers(1, 150), "K": st.integers(1, 3), "G": st.integers(1, 3)}


@settings(max_examples=30, deadline=None)
@given(**sizes, D=st.sampled_from([1, 3, 8]))
def test_it_is_scaled_dot_product_attention(B: int, T: int, K: int, G: int, D: int) -> None:
    """Output and gradient in fp64, for one block, several, and a last one that is not full; with shared keys."""
    qkv = inputs(B, T, K, G, D)[0] if D % 2 == 0 else inputs(B, T, K, G, 2 * D)[0][..., :D]
    d_y = torch.randn(B, T, G * K * D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = causal_attention(qkv, G * K), torchs(qkv, G * K)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, qkv, d_y), torch.autograd.grad(theirs, qkv, d_y))


@settings(max_examples=30, deadline=None)
@given(**sizes, D=st.sampled_from([2, 8]))
def test_norm_and_rotation_come_before_it(B: int, T: int, K: int, G: int, D: int) -> None:
    """Output and the gradients of queries, keys, values and both norms' weights, in fp64."""
    qkv, norms, rotation = inputs(B, T, K, G, D)
    d_y = torch.randn(B, T, G * K * D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    learnt = (qkv, *norms[:2])
    ours, theirs = causal_attention(qkv, G * K, norms, rotation), torchs(qkv, G * K, norms, rotation)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, learnt, d_y), torch.autograd.grad(theirs, learnt, d_y))


def test_its_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """gradcheck over three blocks, the last not full, with shared keys, norms and rotation."""
    monkeypatch.setattr(cpu_attention, "BLOCK", 4)
    qkv, norms, rotation = inputs(2, 11, 2, 2, 4)
    assert torch.autograd.gradcheck(lambda x: causal_attention(x, 4), qkv)
    assert torch.autograd.gradcheck(
        lambda x, q, k: causal_attention(x, 4, (q, k, 1e-3), rotation), (qkv, norms[0], norms[1])
    )


@pytest.mark.parametrize("modern", [False, True])
def test_in_bf16_it_is_as_near_to_fp32_as_bf16_allows(modern: bool) -> None:
    """Within 1 % in norm, output and gradient (torch's own bf16 kernel: 0.2 and 0.3 %)."""
    qkv, norms, rotation = inputs(2, 200, 2, 2, 16, torch.float32)
    around = (norms, rotation) if modern else ()
    d_y = torch.randn(2, 200, 64, generator=torch.Generator().manual_seed(0))
    half = qkv.detach().bfloat16().requires_grad_()
    ours, theirs = causal_attention(half, 4, *around), torchs(qkv, 4, *around)
    (mine,) = torch.autograd.grad(ours, half, d_y.bfloat16())
    (reference,) = torch.autograd.grad(theirs, qkv, d_y)
    assert (ours.float() - theirs).norm() < 0.01 * theirs.norm()
    assert (mine.float() - reference).norm() < 0.01 * reference.norm()


@pytest.mark.parametrize("style", ["gpt2", "modern"])
def test_the_model_uses_it_on_a_cpu_and_torchs_where_it_does_not_fit(
    monkeypatch: pytest.MonkeyPatch, style: str
) -> None:
    """Short contexts without dropout take it; long ones and dropout in training take torch's; the logits agree."""
    calls = []
    monkeypatch.setattr(gpt, "causal_attention", lambda *a: calls.append(1) or causal_attention(*a))
    torch.manual_seed(0)
    model = gpt.GPT(Model(style=style, n_layer=1, n_head=2, n_embd=16, block_size=100, vocab_size=50, dropout=0.5))
    tokens = torch.randint(50, (2, 100))
    model.train()(tokens)
    assert not calls
    written_out = model.eval()(tokens)
    assert calls == [1]
    monkeypatch.setattr(gpt, "LONGEST", 99)
    torch.testing.assert_close(model(tokens), written_out)
    assert calls == [1]
