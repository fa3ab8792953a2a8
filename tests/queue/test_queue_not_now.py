"""A queue that starts where its list is locked or the disk is full waits, says so once, and can be ended."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ganeum.cli.queue.run import work
from ganeum.errors import QueueError
from ganeum.queue import manager
from ganeum.queue.entry import Entry
from ganeum.queue.store import Store
from ganeum.queue.unwritable import explained

LOCKED = "the queue is locked by another process; waiting"
FULL = "the queue cannot be written: the disk is full; waiting"


@pytest.fixture(autouse=True)
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GANEUM_RESULTS", str(tmp_path))
    monkeypatch.setattr(manager, "Store", partial(Store, patience_s=0.05))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite"


def locked(path: Path) -> sqlite3.Connection:
    """A connection of another program that keeps everybody from the list until it is closed."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("PRAGMA journal_mode = DELETE")  # with WAL a list that is locked can still be read
    other.execute("BEGIN EXCLUSIVE")
    return other


def then(do: Callable[[], None], when: str, said: list[str]) -> Callable[[str], None]:
    """Keeps what is said, and does something at a sentence."""

    def say(text: str) -> None:
        said.append(text)
        if text == when:
            do()

    return say


def test_a_locked_list_is_waited_for(path: Path) -> None:
    """It opens when the other has gone; once said."""
    with Store(path) as store:
        store.add(Entry("one"))
    said: list[str] = []
    other = locked(path)
    store_ = manager.opened(path, threading.Event(), then(other.close, LOCKED, said))
    assert store_ is not None
    with store_:
        assert ["one"] == [entry.name for entry in store_.all()]
    assert [LOCKED] == said


def test_a_full_disk_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three times there is no room, then there is; once said."""
    left = [explained(sqlite3.OperationalError("database or disk is full"), path) for _ in range(3)]

    def full(path: Path) -> Store:
        if left:
            raise left.pop()
        return Store(path)

    monkeypatch.setattr(manager, "Store", full)
    monkeypatch.setattr(manager, "TRY_AGAIN_S", 0.01)
    said: list[str] = []
    store = manager.opened(path, threading.Event(), said.append)
    assert store is not None
    store.close()
    assert ([FULL], []) == (said, left)


def test_a_list_that_a_stopped_process_is_opening_is_locked(path: Path) -> None:
    """SQLite has words of its own for that, after ten seconds of trying."""
    error = explained(sqlite3.OperationalError("locking protocol"), path)
    assert "locked" == error.kind
    assert str(error) == (
        f"QueueError: the queue is locked by another process\n  where  {path}\n  why    locking protocol\n"
        f"  try    the same command again; `fuser {path}` names the process"
    )


def test_a_damaged_list_is_not_waited_for(path: Path) -> None:
    """Time does not mend it."""
    path.write_bytes(b"?" * 8192)
    with pytest.raises(QueueError, match="the list of the queue is damaged"):
        manager.opened(path, threading.Event(), print)


def test_ctrl_c_ends_the_wait(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`ganeum queue run` on a list that stays locked: it says so, and ends with 130."""
    other = locked(path)
    waits = threading.Event.wait

    def wait(event: threading.Event, seconds: float | None = None) -> bool:
        signal.raise_signal(signal.SIGINT)
        return waits(event, seconds)

    monkeypatch.setattr(threading.Event, "wait", wait)
    assert 130 == work(only=None)
    assert f"{LOCKED}\n" == capsys.readouterr().out
    other.close()
