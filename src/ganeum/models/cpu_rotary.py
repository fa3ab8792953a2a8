"""RMSNorm and rotation of queries and keys on a CPU, written out: one sequence at a time, which stays in the cache.

With autograd's own operators these are some thirty passes over memory, forward and backward, which together cost more
than the attention itself. For a head x of D numbers, with c and s the cosine and sine of its place:

    m = w · x / √(mean x² + eps)        y = (m₁ c − m₂ s, m₂ c + m₁ s)        m₁, m₂: the halves of m

Shapes: B = sequences, T = tokens in each, H = heads of queries and keys, D = head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ganeum.models.cpu_norm import gradients, root_of


def forward(x: Tensor, weight: Tensor, eps: float, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T, H, D) → the same normed and turned, in its dtype, and 1 / √(mean x² + eps): (B, T, H, 1).

    Args:
        weight: (H, D), each head's own.
        cos, sin: (T, D / 2).
    """
    y, roots = x.new_empty(x.shape), weight.new_empty(*x.shape[:-1], 1)
    for one, root, turned in zip(_pieces(x), _pieces(roots), _pieces(y), strict=True):
        n = one.to(weight.dtype)  # (T, H, D)
        root.copy_(root_of(n, eps))
        turned.copy_(_turned(n * root * weight, cos, sin))
    return y, roots


def backward(d: Tensor, x: Tensor, weight: Tensor, roots: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns ``d`` in place from the gradient of the result into that of ``x``, and returns that of ``weight``."""
    d_weight = torch.zeros_like(weight)
    for one, root, d_one in zip(_pieces(x), _pieces(roots), _pieces(d), strict=True):
        n = one * root  # (T, H, D)
        d_m = _turned(d_one.to(weight.dtype), cos, -sin)  # backwards
        d_x, of_places = gradients(d_m, n, weight, root)
        d_one.copy_(d_x)
        d_weight += of_places.flatten(end_dim=-3).sum(dim=0)
    return d_weight


def _pieces(x: Tensor) -> tuple[Tensor, ...]:
    """One sequence at a time; all at once where a compiler fuses the passes, which would write out every turn."""
    return (x,) if torch.compiler.is_compiling() else x.unbind()


def _turned(m: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    (a, b), c, s = m.chunk(2, dim=-1), cos[:, None, :], sin[:, None, :]
    y = torch.empty_like(m)
    ya, yb = y.chunk(2, dim=-1)
    torch.mul(a, c, out=ya).addcmul_(b, s, value=-1.0)
    torch.mul(b, c, out=yb).addcmul_(a, s)
    return y
