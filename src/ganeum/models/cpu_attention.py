"""Causal attention on a CPU, as matrix products over blocks of queries.

torch's own CPU kernel multiplies bf16 about as slowly as fp32 and computes the masked half. Written out, a layer of
16 × 256 tokens and 6 heads of 64 takes 37 ms forward and backward against 93 (bf16), 66 against 80 (fp32); one core of
an AMD EPYC with AVX512-BF16, torch 2.13.0, medians by turns, 2026. It keeps the attention weights for the backward
pass, B · H · T² / 2 numbers a layer, and so is only for short contexts: see ``LONGEST``.

Shapes: B = sequences, T = tokens in each, H = heads of queries, K = heads of keys and values, G = H / K = heads of
queries that share one, D = head_dim, R = B · K. The queries that share keys lie beside each other, as rows of one
matrix (R, T · G, D), so that their keys are read once and never repeated.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ganeum.models import cpu_rotary
from ganeum.models.rotary import Rotation

BLOCK = 64  # queries at once: a smaller block computes less of the masked half, a larger one feeds the cores better
LONGEST = 1_024  # tokens; beyond it the kept weights would outweigh all other activations


def causal_attention(
    qkv: Tensor, n_head: int, norms: tuple[Tensor, Tensor, float] | None = None, rotation: Rotation | None = None
) -> Tensor:
    """softmax(q kᵀ / √D) v, each token seeing itself and those before it: (B, T, H + 2 K, D) → (B, T, H · D).

    Products in the dtype of ``qkv``, softmax in fp32 inside.

    Args:
        qkv: heads of queries, of keys and of values, side by side.
        n_head: H.
        norms: RMSNorm's weights (D,) for queries and for keys, and its epsilon.
        rotation: turns queries and keys after their norm; both or neither.
    """
    weight, eps, cos, sin = None, 0.0, None, None
    if norms is not None and rotation is not None:
        (of_q, of_k, eps), (cos, sin) = norms, rotation
        K = (qkv.size(2) - n_head) // 2
        weight = torch.cat((of_q.expand(n_head, -1), of_k.expand(K, -1)))  # (H + K, D)
        weight = weight.to(torch.promote_types(qkv.dtype, torch.float32))  # what norm and rotation are computed in
    y: Tensor = _CausalAttention.apply(qkv, n_head, weight, eps, cos, sin)
    return y


def _weights(q: Tensor, k: Tensor, start: int, group: int) -> Tensor:
    """Attention weights (R, block · G, end) of the queries ``start : end``, which see the keys up to ``end``."""
    end = min(start + BLOCK, k.size(1))
    scores = torch.bmm(q[:, start * group : end * group], k[:, :end].transpose(1, 2))
    future = torch.full((end - start, end - start), -torch.inf, dtype=q.dtype).triu_(1)
    scores[:, :, start:] += future.repeat_interleave(group, dim=0)
    return torch.softmax(scores, dim=-1)


def _by_head(x: Tensor, group: int) -> Tensor:
    """(B, T, K · G, D) → (B, K, T, G, D), a view."""
    return x.unflatten(2, (-1, group)).transpose(1, 2)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, qkv: Tensor, n_head: int, weight: Tensor | None, eps: float, cos: Tensor | None, sin: Tensor | None
    ) -> Tensor:
        B, T, heads, D = qkv.shape
        K = (heads - n_head) // 2
        G = n_head // K
        q, k, v = qkv.new_empty(B, K, T, G, D), qkv.new_empty(B, K, T, 1, D), qkv.new_empty(B, K, T, 1, D)
        turned, roots = qkv[:, :, : n_head + K], None
        if weight is not None and cos is not None and sin is not None:
            turned, roots = cpu_rotary.forward(turned, weight, eps, cos, sin)  # in fp32 inside
        q.copy_(_by_head(turned[:, :, :n_head], G)).mul_(D**-0.5)  # scaling a strided view is slower than both
        k.copy_(_by_head(turned[:, :, n_head:], 1))
        v.copy_(_by_head(qkv[:, :, n_head + K :], 1))
        q, k, v = q.view(-1, T * G, D), k.view(-1, T, D), v.view(-1, T, D)
        y = qkv.new_empty(B, T, n_head, D)
        kept = []
        with torch.autocast("cpu", enabled=False):
            for start in range(0, T, BLOCK):
                p = _weights(q, k, start, G)
                end = p.size(2)
                _by_head(y[:, start:end], G).copy_(torch.bmm(p, v[:, :end]).view(B, K, -1, G, D))
                kept.append(p)
        ctx.save_for_backward(qkv if weight is not None else None, weight, roots, cos, sin, q, k, v, *kept)
        ctx.sizes = B, T, n_head, K, G, D
        return y.view(B, T, n_head * D)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        qkv, weight, roots, cos, sin, q, k, v, *kept = ctx.saved_tensors
        B, T, H, K, G, D = ctx.sizes
        d_y = _by_head(grads[0].reshape(B, T, H, D), G).reshape(-1, T * G, D)
        d_qkv = d_y.new_empty(B, T, H + 2 * K, D)
        d_q, d_k, d_v = (_by_head(part, G if part.size(2) == H else 1) for part in d_qkv.split((H, K, K), dim=2))
        sum_k, sum_v = torch.empty_like(k), torch.empty_like(v)
        for p in reversed(kept):  # the last block sees all keys: its products start the sums
            rows, end = p.shape[1:]
            start = end - rows // G
            block = slice(start * G, end * G)
            d_p = torch.bmm(d_y[:, block], v[:, :end].transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_p, p, -1, p.dtype)  # p · (d_p − Σ p · d_p)
            if end == T:
                torch.bmm(d_scores.transpose(1, 2), q[:, block], out=sum_k)
                torch.bmm(p.transpose(1, 2), d_y[:, block], out=sum_v)
            else:
                sum_k[:, :end] += torch.bmm(d_scores.transpose(1, 2), q[:, block])
                sum_v[:, :end] += torch.bmm(p.transpose(1, 2), d_y[:, block])
            d = torch.bmm(d_scores, k[:, :end]).view(B, K, -1, G, D)
            torch.mul(d, D**-0.5, out=d_q[:, :, start:end])
        d_k.copy_(sum_k.view(B, K, T, 1, D))
        d_v.copy_(sum_v.view(B, K, T, 1, D))
        d_weight = None
        if weight is not None:
            d_weight = cpu_rotary.backward(d_qkv[:, :, : H + K], qkv[:, :, : H + K], weight, roots, cos, sin)
        return d_qkv, None, d_weight, None, None, None
