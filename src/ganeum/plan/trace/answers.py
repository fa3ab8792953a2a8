"""What fake tensors answer when their numbers are asked for.

Code asks little: is this mask full, was there an overflow, which update is this. A tensor that was made of one number
(ones, zeros) is followed through comparisons and sums, and counted up as optimizers count their updates; of the others,
what a run that goes well would say.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten

Number = bool | int | float
MADE: Mapping[Any, Number] = {
    aten.ones: 1,
    aten.ones_like: 1,
    aten.new_ones: 1,
    aten.zeros: 0,
    aten.zeros_like: 0,
    aten.new_zeros: 0,
}
FILLED: Mapping[Any, int] = {aten.full: 1, aten.full_like: 1, aten.new_full: 2, aten.fill_: 1}  # which argument by what
KEPT = frozenset((aten._to_copy, aten.clone, aten.repeat, aten.index_select, aten.all, aten.any, aten.amin, aten.amax))
COMPARED: Mapping[Any, Callable[[Any, Any], bool]] = {
    aten.eq: operator.eq,
    aten.ne: operator.ne,
    aten.gt: operator.gt,
    aten.ge: operator.ge,
    aten.lt: operator.lt,
    aten.le: operator.le,
}
NEGATED = frozenset((aten.bitwise_not, aten.logical_not))
WELL: Mapping[Any, bool] = {
    aten.isfinite: True,
    aten.isnan: False,
    aten.isinf: False,
    aten.all: True,
    aten.any: False,
    aten._is_all_true: True,  # torch.distributions looks whether its arguments are numbers
    aten._is_any_true: False,
}
ADDED = frozenset((aten.add_, aten._foreach_add_))  # to a tensor, or to each of a list: one number
ALIKE = frozenset((aten.allclose, aten.equal))  # asked in assertions; these answer with a bool at once
WATCHED = frozenset((*MADE, *FILLED, *KEPT, *COMPARED, *NEGATED, *WELL, aten.sum))


class Answers:
    """The number that all elements of a storage are, where that is known."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Any, Number] = WeakKeyDictionary()

    def learn(self, func: Any, packet: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        """Looks at an operation and its result."""
        if func._schema.is_mutable:
            more = self._of(args[1]) if packet in ADDED and kwargs.get("alpha", 1) == 1 else None
            changed = {tensor.untyped_storage() for tensor in tree_leaves((*args[:1], out)) if _strided(tensor)}
            for storage in changed:  # of foreach forms several
                before = self._known.pop(storage, None)
                if before is not None and more is not None:
                    self._known[storage] = before + more
        if packet in WATCHED and _strided(out):
            found = self._found(packet, args, out)
            if found is not None:
                self._known[out.untyped_storage()] = found

    def number(self, tensor: Tensor) -> tuple[Number, bool]:
        """What stands for the one number of ``tensor``, and whether it is known rather than assumed.

        Assumed is 0 on a GPU (a gradient scaler asks whether infinities were found) and 1 on a CPU (an optimizer asks
        which update this is).
        """
        found = self._known.get(tensor.untyped_storage())
        value = found if found is not None else int(tensor.device.type == "cpu" and tensor.dtype != torch.bool)
        if tensor.dtype == torch.bool:
            return bool(value), found is not None
        return (float if tensor.dtype.is_floating_point else int)(value), found is not None

    def _found(self, packet: Any, args: tuple[Any, ...], out: Tensor) -> Number | None:
        if packet in MADE:
            return MADE[packet]
        if packet in FILLED:
            given = args[FILLED[packet]] if len(args) > FILLED[packet] else None
            return self._of(given)
        known = self._of(args[0]) if args else None
        if known is None:
            return WELL.get(packet)
        if packet is aten.sum:
            return known * (int(args[0].numel()) // max(1, out.numel()))
        if packet in COMPARED:
            other = self._of(args[1])
            return None if other is None else COMPARED[packet](known, other)
        if packet in NEGATED:
            return not known if out.dtype == torch.bool else None
        return known if packet in KEPT else WELL.get(packet)

    def _of(self, given: Any) -> Number | None:
        if isinstance(given, Tensor):
            if (constant := getattr(given, "constant", None)) is not None and constant.numel() == 1:
                number: Number = aten._local_scalar_dense(given)
                return number
            return self._known.get(given.untyped_storage()) if _strided(given) else None
        return given if isinstance(given, Number) else None


def _strided(given: Any) -> bool:
    return isinstance(given, Tensor) and given.layout == torch.strided
