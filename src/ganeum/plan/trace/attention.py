"""Which attention kernel a GPU would run: torch decides by card, type, shapes and switches, and here in its place.

Fused kernels keep no T × S weights, so memory depends on the choice more than on anything else. The rules are those of
``can_use_flash_attention`` and ``can_use_mem_efficient_attention`` in torch's
aten/src/ATen/native/transformers/cuda/sdp_utils.cpp (read November 2026). torch asks CUDA for the card; without one it
would take the plain way, so its ``scaled_dot_product_attention`` is replaced while a trace is made.

Shapes: B = sequences, H = heads of queries, K = heads of keys, T = queries, S = keys, D = size of a head.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from ganeum.plan.trace.fake_cuda import Card

Kernel = Literal["cudnn", "flash", "efficient", "math"]
HALF = (torch.float16, torch.bfloat16)
PREFER_CUDNN = (9, 10)  # generations where torch tries cuDNN first, from cuDNN 9.15.1 on

aten = torch.ops.aten


def choose(
    card: Card,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    grouped: bool = False,
) -> Kernel:
    """The kernel for (B, H, T, D), (B, K, S, D), (B, K, S, D), under the switches of ``torch.backends.cuda``.

    Raises:
        RuntimeError: none of those that are switched on can do it, as torch says then, too.
    """
    backends = torch.backends.cuda
    order: list[tuple[Kernel, Callable[[], bool], bool]] = [
        ("flash", backends.flash_sdp_enabled, _flash(card, q, k, v, mask, dropout, causal, grouped)),
        ("efficient", backends.mem_efficient_sdp_enabled, _efficient(card, q, k, v, grouped)),
        ("math", backends.math_sdp_enabled, True),
    ]
    if card.capability[0] in PREFER_CUDNN:
        order.insert(0, ("cudnn", backends.cudnn_sdp_enabled, _cudnn(q, k, v, dropout)))
    for kernel, enabled, able in order:
        if able and enabled():
            return kernel
    raise RuntimeError("No available kernel. Aborting execution.")


def _flash(
    card: Card, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, causal: bool, grouped: bool
) -> bool:
    width = q.size(-1)
    if card.capability < (8, 0) or q.dtype not in HALF or mask is not None or not _dense(q, k, v):
        return False
    if not width == k.size(-1) == v.size(-1) or width > 256 or (causal and q.size(-2) != k.size(-2)):
        return False
    small = (8, 6) <= card.capability <= (8, 9) or card.capability >= (12, 0)
    if small and _learns(q, k, v) and width > 192 and (dropout > 0 or width <= 224):
        return False
    return _heads(q, k, grouped)


def _efficient(card: Card, q: Tensor, k: Tensor, v: Tensor, grouped: bool) -> bool:
    types = (*HALF, torch.float32) if card.capability >= (8, 0) else (torch.float16, torch.float32)
    if card.capability < (5, 0) or q.dtype not in types or not _dense(q, k, v) or grouped:
        return False
    unit = _alignment(card, q.dtype)
    if q.size(-1) != k.size(-1) or q.size(-1) % unit or v.size(-1) % unit:
        return False
    offsets = (t.storage_offset() for t in (q, k, v))
    if card.capability >= (8, 0) and any(offset % unit for offset in offsets):
        return False
    return _heads(q, k, grouped)


def _cudnn(q: Tensor, k: Tensor, v: Tensor, dropout: float) -> bool:
    strict = torch.are_deterministic_algorithms_enabled()
    if strict and not torch.is_deterministic_algorithms_warn_only_enabled():
        return False
    widths = {q.size(-1), v.size(-1)}
    return (
        q.dtype in HALF
        and _dense(q, k, v)
        and all(width % 8 == 0 and width <= 128 for width in widths)
        and k.size(-2) > 1
        and (dropout * 16).is_integer()
        and not (dropout and q.size(-2) == 1)
    )


def _alignment(card: Card, dtype: torch.dtype) -> int:
    """Elements that a head's size must be a multiple of (``minimum_gemm_alignment``)."""
    half, major = dtype in HALF, card.capability[0]
    tensor_cores = major >= 8 or (major == 7 and half)
    unit = 4 if major >= 8 else 1
    return max(unit, 8 if half else 4) if tensor_cores else unit


def _heads(q: Tensor, k: Tensor, grouped: bool) -> bool:
    same = q.size(1) == k.size(1)
    return q.size(0) == k.size(0) and (same or (grouped and q.size(1) % k.size(1) == 0))


def _dense(*tensors: Tensor) -> bool:
    return all(t.dim() == 4 and t.stride(-1) == 1 and t.size(-2) > 0 for t in tensors)


def _learns(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


class Attention:
    """torch's ``scaled_dot_product_attention`` as ``card`` runs it; ``used`` counts the kernels taken."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.used: Counter[str] = Counter()

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """(B, H, T, D), as torch's."""
        kernel = choose(self.card, q, k, v, mask=attn_mask, dropout=dropout_p, causal=is_causal, grouped=enable_gqa)
        self.used[kernel] += 1
        root = scale if scale is not None else 1 / math.sqrt(q.size(-1))
        out: Tensor
        if kernel == "flash":
            width = q.size(-1)
            if padding := -width % 8:
                q, k, v = (torch.nn.functional.pad(t, (0, padding)) for t in (q, k, v))
            out = aten._scaled_dot_product_flash_attention(q, k, v, dropout_p, is_causal, False, scale=root)[0]
            return out[..., :width] if padding else out
        if kernel == "math":
            if enable_gqa:
                share = q.size(1) // k.size(1)
                k, v = k.repeat_interleave(share, 1), v.repeat_interleave(share, 1)
            out = aten._scaled_dot_product_attention_math(q, k, v, attn_mask, dropout_p, is_causal, None, scale=scale)[
                0
            ]
            return out
        bias = _bias(attn_mask, q, k)
        learns = _learns(q, k, v) or (bias is not None and bias.requires_grad)
        if kernel == "cudnn":
            fused = aten._scaled_dot_product_cudnn_attention
            out = fused(q, k, v, bias, learns, dropout_p, is_causal, False, scale=root)[0]
        else:
            fused = aten._scaled_dot_product_efficient_attention
            out = fused(q, k, v, bias, learns, dropout_p, is_causal, scale=scale)[0]
        return out


def _bias(mask: Tensor | None, q: Tensor, k: Tensor) -> Tensor | None:
    """(…, T, S) as it is added to the scores: −∞ for false, and rows that begin at multiples of 16."""
    if mask is None:
        return None
    if mask.dtype == torch.bool:
        zeros = torch.zeros_like(mask, dtype=q.dtype)
        mask = zeros.masked_fill_(mask.logical_not(), -torch.inf)
    length = mask.size(-1)
    if padding := -length % 16:
        mask = torch.nn.functional.pad(mask, (0, padding))[..., :length]
    return mask.expand(q.size(0), q.size(1), q.size(2), k.size(2))


@contextmanager
def attention_of(card: Card) -> Iterator[Attention]:
    """Inside, fake CUDA tensors attend as they would on ``card``, in forward passes and in what is recomputed."""
    attention = Attention(card)
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    library.impl("scaled_dot_product_attention", _plainly(attention), "AutogradCUDA")
    try:
        yield attention
    finally:
        library._destroy()


def _plainly(attention: Attention) -> Callable[..., Tensor]:
    def implementation(*arguments: Any, **options: Any) -> Tensor:
        return attention(*arguments, **options)

    return implementation
