"""Operations that torch takes apart otherwise when somebody looks on, or where a kernel of CUDA's is missing.

RMSNorm is one operation on a GPU that keeps its input and one number a row; a build of torch without that kernel takes
it apart into five, which keep four tensors of the input's size. (Of the operations with a ``CompositeImplicitAutograd``
kernel three have one of CUDA's besides, in torch 2.11.0+cu130: those that are here.) And where a tensor is fake, C++
code that would write into its own result makes a new one instead (``isTensorSubclassLike`` in aten/src/ATen/native and
torch/csrc/autograd/FunctionsManual.cpp). Recorded must be what a run does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


# Sums into a tensor of zeros that a backward pass has just made for itself.
INTO_ZEROS = {
    aten.index_add.default: aten.index_add_.default,
    aten.index_put.default: aten.index_put_.default,
    aten._unsafe_index_put.default: aten.index_put_.default,
    aten.scatter_add.default: aten.scatter_add_.default,
    aten.scatter.src: aten.scatter_.src,
    aten.scatter.value: aten.scatter_.value,
    aten.masked_scatter.default: aten.masked_scatter_.default,
}
ZEROS = frozenset(("aten::zeros", "aten::zeros_like", "aten::new_zeros"))


@contextmanager
def as_in_a_run(device: str) -> Iterator[None]:
    """Inside, fake tensors on ``device`` are computed with as real ones would be."""
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    library.impl("linear", _linear, f"Autograd{device.upper()}")
    if device == "cuda" and torch.version.cuda is None:
        library.impl("_fused_rms_norm", _rms_norm, "AutogradCUDA")
        for name in ("silu_backward", "mish_backward"):
            library.impl(name, partial(_elementwise, getattr(aten, name).default), "AutogradCUDA")
    try:
        yield
    finally:
        library._destroy()


def results(packet: Any, args: tuple[Any, ...]) -> Tensor | tuple[Tensor | None, ...] | None:
    """What these kernels give, with their shapes and types; None for any other operation."""
    if packet is aten._fused_rms_norm:
        x, shape = args[0], args[1]
        rows = [*x.shape[: x.dim() - len(shape)], *[1] * len(shape)]
        return torch.empty_like(x), x.new_empty(rows, dtype=_sums(x))
    if packet is aten._fused_rms_norm_backward:
        x, weight, wanted = args[1], args[4], args[5]
        return tuple(torch.empty_like(t) for t, want in zip((x, weight), wanted, strict=True) if want)
    if packet in (aten.silu_backward, aten.mish_backward):
        return torch.empty_like(args[1])
    if packet is aten._thnn_fused_gru_cell:  # of a GRU, which has no fake form; native/cuda/RNN.cu
        state = args[2]
        return torch.empty_like(state), state.new_empty(len(state), 5 * state.size(1))
    if packet is aten._thnn_fused_gru_cell_backward:
        rows, width = args[0].shape
        gates = [args[1].new_empty(rows, 3 * width) for _ in range(2)]
        biases = [gate.new_empty(3 * width) for gate in gates] if args[2] else [None, None]
        return (*gates, torch.empty_like(args[0]), *biases)
    return None


def _elementwise(operation: Any, grad: Tensor, x: Tensor) -> Tensor:
    """One pass over memory on a GPU."""
    out: Tensor
    if torch.is_grad_enabled():  # to be differentiated once more
        out = operation.decompose(grad, x)
        return out
    with torch._C._AutoDispatchBelowAutograd():
        out = operation(grad, x)
    return out


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As aten/src/ATen/native/Linear.cpp: what is not one product with its bias is a product, and the bias is added in
    place."""
    out: Tensor
    if bias is None or x.dim() < 3 or (x.dim() == 3 and x.is_contiguous()):
        out = aten.linear.default.decompose(x, weight, bias)
        return out
    return torch.matmul(x, weight.t()).add_(bias)


def _sums(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _rms_norm(x: Tensor, shape: list[int], weight: Tensor | None, eps: float | None) -> tuple[Tensor, Tensor]:
    out: tuple[Tensor, Tensor] = _RMSNorm.apply(x, shape, weight, eps)  # type: ignore[no-untyped-call]
    return out


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: list[int], weight: Tensor | None, eps: float | None
    ) -> tuple[Tensor, Tensor]:
        with torch._C._AutoDispatchBelowAutograd():
            out, root = aten._fused_rms_norm(x, shape, weight, eps)
        ctx.save_for_backward(x, root, weight)
        ctx.set_materialize_grads(False)
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
