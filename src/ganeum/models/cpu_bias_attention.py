"""T5's attention on a CPU, written out: a learnt bias on the scores, a mask, dropout.

torch's fused kernel has no gradient for a bias and no dropout, so on a CPU it falls back on some ten passes over all
scores, forward and backward; here there are four, over as many sequences as stay in the cache. Forward and backward of
32 × 96 tokens, 4 heads of 32, half of them masked: 14.0 ms of processor time against 23.5 (fp32), 10.0 against 21.1
(bf16); with a tenth dropped 26.0 against 35.9; 8 × 512 tokens, 8 heads of 64: 277 against 436 (one core of an AMD EPYC,
torch 2.13.0, medians by turns, 2026-11-21). Like torch's, it keeps the weights for the backward pass.

Shapes: B = sequences, H = heads, T = queries, S = keys, D = head_dim. Products are those of the inputs' format, scores
and softmax are in fp32 (fp64 for fp64).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

IN_CACHE = 1 << 18  # scores at once: 1 MiB in fp32


def attention(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None, *, causal: bool, scale: float, dropout: float
) -> Tensor:
    """softmax(scale · q kᵀ + bias) v: (B, H, T, D), (B, H, S, D) twice → (B, T, H, D).

    Args:
        bias: (1, H, T, S), added to the scores; it gets its gradient.
        mask: bool, broadcast to (B, H, T, S), true where a query sees a key; each must see one.
        causal: a query sees its own place and what lies before it; instead of a mask.
        dropout: share of the weights that is dropped, drawn from torch's global random state.
    """
    if mask is not None:
        mask = mask.expand(len(q), -1, -1, -1)
    y: Tensor = _BiasAttention.apply(q, k, v, bias, mask, causal, scale, dropout)
    return y


class _BiasAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        bias: Tensor,
        mask: Tensor | None,
        causal: bool,
        scale: float,
        dropout: float,
    ) -> Tensor:
        (B, H, T, D), S = q.shape, k.size(2)
        wide = torch.promote_types(q.dtype, torch.float32)
        q, k, v = (x.reshape(B * H, -1, D) for x in (q if scale == 1.0 else q * scale, k, v))
        added = bias.detach().to(wide).contiguous()  # a table's rows turned round
        never = torch.finfo(wide).min
        if causal:
            added = added.masked_fill(torch.ones(T, S, dtype=torch.bool).triu_(1), never)
        p, y = q.new_empty(B * H, T, S), q.new_empty(B, T, H, D)
        kept = None
        if dropout:
            kept = torch.empty(B * H, T, S, dtype=torch.bool).bernoulli_(1.0 - dropout)
        with torch.autocast("cpu", enabled=False):
            for some in _parts(B, H * T * S):
                heads = slice(some.start * H, some.stop * H)
                scores = (
                    added.repeat(some.stop - some.start, 1, 1, 1)
                    if mask is None
                    else torch.where(mask[some], added, never)
                )
                scores = scores.reshape(-1, T, S)
                if wide == q.dtype:
                    scores.baddbmm_(q[heads], k[heads].mT)
                else:
                    scores += torch.bmm(q[heads], k[heads].mT)
                weights = torch.softmax(scores, dim=-1).to(q.dtype)
                del scores  # what is not needed any more is not there in the next turn either
                p[heads] = weights
                if kept is not None:
                    weights = weights.mul_(kept[heads]).div_(1.0 - dropout)
                y[some] = torch.bmm(weights, v[heads]).view(-1, H, T, D).transpose(1, 2)
                del weights
        ctx.save_for_backward(q, k, v, p, kept)
        ctx.options = (B, H, T, S, D), bias.dtype, scale, dropout
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, p, kept = ctx.saved_tensors
        (B, H, T, S, D), bias_dtype, scale, dropout = ctx.options
        d_y = grads[0].transpose(1, 2).reshape(B * H, T, D)
        d_q, d_k, d_v = (x.new_empty(B, x.size(1), H, D) for x in (q, k, v))
        learnt = ctx.needs_input_grad[3]
        d_bias = p.new_zeros(H, T, S, dtype=torch.promote_types(p.dtype, torch.float32)) if learnt else None
        with torch.autocast("cpu", enabled=False):
            for some in _parts(B, H * T * S):
                heads = slice(some.start * H, some.stop * H)
                weights = p[heads]
                dropped = weights if kept is None else (weights * kept[heads]).div_(1.0 - dropout)
                d_v[some] = _by_head(torch.bmm(dropped.mT, d_y[heads]), H)
                del dropped
                d_p = torch.bmm(d_y[heads], v[heads].mT)
                if kept is not None:
                    d_p = d_p.mul_(kept[heads]).div_(1.0 - dropout)
                d_scores = torch._softmax_backward_data(d_p, weights, -1, weights.dtype)  # p · (d_p − Σ p · d_p)
                del d_p
                if d_bias is not None:
                    d_bias += d_scores.view(-1, H, T, S).sum(0, dtype=d_bias.dtype)
                d_q[some] = _by_head(torch.bmm(d_scores, k[heads]), H)
                d_k[some] = _by_head(torch.bmm(d_scores.mT, q[heads]), H)
                del d_scores
        if scale != 1.0:
            d_q *= scale
        back = (x.transpose(1, 2) for x in (d_q, d_k, d_v))
        return *back, None if d_bias is None else d_bias[None].to(bias_dtype), *([None] * 4)


def _by_head(x: Tensor, heads: int) -> Tensor:
    """(b · H, N, D) → (b, N, H, D), a view."""
    return x.unflatten(0, (-1, heads)).transpose(1, 2)


def _parts(sequences: int, each: int) -> list[slice]:
    """Sequences whose scores stay in the cache, and at least one for each thread's head."""
    step = max(1, IN_CACHE * torch.get_num_threads() // each)
    return [slice(start, min(start + step, sequences)) for start in range(0, sequences, step)]
