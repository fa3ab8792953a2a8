"""Work in processes, results in order."""

import os
import time
from collections.abc import Iterator

import pytest

from ganeum.data.workers import in_order
from ganeum.errors import DataError

_offset = 0


def start(offset: int) -> None:
    global _offset
    _offset = offset


def slow_at_first(task: int) -> int:
    time.sleep(0.05 if task < 3 else 0)
    return task + _offset


def die(task: int) -> int:
    os._exit(9)


def refuse(task: int) -> int:
    raise DataError("not this one", where="there", suggestion="another")


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_tasks(workers: int) -> None:
    """Whoever finishes first waits for those before it."""
    results = in_order(slow_at_first, range(40), workers, initialize=start, arguments=(100,))
    assert list(range(100, 140)) == list(results)


def test_tasks_are_read_only_as_fast_as_they_are_done() -> None:
    """With 2 workers at most 6 tasks are ahead of the results, however many there are."""
    read = 0

    def tasks() -> Iterator[int]:
        nonlocal read
        while read < 1000:
            read += 1
            yield read

    for done, _ in enumerate(in_order(slow_at_first, tasks(), 2, initialize=start, arguments=(0,)), start=1):
        assert read - done <= 6


def test_a_killed_worker_is_an_error_with_a_way_out() -> None:
    """The kernel kills what takes too much memory; that is said, and nothing hangs."""
    with pytest.raises(DataError) as error:
        list(in_order(die, range(4), 2, initialize=start, arguments=(0,)))
    assert str(error.value) == (
        "DataError: a worker process was killed\n"
        "  why    the kernel does that when memory runs out\n"
        "  try    --workers 1"
    )


def test_an_error_in_a_worker_arrives_whole() -> None:
    """What, where and what to try survive the way between processes."""
    with pytest.raises(DataError) as error:
        list(in_order(refuse, range(4), 2, initialize=start, arguments=(0,)))
    assert str(error.value) == "DataError: not this one\n  where  there\n  try    another"
