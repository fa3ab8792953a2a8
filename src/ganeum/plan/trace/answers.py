"""What fake tensors answer when their numbers are asked for: there are none, so what a good run would say."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

aten = torch.ops.aten
# A run that goes well: every number is finite, nothing is wrong, and what is asked of all of a mask holds.
TRUE = frozenset((aten.all, aten.isfinite, aten.equal))
FALSE = frozenset((aten.any, aten.isnan, aten.isinf))
NEGATIONS = frozenset((aten.bitwise_not, aten.logical_not))
KEPT = frozenset((aten.all, aten.any, aten._to_copy, aten.view, aten.detach, aten.clone, aten.select, aten.reshape))


class Truths:
    """What is true of boolean tensors, as far as the operations say that made them."""

    def __init__(self) -> None:
        self.known: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()

    def learn(self, packet: Any, args: tuple[Any, ...], out: Any) -> None:
        """Looks at an operation's result."""
        if not isinstance(out, Tensor) or out.dtype != torch.bool:
            return
        before = self.known.get(args[0].untyped_storage()) if args and isinstance(args[0], Tensor) else None
        if packet in NEGATIONS and before is not None:
            self.known[out.untyped_storage()] = not before
        elif packet in KEPT and before is not None:
            self.known[out.untyped_storage()] = before
        elif packet in TRUE or packet in FALSE:
            self.known[out.untyped_storage()] = packet in TRUE

    def number(self, tensor: Tensor) -> tuple[bool | int | float, bool]:
        """What stands for the one number of ``tensor``, and whether it is known rather than assumed.

        Of a GPU 0 (a gradient scaler asks whether infinities were found), of a CPU 1 (an optimizer asks which update
        this is).
        """
        if tensor.dtype == torch.bool:
            found = self.known.get(tensor.untyped_storage())
            return bool(found), found is not None
        value = 0 if tensor.device.type != "cpu" else 1
        if tensor.dtype.is_floating_point:
            return float(value), False
        return value, False
