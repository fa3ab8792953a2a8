"""Memory that CUDA's kernels take for themselves while they run: no operation returns it, so none shows it."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ganeum.plan.trace.fake_cuda import Card

aten = torch.ops.aten
MATRIX_PRODUCTS = frozenset((aten.mm, aten.addmm, aten.bmm, aten.baddbmm))
KIB = 1024


class Workspaces:
    """Of one card, under the settings of this process."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self._inside: dict[Any, Callable[..., list[int]]] = {
            aten._scaled_dot_product_flash_attention_backward: self._flash_backward,
            aten._scaled_dot_product_efficient_attention_backward: self._efficient_backward,
            aten.embedding_dense_backward: self._embedding_backward,
        }

    def matrix_products(self) -> int:
        """cuBLAS's, which each thread's handle keeps: of the forward pass, and of the backward pass
        (aten/src/ATen/cuda/CublasHandlePool.cpp)."""
        given = re.findall(r":(\d+):(\d+)", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
        if given:
            return sum(int(size) * int(count) for size, count in given) * KIB
        if self.card.capability[0] >= 9:
            return 8 * 4096 * KIB
        return (2 * 4096 + 8 * 16) * KIB

    def inside(self, packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> list[int]:
        """Bytes of each tensor that the kernel of an operation makes and lets go of, all there at once."""
        find = self._inside.get(packet)
        return [] if find is None else find(*args, **kwargs)

    def _flash_backward(self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> list[int]:
        """Sums per query and the queries' gradient in fp32; where sums have a fixed order, one for each group of
        multiprocessors; and each query head's part of shared keys and values (flash_attn/flash_api.cpp, mha_bwd)."""
        B, H, T, D = q.shape
        rows, width = _up(T, 128), _up(D, 32 if D <= 128 else 64)
        splits = 1
        if torch.are_deterministic_algorithms_enabled():
            splits = math.ceil(self.card.multiprocessors / (B * H))
        found = [4 * B * H * rows, 4 * splits * B * H * rows * width]
        if k.size(1) != H:
            found += [B * H * k.size(2) * D * q.element_size()] * 2
        return found

    def _efficient_backward(
        self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any
    ) -> list[int]:
        B, H, T, D = q.shape
        found = [4 * B * H * _up(T, 32)]
        if q.element_size() == 2:
            found.append(4 * B * H * _up(T, 64) * _up(D, 64))
        return found

    def _embedding_backward(self, grad: Tensor, indices: Tensor, rows: int, *_: Any, **__: Any) -> list[int]:
        """Indices are sorted, and each run of ten equal ones is summed by itself
        (aten/src/ATen/native/cuda/EmbeddingBackwardKernel.cu)."""
        count, width = indices.numel(), grad.size(-1)
        if count <= 3072:
            return []
        segments = min(count, rows)
        partial = count // 10 + segments
        return [8 * count, 8 * count, 8 * segments, 8 * segments, 8 * segments, 8 * partial, 4 * partial * width]


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
