"""What becomes larger with each step and is no further tensor of the same kind: one that others are joined to, outputs
of other lengths in each step, a graph that each step adds to, a list of things that are no tensors."""

from __future__ import annotations

import gc
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from statistics import median
from typing import Any

from torch import Tensor

from ganeum.doctor.memory.holder import called, holder, told

MOST_NODES = 100_000  # of a graph that are counted
EVEN = 0.25  # of the usual step that each must add
LEAST = 1024  # bytes a step of things that are no tensors
DEEPEST, MOST_IN_ONE = 4, 256  # where such things are weighed
CONTAINERS = (list, dict, set, deque)


class Grown:
    """Looks at all that is new (``gc.freeze``) after each of some steps.

    Made before what is there already is frozen, since a list that grows may be older.
    """

    def __init__(self) -> None:
        self._containers: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), CONTAINERS)]
        self._long: list[int] = []
        self._bytes: list[int] = []
        self._nodes: list[int] = []
        self._batches: list[int] = []
        self._shapes: set[tuple[int, ...]] = set()

    def look(self, live: Mapping[int, Tensor], batch_bytes: int) -> None:
        """After a step: the tensors there are, and how large its batch was."""
        if not self._batches:
            known = {*map(id, self._containers), id(self._containers)}
            self._containers += [
                one for one in gc.get_objects() if issubclass(type(one), CONTAINERS) and id(one) not in known
            ]
            self._long = [len(one) for one in self._containers]
            self._shapes = {tuple(one.shape) for one in live.values()}
        self._bytes.append(held_bytes(live))
        self._nodes.append(nodes(*live.values()))
        self._batches.append(batch_bytes)

    def found(self, live: Mapping[int, Tensor], ours: Sequence[Any]) -> dict[str, Any]:
        """Of the steps that were looked at.

        Args:
            live: the tensors there are now.
            ours: containers that hold something only to look at it.

        Returns:
            tensors: {bytes: a step, shape and dtype of the largest new one, held_by}; graph: {nodes: a step, held_by};
            containers: those that each step adds at least a KiB of other things to, {bytes: a step, held_by}. None, or
            none of them, where that is not so; of tensors and graphs, too, where batches became longer with each step.
        """
        longer_batches = _rises(self._batches)
        apart = (*ours, live, self._containers, self._long, self._shapes)
        found: dict[str, Any] = {"tensors": None, "graph": None, "containers": []}
        if not longer_batches and (by := _rises(self._bytes)):
            found["tensors"] = self._tensors(by, live, apart)
        if not longer_batches and (by := _rises(self._nodes)):
            longest = max(live.values(), key=nodes)
            found["graph"] = {"nodes": by, "held_by": called(longest, apart)}
        found["containers"] = self._others(len(self._batches) - 1, apart)
        return found

    def _tensors(self, by: float, live: Mapping[int, Tensor], ours: Sequence[Any]) -> dict[str, Any] | None:
        new = [one for one in live.values() if tuple(one.shape) not in self._shapes and one.numel() > 0]
        if not new:
            return None
        largest = max(new, key=lambda one: one.numel() * one.element_size())
        held = holder(largest, least=len(self._batches) - 1, ours=(*ours, new))
        return {
            "bytes": by,
            "shape": list(largest.shape),
            "dtype": str(largest.dtype).removeprefix("torch."),
            "held_by": held.told or called(largest, (*ours, new)),
        }

    def _others(self, steps: int, ours: Sequence[Any]) -> list[dict[str, Any]]:
        apart = set(map(id, ours))
        found = []
        for one, before in zip(self._containers, self._long, strict=True):
            more = len(one) - before
            if more < steps or id(one) in apart:
                continue
            size = sum(map(_weight, _last(one, more))) / steps
            if size >= LEAST:
                found.append({"bytes": size, "held_by": told(one, ours)})
        return sorted(found, key=lambda one: -one["bytes"])


def held_bytes(live: Mapping[int, Tensor]) -> int:
    """Of the storages of these tensors, each once."""
    sizes: dict[int, int] = {}
    for one in live.values():
        with suppress(RuntimeError, NotImplementedError):  # sparse ones have none
            storage = one.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())


def nodes(*tensors: Tensor) -> int:
    """Nodes of the graphs behind these, each once; after a backward pass they are there still, without what they
    kept."""
    seen: set[Any] = set()
    waiting = [tensor.grad_fn for tensor in tensors]
    while waiting and len(seen) < MOST_NODES:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [before for before, _ in node.next_functions]
    return len(seen)


def _rises(values: Sequence[int]) -> float:
    """By how much a step; 0: not with each."""
    steps = [after - before for before, after in pairwise(values)]
    usual = median(steps) if steps else 0
    return usual if usual > 0 and min(steps) >= EVEN * usual else 0.0


def _last(one: Any, count: int) -> list[Any]:
    """The newest of what lies in it."""
    if isinstance(one, dict):
        return list(islice(reversed(one.values()), count))
    return list(islice(reversed(one), count)) if isinstance(one, (list, deque)) else list(islice(one, count))


def _weight(one: Any, depth: int = DEEPEST) -> float:
    """Bytes of a thing and of what lies in it, but for tensors, which are counted elsewhere."""
    if isinstance(one, Tensor):
        return 0.0
    said = getattr(one, "nbytes", 0)  # of numpy; a storage's is a method
    size = float(said if isinstance(said, (int, float)) and said else sys.getsizeof(one, 0))
    if depth == 0 or not isinstance(one, (*CONTAINERS, tuple, OrderedDict)) or not one:
        return size
    inside = list(islice(one.values() if isinstance(one, dict) else one, MOST_IN_ONE))
    return size + len(one) / len(inside) * sum(_weight(each, depth - 1) for each in inside)
