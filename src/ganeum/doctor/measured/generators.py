"""Random generators, those that somebody's batches have of their own among them, set back so that batches come in the
same order again."""

from __future__ import annotations

import gc
import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any

import torch

SEED = 20_261
MOST_LOOKED_AT = 20_000  # objects, the nearest first
MOST_OF_ONE = 200  # that one of them holds: a list of all rows may lie beside the generator


def seed() -> None:
    """Python's, torch's and numpy's own."""
    random.seed(SEED)
    torch.manual_seed(SEED)
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed(SEED)


def kept(batches: Any) -> list[Callable[[], None]]:
    """Of each generator that can be reached from ``batches``: a function that gives it back its present state."""
    numpy = sys.modules.get("numpy")
    undone: list[Callable[[], None]] = []
    for one in _reached(batches):
        if isinstance(one, random.Random):
            undone.append(partial(one.setstate, one.getstate()))
        elif isinstance(one, torch.Generator) or (numpy is not None and isinstance(one, numpy.random.RandomState)):
            undone.append(partial(one.set_state, one.get_state()))  # type: ignore[arg-type]
        elif numpy is not None and isinstance(one, numpy.random.BitGenerator):
            undone.append(partial(setattr, one, "state", one.state))
    return undone


def _reached(start: Any) -> Iterator[Any]:
    seen, waiting, held = {id(start)}, deque([start]), [start]
    while waiting and len(seen) < MOST_LOOKED_AT:
        one = waiting.popleft()
        yield one
        for other in islice(_near(one), MOST_OF_ONE):
            if id(other) not in seen and not isinstance(other, (type, ModuleType, torch.Tensor, torch.nn.Module)):
                seen.add(id(other))
                held.append(other)  # its identity is another's as soon as it is gone
                waiting.append(other)


def _near(one: Any) -> list[Any]:
    if isinstance(one, FunctionType):  # not what its whole module knows
        return [*(one.__closure__ or ()), *(one.__defaults__ or ()), *(one.__kwdefaults__ or {}).values()]
    if isinstance(one, (str, bytes, int, float, random.Random)):
        return []
    found = gc.get_referents(one)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(one, numpy.random.Generator):
        found = [*found, one.bit_generator]
    return found
