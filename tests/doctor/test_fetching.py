"""Why a batch is waited for: computing, a disk, sleep, or what this process cannot see."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ganeum.doctor.measured import fetching

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux's accounts")


def waits(fetch: Callable[[], Any]) -> str:
    """What is said of batches that ``fetch`` makes."""

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            return (fetch() or "a batch" for _ in range(10))

    return fetching.reason(fetching.of(SimpleNamespace(batches=Batches())), 0.0)[1]  # type: ignore[arg-type]


def computing() -> None:
    ended = time.thread_time() + 0.005
    while time.thread_time() < ended:
        pass


def test_computing_and_being_blocked_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """5 ms of Python; 20 ms in which nothing is done; the same in front of a pipe that brings 16 KiB late."""
    assert "is computing on one core" in waits(computing)
    assert "and nothing is read: a lock" in waits(lambda: time.sleep(0.02))

    def late() -> None:
        reads, writes = os.pipe()

        def write() -> None:
            time.sleep(0.02)
            os.write(writes, bytes(1 << 14))
            os.close(writes)

        threading.Thread(target=write).start()
        while os.read(reads, 1 << 16):
            pass
        os.close(reads)

    assert "16 KiB a batch are read, and not off a disk" in waits(late)

    def beside() -> None:
        thread = threading.Thread(target=computing)
        thread.start()
        thread.join()

    # By the processor's clock: other programs that take the core from the thread leave it less than half of the time.
    own = SimpleNamespace(perf_counter=time.process_time, process_time=time.process_time, thread_time=time.thread_time)
    monkeypatch.setattr(fetching, "time", own)
    assert "while other threads of this process compute" in waits(beside)


@pytest.mark.parametrize(
    ("computed", "blocked", "read", "disk", "asleep", "cause", "words"),
    [
        (0.01, 0.09, 1e6, 1e6, 0.0, "slow_disk", "come off a disk"),
        (0.01, 0.09, 0.0, 1e6, 0.0, "slow_disk", "come off a disk"),  # a mapped file
        (0.09, 0.01, 1e6, 1e6, 0.0, "loader", "computing"),
        (0.01, 0.09, 1e6, 0.0, 0.0, "loader", "not off a disk"),
        (0.01, 0.09, 1e6, 1e6, 0.9, "loader", "time.sleep()"),
        (0.00001, 0.00009, 1e6, 1e6, 0.0, "loader", "not off a disk"),  # 11 GB a second are no slow disk
    ],
)
def test_what_is_most_of_it_is_the_reason(
    computed: float, blocked: float, read: float, disk: float, asleep: float, cause: str, words: str
) -> None:
    found = {"seconds": 0.1, "computed": computed, "blocked": blocked, "read": read, "disk": disk}
    said = fetching.reason(found, asleep)
    assert said[0] == cause
    assert words in said[1]


def test_batches_of_other_processes_are_not_judged() -> None:
    """Workers of a loader have accounts of their own."""
    assert fetching.of(SimpleNamespace(batches=SimpleNamespace(num_workers=2))) is None  # type: ignore[arg-type]
    assert fetching.reason(None, 0.0) == ("loader", "")
