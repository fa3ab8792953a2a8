"""A finished run that is queued again with a larger length: what its record says is of the earlier one at first."""

from __future__ import annotations

import sys

from at_work import add, work

from ganeum.queue import control
from ganeum.queue.store import Store

KILLED_BEFORE_A_WORD = "import os; os.kill(os.getppid(), 9); os.kill(os.getpid(), 9)"


def test_killed_before_it_has_said_anything_it_is_not_taken_for_finished(store: Store) -> None:
    """Nobody saw it end, and its record says `finished`: of the ten steps before."""
    add(store, "one")
    work(store)
    longer = add(store, "one", overrides=["train.max_iters=30"])
    assert 10 == longer.done_before
    work(store, train=[sys.executable, "-c", KILLED_BEFORE_A_WORD])
    killed = store.get(longer.id)
    assert ("failed", "it ended without a word; tried 4 times") == (killed.state, killed.note)
    control.retry(store, killed)
    work(store)
    finished = store.get(longer.id)
    assert ("finished", 30) == (finished.state, finished.step)
