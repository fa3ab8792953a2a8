"""Work spread over processes, its results in the order of the tasks and only a few tasks in memory at a time."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from ganeum.errors import DataError

T = TypeVar("T")
R = TypeVar("R")


def in_order(
    function: Callable[[T], R],
    tasks: Iterable[T],
    workers: int,
    *,
    initialize: Callable[..., None],
    arguments: tuple[Any, ...],
    fewer: str | None = None,
) -> Iterator[R]:
    """``function`` of each task, in their order, whatever the number of workers.

    At most three tasks a worker are read ahead, so memory does not grow with their number. Processes are spawned, not
    forked: a fork copies the locks of threads that it does not copy.

    Args:
        function: a function of a module.
        tasks: read only as fast as they are worked on.
        workers: processes; 1: this one does the work.
        initialize: called once in each process, with ``arguments``.
        fewer: how the user has fewer processes; None: by --workers.

    Raises:
        DataError: a process was killed, or whatever ``function`` raises.
    """
    if workers == 1:
        initialize(*arguments)
        yield from map(function, tasks)
        return
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_initialize, initargs=(initialize, arguments))
    waiting: deque[Future[R]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= 3 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process was killed",
            why="the kernel does that when memory runs out",
            suggestion=fewer or f"--workers {max(1, workers // 2)}",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _initialize(initialize: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent alone answers it
    initialize(*arguments)
