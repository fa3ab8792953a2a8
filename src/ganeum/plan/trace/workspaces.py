"""Memory that CUDA's kernels take for themselves while they run: no operation returns it, so none shows it.

Sizes are those of torch's sources under aten/src/ATen, read November 2026; each function names its file.
"""

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
ROWS_A_SUM = 10  # of an embedding's gradient, before the sums are summed
LOOKED_UP = 3_072  # indices up to which an embedding's gradient is not sorted
SMALL_SHARED = ((8, 6), (8, 9))  # cards whose multiprocessors have less shared memory: smaller blocks


class Workspaces:
    """Of one card, under the settings of this process."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self._inside: dict[Any, Callable[..., list[int]]] = {
            aten._scaled_dot_product_flash_attention: self._flash,
            aten._scaled_dot_product_flash_attention_backward: self._flash_backward,
            aten._scaled_dot_product_efficient_attention_backward: self._efficient_backward,
            aten.embedding_dense_backward: _embedding_backward,
        }

    def matrix_products(self) -> int:
        """cuBLAS's, which each thread's handle keeps: of the forward pass, and of the backward pass
        (cuda/CublasHandlePool.cpp)."""
        given = re.findall(r":(\d+):(\d+)", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
        if given:
            return sum(int(size) * int(count) for size, count in given) * KIB
        if self.card.capability[0] >= 9:
            return 8 * 4096 * KIB
        return (2 * 4096 + 8 * 16) * KIB

    def inside(self, packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[int]:
        """Bytes of each tensor that the kernel of an operation makes and lets go of, all there at once."""
        find = self._inside.get(packet)
        return [] if find is None else find(*args, **kwargs)

    def _flash(self, q: Tensor, k: Tensor, v: Tensor, dropout: float = 0.0, *_: Any, **__: Any) -> list[int]:
        """Where there are few queries, keys are shared out among multiprocessors, each with a sum of its own
        (native/transformers/cuda/flash_attn/flash_api.cpp, set_params_splitkv)."""
        B, H, T, D = q.shape
        columns = -(-k.size(2) // (256 if D <= 64 else 128 if D <= 128 else 64))
        splits = 1 if dropout else _splits(B * H * -(-T // 64), 2 * self.card.multiprocessors, columns)
        return [] if splits == 1 else [4 * splits * B * H * T, 4 * splits * B * H * T * _width(D)]

    def _flash_backward(self, grad: Tensor, q: Tensor, k: Tensor, *_: Any, **__: Any) -> list[int]:
        """Sums per query and the queries' gradient in fp32; where sums have a fixed order, one for each group of
        multiprocessors; and each query head's part of shared keys and values (the same file, mha_bwd)."""
        B, H, T, D = q.shape
        rows, splits = _up(T, 128), 1
        if _strict():
            splits = math.ceil(self.card.multiprocessors / (B * H))
        found = [4 * B * H * rows, 4 * splits * B * H * rows * _width(D)]
        if k.size(1) != H:
            found += [B * H * k.size(2) * D * q.element_size()] * 2
        if not grad.transpose(1, 2).is_contiguous():
            found.append(grad.numel() * grad.element_size())
        return found

    def _efficient_backward(self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> list[int]:
        """The queries' gradient in fp32 tiles of 64 columns, and that of keys and values where a block's does not stay
        in registers (native/transformers/cuda/mem_eff_attention/kernel_backward.h, workspace_size;
        attention_backward.cu for what is computed before, Σ output · gradient)."""
        B, H, T, D = q.shape
        half, widest = q.element_size() == 2, max(D, v.size(-1))
        rows, columns, room = self._block(widest, half)
        in_registers = half and room <= rows
        floats = -(-T // rows) * -(-D // 64) * (rows * 64 + 4)
        if half and not in_registers:
            splits = 1 if _strict() else max(1, min(-(-k.size(2) // columns), 200 // (B * H)))
            floats += splits * _up(k.size(2), columns) * (_up(D, rows) + _up(v.size(-1), rows))
        sums, products = 4 * B * H * T, 4 * B * H * T * v.size(-1)
        workspace = [sums, 4 * B * H * _up(floats, 4)]
        if half and (in_registers or self.card.capability[0] != 7):
            return workspace
        before = [products] * (3 if half else 1)  # both in fp32, and their product
        return max(workspace, before, key=sum)

    def _block(self, widest: int, half: bool) -> tuple[int, int, int]:
        """Queries and keys of a block, and the widest head that its kernel takes (kernels/cutlassB.h)."""
        if widest <= 64:
            return 64, 64, 32 if widest <= 32 else 64
        if not half:
            return 64, 64, 128 if widest <= 128 else 1 << 16
        if widest > 128:
            return 128, 64, 1 << 16
        if self.card.capability[0] < 8:
            return 128, 64, 128
        if self.card.capability in SMALL_SHARED:
            return 64, 64, 96 if widest <= 96 else 128
        return (128, 64, 96) if widest <= 96 else (128, 128, 128)


def _embedding_backward(grad: Tensor, indices: Tensor, rows: int, *_: Any, **__: Any) -> list[int]:
    """Indices are sorted, and of the rows that belong to each, ten at a time are summed in fp32, and then the sums
    (native/cuda/EmbeddingBackwardKernel.cu)."""
    count, width = indices.numel(), grad.size(-1)
    if count <= LOOKED_UP:
        return []
    segments = min(count, rows)
    partial = count // ROWS_A_SUM + segments
    return [8 * count, 8 * count, 8 * segments, 8 * segments, 8 * segments, 8 * partial, 4 * partial * width]


def _splits(blocks: int, places: int, columns: int) -> int:
    """Into how many parts flash attention cuts the keys: the fewest that keep the card 85 % as busy as the best
    number would (num_splits_heuristic)."""
    if blocks >= 0.8 * places:
        return 1
    busy = {}
    for parts in range(1, min(128, places, columns) + 1):
        if parts == 1 or -(-columns // parts) != -(-columns // (parts - 1)):
            waves = blocks * parts / places
            busy[parts] = waves / math.ceil(waves)
    best = max(busy.values())
    return next(parts for parts, share in busy.items() if share >= 0.85 * best)


def _strict() -> bool:
    return torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()


def _width(head: int) -> int:
    """A head's size as flash attention computes with it."""
    return _up(head, 32 if head <= 128 else 64)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
