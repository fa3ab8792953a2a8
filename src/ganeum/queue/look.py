"""The list for somebody who only looks: also where it cannot be written, or made complete, just now."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from ganeum.errors import QueueError
from ganeum.queue.store import Store

PATIENCE_S = 2.0  # for another process's transaction: who only looks is not kept waiting


class Picture(Store):
    """The list as it is, opened so that nothing is written, not even beside it."""

    def _open(self) -> None:
        with self._explained():
            try:
                self._connect("mode=ro")
            except sqlite3.OperationalError:
                # SQLite's WAL is shared by files that it would have to make. Where nothing is in one, the list has all.
                beside = [self.path.with_name(self.path.name + suffix) for suffix in ("-wal", "-journal")]
                if any(file.exists() and file.stat().st_size for file in beside):
                    raise
                self._connect("mode=ro&immutable=1")

    def _connect(self, how: str) -> None:
        address = f"{self.path.absolute().as_uri()}?{how}"
        self._db = sqlite3.connect(address, uri=True, timeout=self.patience_s, isolation_level=None)
        try:
            self._db.execute("SELECT count(*) FROM entries, events, managers, configs WHERE 0")
        except BaseException:
            self._db.close()
            raise


def opened(path: Path) -> Store:
    """The list at `path`, to look at.

    Raises:
        QueueError: it cannot be read: damaged, say.
    """
    try:
        return Store(path, patience_s=PATIENCE_S)
    except QueueError as error:
        if error.kind == "damaged" or not path.exists():
            raise
        try:
            return Picture(path, patience_s=PATIENCE_S)
        except QueueError:
            raise error from None
