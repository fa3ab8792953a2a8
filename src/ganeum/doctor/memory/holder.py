"""What holds an object that stays, by Python's own references, and how much memory a process holds. Loads no torch."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any

import psutil

DEEPEST = 4  # steps up: a closure in a list is cell, closure, function, list
LOOK = 8  # looks after which other processes are looked for again, which reads those of the whole machine
MOST = 64  # objects that are followed at a time


def holder(one: Any, *, least: int, ours: Sequence[Any] = ()) -> str:
    """The nearest container that has grown, ``a list of 12 called losses``; empty where none is seen.

    Args:
        least: as many things lie in it at least.
        ours: containers that hold it only to look at it.
    """
    seen = {id(one), *map(id, ours)}
    level: list[Any] = [one]
    for _ in range(DEEPEST):
        above = [
            found
            for found in gc.get_referrers(*level)
            if id(found) not in seen and found is not level and not isinstance(found, (FrameType, ModuleType))
        ]
        for found in above:
            if _size(found) >= least and not _is_namespace(found):
                kind = "cache" if hasattr(found, "cache_info") else type(found).__name__
                return f"a {kind} of {_size(found)}{_called(found, above)}"
        seen |= {id(found) for found in above}
        level = above[:MOST]
        if not level:
            break
    return ""


class Held:
    """This process and those that it started."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._started: list[psutil.Process] = []
        self._looks = 0

    def bytes(self) -> int:
        """What they hold in memory, without what they share: pages of a file that is mapped count as a process's memory
        once they are read, and are none that it keeps."""
        if self._looks % LOOK == 0:
            self._started = self._process.children(recursive=True)
        self._looks += 1
        held = 0
        for process in (self._process, *self._started):
            with suppress(psutil.Error):
                found = process.memory_info()
                held += found.rss - getattr(found, "shared", 0)
        return held


def _size(found: Any) -> int:
    if hasattr(found, "cache_info"):  # functools.lru_cache
        return int(found.cache_info().currsize)
    return len(found) if isinstance(found, (list, tuple, dict, set, deque)) else 0


def _is_namespace(found: Any) -> bool:
    """Whether it is the dictionary of a module or of an object."""
    return isinstance(found, dict) and any(
        getattr(one, "__dict__", None) is found for one in gc.get_referrers(found) if not isinstance(one, FrameType)
    )


def _called(found: Any, ours: Sequence[Any]) -> str:
    return next((f" called {name}" for name in _names(found, ours)), "")


def _names(found: Any, ours: Sequence[Any]) -> Iterator[str]:
    """Of a function that is kept, of a variable, an attribute, or a variable of an enclosing function."""
    if name := getattr(found, "__name__", ""):
        yield name
    for space in gc.get_referrers(found):
        if space is ours or isinstance(space, FrameType):
            continue
        if isinstance(space, CellType):
            yield from _of_cell(space)
        values = space if isinstance(space, dict) else getattr(space, "__dict__", {})
        yield from (name for name, value in list(values.items()) if value is found and isinstance(name, str))


def _of_cell(cell: CellType) -> Iterator[str]:
    for closure in gc.get_referrers(cell):
        for function in gc.get_referrers(closure) if isinstance(closure, tuple) else ():
            if isinstance(function, FunctionType) and function.__closure__ is closure and isinstance(closure, tuple):
                yield function.__code__.co_freevars[[one is cell for one in closure].index(True)]
