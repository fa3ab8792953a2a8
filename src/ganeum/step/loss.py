"""Cross-entropy of a linear layer's outputs, in chunks of rows: the logits of the whole batch never exist.

Shapes: N = rows (tokens), C = width, V = vocab_size, P = padded_vocab_size ≥ V. At N = 8,192 and V = 50,257 the
logits in fp32 and their gradient would be 3.1 GiB; here at most ``chunk`` rows of them exist at one time.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -1  # a target that counts for nothing


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor | None,
    targets: Tensor,
    *,
    vocab_size: int,
    chunk: int,
    bias: Tensor | None = None,
    cap: float | None = None,
    dtype: torch.dtype | None = None,
    scale: Tensor | float = 1.0,
) -> Tensor:
    """``scale · Σ −log softmax(logits)[target]`` in nats, with gradients for ``hidden``, ``weight`` and ``bias``.

    Logits are ``hidden · weightᵀ + bias``; where there is a cap ``cap · tanh(… / cap)`` of that (Gemma 2, section 2).

    All gradients are computed in the forward pass, chunk by chunk while its logits are there, so nothing is
    recomputed; backward only multiplies them by the incoming gradient. That of a frozen ``weight`` is not
    computed. ``scale`` is 1 / tokens of the batch, times the loss scale in fp16.

    Args:
        hidden: (N, C), fp32 or half; without a ``weight`` (N, P), the logits themselves.
        weight: (P, C); rows from ``vocab_size`` on are padding: they take part in nothing and get a zero gradient.
        targets: (N,) ids below ``vocab_size``; ``-1`` is left out of the sum.
        vocab_size: V.
        chunk: rows whose logits exist at one time.
        bias: (P,).
        cap: no logit is larger, nor smaller than minus this.
        dtype: of the matrix products; default: that of ``hidden``. Softmax and sums are at least fp32 regardless.
        scale: a number, or a tensor () on the device.

    Returns:
        () in fp32 (fp64 for fp64 ``hidden``).
    """
    dtype = dtype or hidden.dtype
    loss: Tensor = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, weight, bias, targets, vocab_size, chunk, cap, dtype, scale
    )
    return loss


@torch.no_grad()
def token_nats(
    hidden: Tensor,
    weight: Tensor | None,
    targets: Tensor,
    *,
    vocab_size: int,
    chunk: int,
    bias: Tensor | None = None,
    cap: float | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """(N,) nats of each target, in fp32 or fp64; 0 for ignored ones. The evaluation's form: no gradients are made."""
    w, b = _as(weight, dtype or hidden.dtype), _as(bias, dtype or hidden.dtype)
    nats = hidden.new_empty(len(hidden), dtype=_sum_dtype(hidden))
    for rows in _chunks(len(hidden), chunk):
        nats[rows], *_ = _softmax(hidden[rows], w, b, cap, targets[rows], vocab_size)
    return nats


def _chunks(rows: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, rows)) for start in range(0, rows, chunk)]


def _sum_dtype(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def _as(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _softmax(
    h: Tensor, w: Tensor | None, b: Tensor | None, cap: float | None, t: Tensor, vocab_size: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """One chunk: (rows,) nats and (rows, P) probabilities, 0 in the padding, both in the sum's dtype; and of a cap, how
    much of a change it lets through, (rows, P)."""
    slope = None
    with torch.autocast(h.device.type, enabled=False):
        logits = h.clone() if w is None else F.linear(h.to(w.dtype), w, b)  # (rows, P)
    if cap is not None:
        bent = torch.tanh(logits / cap)
        logits, slope = cap * bent, 1 - bent.square()
    logits[:, vocab_size:] = -torch.inf
    p = torch.softmax(logits, dim=-1, dtype=_sum_dtype(h))
    # −log p[t] = log Σ exp(logits) − logits[t]. The sum is had from the largest p: at least 1/V, it never underflows
    # as p[t] may, and a second pass of exp and log over all columns is saved.
    top, target = logits.amax(-1).to(p.dtype), logits.gather(1, t.clamp_min(0)[:, None])[:, 0].to(p.dtype)
    nats = top - p.amax(-1).log() - target
    return nats.masked_fill_(t < 0, 0.0), p, slope


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        targets: Tensor,
        vocab_size: int,
        chunk: int,
        cap: float | None,
        dtype: torch.dtype,
        scale: Tensor | float,
    ) -> Tensor:
        w, b = _as(weight, dtype), _as(bias, dtype)
        total = hidden.new_zeros((), dtype=_sum_dtype(hidden))
        d_hidden = torch.empty_like(hidden)
        # Summed in fp32 also for weights in bf16, whose 8 bits would lose the later chunks.
        d_weight, d_bias = (
            torch.zeros_like(tensor, dtype=total.dtype) if tensor is not None and needed else None
            for tensor, needed in zip((weight, bias), ctx.needs_input_grad[1:3], strict=True)
        )
        for rows in _chunks(len(hidden), chunk):
            h, t = hidden[rows].to(dtype), targets[rows]
            nats, p, slope = _softmax(h, w, b, cap, t, vocab_size)
            total += nats.sum()
            d = p.scatter_add_(1, t.clamp_min(0)[:, None], -torch.ones_like(p[:, :1])).to(dtype)  # d nats / d logits
            if slope is not None:
                d *= slope
            share = (t >= 0)[:, None] * scale  # (rows, 1); 0 for an ignored row
            with torch.autocast(h.device.type, enabled=False):
                d_hidden[rows] = (d if w is None else d @ w) * share
                if d_weight is not None:  # each chunk's product is rounded to dtype, their sum is not
                    d_weight += d.T @ (h * share).to(dtype)
                if d_bias is not None:
                    d_bias += (d * share).sum(0)
        made = ((d_weight, weight), (d_bias, bias))
        ctx.save_for_backward(d_hidden, *(None if d is None or of is None else d.to(of.dtype) for d, of in made))
        return total * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        # In place unless they are needed once more: a second table of the vocabulary's size, while every activation is
        # still there, would be a step's fullest moment.
        multiply = torch.mul if torch._C._autograd._get_current_graph_task_keep_graph() else Tensor.mul_
        return *(None if d is None else multiply(d, grads[0].to(d.dtype)) for d in ctx.saved_tensors), *([None] * 6)
