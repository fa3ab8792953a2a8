"""To look at the queue nothing has to be written: whosever it is, on a full disk, beside what is at work."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ganeum.cli import main
from ganeum.errors import QueueError
from ganeum.queue import look
from ganeum.queue.entry import Entry
from ganeum.queue.store import Store
from ganeum.queue.unwritable import explained

pytestmark = pytest.mark.skipif(os.name == "nt", reason="who may write is told by POSIX permissions")
NOBODY = 65534


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A list of one entry, where other users may look too: pytest's own directories are not for them."""
    above = Path(tempfile.mkdtemp())
    above.chmod(0o755)
    monkeypatch.setenv("GANEUM_RESULTS", str(above / "results"))
    with Store.default() as store:
        store.add(Entry("one"))
        (run := store.run(store.get(1))).queued_dir.mkdir(parents=True)
        run.queue_log_path.write_text("step 1\n")
    yield store.path
    store.results.chmod(0o755)
    shutil.rmtree(above)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """A directory that the user of this test may not write; root, who may always, is somebody else meanwhile."""
    directory.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        directory.chmod(0o755)


@pytest.mark.parametrize("words", ["list", "show 1", "summary", "log 1", "watch --once", "watch --once --json"])
def test_every_look_at_what_this_user_may_not_write(path: Path, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A colleague's results: all of it can be read, and nothing is left in it."""
    before = sorted(path.parent.rglob("*"))

    def looked() -> tuple[object, str]:
        with pytest.raises(SystemExit) as exit:
            main(["queue", *words.split()])
        return exit.value.code, capsys.readouterr().out

    assert 0 == looked()[0]  # and all that it takes is imported: Python itself may not be everybody's to read
    with read_only(path.parent):
        with pytest.raises(QueueError):
            Store(path)
        status, out = looked()
    assert 0 == status
    assert {"log 1": "step 1", "summary": "1 queued left"}.get(words, "one") in out
    assert before == sorted(path.parent.rglob("*"))


def test_what_another_user_writes_is_seen_as_it_is_now(path: Path) -> None:
    """What is in the WAL alone counts too."""
    with Store(path) as writer:
        writer.update(1, note="written just now")
        with read_only(path.parent), look.opened(path) as store:
            assert "written just now" == store.get(1).note


def test_a_list_whose_wal_cannot_be_read_is_said(path: Path) -> None:
    """Left by a crash without its index: what is in the list alone would be an older one, and is not shown."""
    path.with_name("queue.sqlite-wal").write_bytes(b"x" * 100)
    with read_only(path.parent), pytest.raises(QueueError) as error:
        look.opened(path)
    assert str(error.value) == (
        f"QueueError: the queue cannot be written by this user\n  where  {path}\n"
        "  why    unable to open database file\n"
        f"  try    `ls -la {path.parent}` says whose it is; GANEUM_RESULTS names another directory"
    )


def test_a_list_on_a_full_disk_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no room for what SQLite shares with other processes: neither to write nor to read as usual."""
    connect = sqlite3.connect

    def without_room(database: object, **settings: object) -> sqlite3.Connection:
        if "immutable" not in str(database):
            raise sqlite3.OperationalError("disk I/O error")
        return connect(database, **settings)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(sqlite3, "connect", without_room)
    with pytest.raises(QueueError) as full:
        Store(path)
    assert "full" == full.value.kind == explained(OSError(errno.ENOSPC, "No space left on device"), path).kind
    path.with_name("queue.sqlite-wal").touch()  # as SQLite leaves it, when it has come no further
    with look.opened(path) as store:
        assert "one" == store.get(1).name


def test_a_list_that_is_locked_is_seen(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process's transaction keeps nobody from looking, also where there is no WAL."""
    monkeypatch.setattr(look, "PATIENCE_S", 0.05)
    other = sqlite3.connect(path, isolation_level=None)
    for mode in ("WAL", "DELETE"):
        other.execute(f"PRAGMA journal_mode = {mode}")
        other.execute("BEGIN EXCLUSIVE")
        with look.opened(path) as store:
            assert "one" == store.get(1).name
        other.execute("ROLLBACK")
    other.close()
