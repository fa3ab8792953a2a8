"""Causal attention on a CPU, as matrix products over blocks of queries.

torch's own CPU kernel multiplies bf16 about as slowly as fp32 and computes the masked half. Written out, a layer of
16 × 256 tokens and 6 heads of 64 takes 37 ms forward and backward against 93 (bf16), 66 against 80 (fp32); one core of
an AMD EPYC with AVX512-BF16, torch 2.13.0, medians by turns, 2026. It keeps the attention weights for the backward
pass, B · H · T² / 2 numbers a layer, and so is only for short contexts: see ``LONGEST``.

Shapes: B = sequences, T = tokens in each, H = heads, D = head_dim, C = H · D, R = B · H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = 64  # queries at once: a smaller block computes less of the masked half, a larger one feeds the cores better
LONGEST = 1_024  # tokens; beyond it the kept weights would outweigh all other activations


def causal_attention(qkv: Tensor, n_head: int) -> Tensor:
    """(B, T, 3 C), queries, keys and values side by side → (B, T, C): softmax(q kᵀ / √D) v, each token seeing itself
    and those before it. Products in the dtype of ``qkv``, softmax in fp32 inside."""
    y: Tensor = _CausalAttention.apply(qkv, n_head)
    return y


def _weights(q: Tensor, k: Tensor, start: int) -> Tensor:
    """Attention weights (R, block, end) of the queries ``start : end``, which see the keys up to ``end``."""
    end = min(start + BLOCK, q.size(1))
    scores = torch.bmm(q[:, start:end], k[:, :end].transpose(1, 2))
    future = torch.full((end - start, end - start), -torch.inf, dtype=q.dtype).triu_(1)
    scores[:, :, start:] += future
    return torch.softmax(scores, dim=-1)


def _by_head(x: Tensor) -> Tensor:
    """(B, T, H, D) → (B, H, T, D), a view."""
    return x.transpose(1, 2)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, n_head: int) -> Tensor:
        B, T, D = qkv.size(0), qkv.size(1), qkv.size(2) // (3 * n_head)
        parts = qkv.view(B, T, 3, n_head, D)
        q, k, v = qkv.new_empty(3, B, n_head, T, D)
        q.copy_(_by_head(parts[:, :, 0])).mul_(D**-0.5)  # copied first: scaling a strided view is slower than both
        k.copy_(_by_head(parts[:, :, 1]))
        v.copy_(_by_head(parts[:, :, 2]))
        q, k, v = (t.view(-1, T, D) for t in (q, k, v))  # each (R, T, D)
        y = qkv.new_empty(B, T, n_head, D)
        kept = []
        with torch.autocast("cpu", enabled=False):
            for start in range(0, T, BLOCK):
                p = _weights(q, k, start)
                end = p.size(2)
                _by_head(y[:, start:end]).copy_(torch.bmm(p, v[:, :end]).view(B, n_head, -1, D))
                kept.append(p)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.n_head = n_head
        return y.view(B, T, n_head * D)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        (B, T, C), H = grads[0].shape, ctx.n_head
        D = C // H
        d_y = _by_head(grads[0].reshape(B, T, H, D)).reshape(-1, T, D)
        d_qkv = d_y.new_empty(B, T, 3, H, D)
        d_q, d_k, d_v = (_by_head(d_qkv[:, :, part]) for part in range(3))  # views (B, H, T, D)
        sum_k, sum_v = torch.empty_like(k), torch.empty_like(v)
        for p in reversed(kept):  # the last block sees all keys: its products start the sums
            block, end = p.shape[1:]
            start = end - block
            g, q_block = d_y[:, start:end], q[:, start:end]
            d_p = torch.bmm(g, v[:, :end].transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)  # p · (d_p − Σ p · d_p)
            if end == T:
                torch.bmm(d_scores.transpose(1, 2), q_block, out=sum_k)
                torch.bmm(p.transpose(1, 2), g, out=sum_v)
            else:
                sum_k[:, :end] += torch.bmm(d_scores.transpose(1, 2), q_block)
                sum_v[:, :end] += torch.bmm(p.transpose(1, 2), g)
            torch.mul(torch.bmm(d_scores, k[:, :end]).view(B, H, -1, D), D**-0.5, out=d_q[:, :, start:end])
        d_k.copy_(sum_k.view(B, H, T, D))
        d_v.copy_(sum_v.view(B, H, T, D))
        return d_qkv.view(B, T, 3 * C), None
