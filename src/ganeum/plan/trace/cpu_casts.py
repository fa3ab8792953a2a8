"""What kernels of a CPU take besides their results: an operand in another format is copied into the common one first.

On a GPU the kernel itself casts, number by number (aten/src/ATen/TensorIterator.cpp, ``compute_types``: operands are
converted beforehand only on a CPU).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
ARITHMETIC = frozenset(
    getattr(aten, name + ending)
    for name in ("add", "sub", "mul", "div", "addcmul", "addcdiv", "lerp")
    for ending in ("", "_")
)


def inside(packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[int]:
    """Bytes of the copies that one call makes and gives back at its end."""
    if packet not in ARITHMETIC:
        return []
    operands = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor) and tensor.dim()]
    if len({tensor.dtype for tensor in operands}) < 2:
        return []
    common = operands[0].dtype
    for tensor in operands[1:]:
        common = torch.promote_types(common, tensor.dtype)
    return [tensor.numel() * common.itemsize for tensor in operands if tensor.dtype != common]
