"""CUDA's own kernels for what a build of torch without CUDA would compute in parts.

RMSNorm is one operation on a GPU that keeps its input and one number a row; without its kernel torch takes it apart
into five, which keep four tensors of the input's size. Recorded must be what the GPU would do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


@contextmanager
def cuda_kernels() -> Iterator[None]:
    """Inside, fake CUDA tensors are normed as on a GPU; nothing changes on a build with CUDA."""
    if torch.version.cuda is not None:
        yield
        return
    library = torch.library.Library("aten", "IMPL")
    library.impl("_fused_rms_norm", _rms_norm, "AutogradCUDA")
    try:
        yield
    finally:
        library._destroy()


def results(packet: Any, args: tuple[Any, ...]) -> tuple[Tensor, ...] | None:
    """What these kernels give, with their shapes and types; None for any other operation."""
    if packet is aten._fused_rms_norm:
        x, shape = args[0], args[1]
        rows = [*x.shape[: x.dim() - len(shape)], *[1] * len(shape)]
        return torch.empty_like(x), x.new_empty(rows, dtype=_sums(x))
    if packet is aten._fused_rms_norm_backward:
        x, weight, wanted = args[1], args[4], args[5]
        return tuple(torch.empty_like(t) for t, want in zip((x, weight), wanted, strict=True) if want)
    return None


def _sums(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _rms_norm(x: Tensor, shape: list[int], weight: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor]:
    out: tuple[Tensor, Tensor] = _RMSNorm.apply(x, shape, weight, eps)
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: list[int], weight: Tensor | None, eps: float | None
    ) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            out, root = aten._fused_rms_norm(x, shape, weight, eps)
        ctx.save_for_backward(x, root, weight)
        ctx.shape = shape
        ctx.mark_non_differentiable(root)
        return out, root

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, root, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[2]]
        with torch._C._AutoDispatchBelowAutograd():
            found = iter(aten._fused_rms_norm_backward(grads[0], x, ctx.shape, root, weight, wanted))
        return next(found) if wanted[0] else None, None, next(found) if wanted[1] else None, None
