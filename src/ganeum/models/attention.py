"""Causal attention by whichever kernel does it best on the device at hand.

Shapes: B = sequences, T = new tokens, S = all tokens that they see (S = T without a cache), H = heads of queries,
K = heads of keys and values (a divisor of H: each serves H / K heads of queries, one after the other), D = head_dim.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def causal(q: Tensor, k: Tensor, v: Tensor, *, dropout: float) -> Tensor:
    """softmax(q kᵀ / √D) v: (B, H, T, D), (B, K, S, D) twice → (B, H, T, D).

    Each token sees itself and all before it. With a cache, one new token may see everything, and several new tokens
    are only ever the first ones.

    Args:
        dropout: share of the attention weights dropped.
    """
    T, S = q.size(2), k.size(2)
    assert T in (1, S), "several new tokens are the first ones"
    grouped = k.size(1) < q.size(1)
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=T > 1, enable_gqa=grouped)
