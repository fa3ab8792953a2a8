"""What holds an object that stays, by Python's own references, and how much memory a process holds. Loads no torch."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from types import CellType, FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple

import psutil

DEEPEST = 4  # steps up: a closure in a list is cell, closure, function, list
LOOK = 8  # looks after which other processes are looked for again, which reads those of the whole machine
MOST = 64  # objects that are followed at a time


class Holder(NamedTuple):
    """``a list of 12 called losses``, empty where none is seen; ``most``: as many lie in it at most."""

    told: str = ""
    most: int | None = None


def holder(one: Any, *, least: int, ours: Sequence[Any] = ()) -> Holder:
    """The nearest container that has grown.

    Args:
        least: as many things of its kind lie in it at least.
        ours: containers that hold it only to look at it.
    """
    seen = {id(one), *map(id, ours)}
    level: list[Any] = [one]
    now = set(map(id, _running()))  # frames; those of an exception that is kept, or of a generator, are none of them
    for _ in range(DEEPEST):
        above = [
            found
            for found in gc.get_referrers(*level)
            if id(found) not in seen | now and found is not level and not isinstance(found, ModuleType)
        ]
        for found in above:
            if _alike(found, set(map(type, level))) >= least and not _is_namespace(found):
                return Holder(told(found, (above, *ours)), _most(found))
        seen |= {id(found) for found in above}
        level = above[:MOST]
        if not level:
            break
    return Holder()


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


def _running() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back


def _cached(found: Any) -> Any:
    """The function whose cache it is, or lies in; None: it is none."""
    return next((one for one in (found, *gc.get_referrers(found)) if hasattr(one, "cache_info")), None)


def _kind(found: Any) -> str:
    return type(found).__name__ if _cached(found) is None else "cache"


def _most(found: Any) -> int | None:
    cached = _cached(found)
    most = getattr(found, "maxlen", None) if cached is None else cached.cache_info().maxsize
    return most if isinstance(most, int) else None


def _size(found: Any) -> int:
    if hasattr(found, "cache_info"):  # functools.lru_cache
        return int(found.cache_info().currsize)
    return len(found) if isinstance(found, (list, tuple, dict, set, deque)) else 0


def _alike(found: Any, kinds: Collection[type]) -> int:
    """How many of these kinds lie in it."""
    if not isinstance(found, (list, tuple, dict, set, deque)):
        return _size(found)
    inside = chain(found, found.values()) if isinstance(found, dict) else iter(found)
    return sum(type(one) in kinds for one in inside)


def _is_namespace(found: Any) -> bool:
    """Whether it is the dictionary of a module or of an object."""
    return isinstance(found, dict) and any(
        getattr(one, "__dict__", None) is found for one in gc.get_referrers(found) if not isinstance(one, FrameType)
    )


def told(found: Any, ours: Sequence[Any] = ()) -> str:
    """``a list of 12 called losses``."""
    name = called(found, ours)
    return f"a {_kind(found)} of {_size(found)}{' called ' * bool(name)}{name}"


def called(one: Any, ours: Sequence[Any] = ()) -> str:
    """The name it goes by: a variable's, an attribute's, that of a function's cache; empty where there is none.

    Args:
        ours: containers that hold it only to look at it.
    """
    return next(_names(one, ours), "")


def _names(found: Any, ours: Sequence[Any]) -> Iterator[str]:
    """Of a function that is kept, of a variable, an attribute, or a variable of an enclosing function."""
    if name := getattr(found, "__name__", ""):
        yield name
    apart = set(map(id, ours))
    for space in gc.get_referrers(found):
        if id(space) in apart or isinstance(space, FrameType):
            continue
        if isinstance(space, CellType):
            yield from _of_cell(space)
        if hasattr(space, "cache_info"):
            yield space.__name__
        values = space if isinstance(space, dict) else getattr(space, "__dict__", {})
        yield from (name for name, value in list(values.items()) if value is found and isinstance(name, str))


def _of_cell(cell: CellType) -> Iterator[str]:
    for closure in gc.get_referrers(cell):
        for function in gc.get_referrers(closure) if isinstance(closure, tuple) else ():
            if isinstance(function, FunctionType) and function.__closure__ is closure and isinstance(closure, tuple):
                yield function.__code__.co_freevars[[one is cell for one in closure].index(True)]
