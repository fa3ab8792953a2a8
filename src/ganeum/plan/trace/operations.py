"""What a step's operations do, each with its arithmetic and its traffic: the material of a roofline.

A mode that sees every operation of torch, real ones or those of fake tensors, and counts equal ones together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from ganeum.plan.trace.roofline import FUSED, VIEW, Operation

aten = torch.ops.aten
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
# What no kernel runs for: memory without contents.
EMPTY = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that run within it.

    Attributes:
        phase: the part of a step that is running now, ``forward``, ``backward``, ``update``; whoever takes the step
            says so.
        counts: how often each ran.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.phase: Callable[[], str] = lambda: "forward"
        self.counts: Counter[Operation] = Counter()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.namespace != "prim":  # fake tensors ask for their device so
            self.counts[operation(func, args, kwargs or {}, out, self.phase())] += 1
        return out

    def kernel(self, *arguments: Any) -> None:
        """One of compiled code's own kernels, with what it reads and writes."""
        tensors = list(_tensors(arguments))
        widest = max(tensors, key=lambda t: t.numel())
        moved = float(sum(map(_bytes, tensors)))
        self.counts[Operation(FUSED, self.phase(), NAMES.get(widest.dtype, "other"), 0.0, moved, "cuda")] += 1


def operation(func: Any, args: Any, kwargs: dict[str, Any], out: Any, phase: str) -> Operation:
    """One call of ``func``: its FLOPs as torch's own flop counter has them, and the bytes that it reads and writes."""
    packet = func._overloadpacket
    name = packet._qualified_op_name
    read = list(_tensors((args, kwargs)))
    written = list(_tensors(out))
    widest = max((*read, *written), key=lambda t: t.numel(), default=None)
    if widest is None:
        return Operation(name, phase)
    if _is_view(func) or packet in EMPTY:
        return Operation(VIEW, phase)
    count = flop_registry.get(packet)
    if count is None:
        flops, name = 0.0, name + _strided((*read, *written))
    else:
        flops, name = float(count(*args, **kwargs, out_val=out)), name + _layout(args)
    moved = sum(_bytes(tensor) for tensor in (*read, *written))
    return Operation(name, phase, NAMES.get(widest.dtype, "other"), flops, float(moved), str(widest.device.type))


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in tree_iter(values):
        if isinstance(value, Tensor):
            yield value


def _bytes(tensor: Tensor) -> int:
    """Of what it shows: an expanded dimension is read once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(
        returned.alias_info is not None and not returned.alias_info.is_write for returned in returns
    )


def _strided(tensors: tuple[Tensor, ...]) -> str:
    """Whether they lie in memory in different orders, or with gaps between numbers: passes over them are slower."""
    orders = {_order(tensor) for tensor in tensors}
    return "" if len({order for order, _ in orders if order}) <= 1 and all(near for _, near in orders) else " strided"


def _order(tensor: Tensor) -> tuple[tuple[int, ...], bool]:
    """Its dimensions from the widest step to the narrowest, and whether that is from one number to the next."""
    steps = [(-step, i) for i, (size, step) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)) if size > 1]
    steps = [(step, i) for step, i in steps if step]
    return tuple(i for _, i in sorted(steps)), not steps or max(steps)[0] == -1


def _layout(args: Any) -> str:
    """Which of a product's matrices lie transposed."""
    matrices = [t for t in args if isinstance(t, Tensor) and t.dim() >= 2][-2:]
    return " " + "".join("t" if t.stride(-1) != 1 else "n" for t in matrices) if len(matrices) == 2 else ""
