"""Causal attention by whichever kernel does it best on the device at hand.

Shapes: B = sequences, T = new tokens, S = all tokens that they see (S = T without a cache), H = heads of queries,
K = heads of keys and values (a divisor of H: each serves H / K heads of queries, one after the other), D = head_dim.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FLASH_MAJOR = 8  # compute capability from which NVIDIA's GPUs run torch's flash kernel (Ampere; not V100, T4)
FLASH_DTYPES = (torch.float16, torch.bfloat16)


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
    if grouped and not _reads_in_place(q):
        share = q.size(1) // k.size(1)
        k, v, grouped = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1), False
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=T > 1, enable_gqa=grouped)


def _reads_in_place(q: Tensor) -> bool:
    """Whether a kernel that keeps no T × S weights lets heads of queries share one of keys.

    On NVIDIA's GPUs that is flash alone. Without it torch would pass over its memory-efficient kernel, which takes only
    as many heads of keys as of queries, for the plain one. (The card's properties are a constant to torch.compile.)
    """
    if not q.is_cuda:
        return True
    return q.dtype in FLASH_DTYPES and torch.cuda.get_device_properties(q.device).major >= FLASH_MAJOR
