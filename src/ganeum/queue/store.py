"""The queue's list in SQLite: short transactions, safe for any number of processes; each entry is claimed once.

What a run *is* stays in its directory. Here stands what is wanted, and every entry is mirrored beside its run, so
that a list that is lost or damaged can be made again (`rebuild`).
"""

from __future__ import annotations

import shlex
import shutil
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ganeum.errors import QueueError
from ganeum.hardware import mounts
from ganeum.queue import mirror, rows
from ganeum.queue.entry import ENDED, GOING, Entry
from ganeum.queue.process import Identity
from ganeum.queue.rows import COLUMNS, MANAGER, NAMES, Event, Manager, entry_of, stored
from ganeum.queue.unwritable import explained
from ganeum.record import RunDirectory, results_dir

PATIENCE_S = 10.0  # for another process's transaction, which takes milliseconds
EVENTS_KEPT = 20_000


class Store:
    """The list at `path`, made if it is not there. A store is used by the thread that opened it.

    Raises (every method):
        QueueError: the list is damaged, locked for longer than `patience_s`, of a newer version, or the disk is full.
            Nothing is changed then; `error.kind` tells which.
    """

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.time) -> None:
        self.path, self.clock, self.patience_s = path, clock, patience_s
        self._reopened, self._flushes = 0, True
        self.shared = mounts.shared_kind(path.parent)  # the kind of a network's file system, where it lies on one
        self._open()

    @classmethod
    def default(cls) -> Store:
        return cls(default_path())

    @property
    def results(self) -> Path:
        """The directory of the runs."""
        return self.path.parent

    def run(self, entry: Entry) -> RunDirectory:
        return RunDirectory(self.results / entry.name)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Entries

    def add(self, entry: Entry) -> Entry:
        """`entry` with its id. Raises QueueError where an entry that has not ended has its name."""
        return self.add_all([entry])[0]

    def add_all(self, entries: Sequence[Entry], configs: Sequence[str] = ()) -> list[Entry]:
        """All of them or none, in one transaction; `configs`: what is to be trained of each, as YAML, kept with it."""
        now = self.clock()
        with self._transaction():
            added = [self._insert(replace(one, created=one.created or now, queued=now)) for one in entries]
            self._freeze(zip([one.id for one in added], configs, strict=False))
            for one in added:
                self._mirror(one)
                if one.config:
                    self._note("added", shlex.join([one.config, *one.overrides]), one.id)
        return added

    def frozen(self, id: int) -> str | None:
        """The YAML that was kept with an entry; None where none was."""
        with self._explained():
            row = self._db.execute("SELECT config FROM configs WHERE entry = ?", (id,)).fetchone()
        return None if row is None else str(row[0])

    def get(self, id: int) -> Entry:
        with self._explained():
            row = self._db.execute(f"SELECT {NAMES} FROM entries WHERE id = ?", (id,)).fetchone()
        if row is None:
            others = "`ganeum queue list` shows those there are"
            raise QueueError(f"the queue has no entry {id}", where=str(self.path), suggestion=others)
        return entry_of(row)

    def all(self, name: str | None = None) -> list[Entry]:
        """Every entry (of the run `name`), in the order in which they would start: by priority, order and id."""
        of_it = "" if name is None else "WHERE name = :name "
        wanted = f'SELECT {NAMES} FROM entries {of_it}ORDER BY -priority, "order", id'
        with self._explained():
            return [entry_of(row) for row in self._db.execute(wanted, {"name": name}).fetchall()]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is changed within becomes one transaction: all or nothing, and one wait for the disk. An error of the
        list's own (of another kind than `other`) has to end it."""
        with self._transaction():
            self._flushes = False
            try:
                yield
            finally:
                self._flushes = True

    def update(
        self,
        id: int,
        expect: Collection[str] | None = None,
        *,
        attempt: str | None = None,
        frozen: str | None = None,
        **changes: Any,
    ) -> Entry | None:
        """The entry with `changes`; None and no change where it is gone, in a state not in `expect`, or of another
        attempt than that of this token. `frozen`: another YAML to keep with it."""
        with self._transaction():
            entry = self._row(id)
            if entry is None or (expect is not None and entry.state not in expect):
                return None
            if attempt is not None and entry.token != attempt:
                return None
            changed = replace(entry, **changes)
            self._write(changed, [name for name in changes if getattr(entry, name) != getattr(changed, name)])
            if frozen is not None:
                self._freeze([(id, frozen)])
            if changed != entry:
                self._mirror(changed)
        return changed

    def claim(self, entry: Entry, manager: Identity, token: str, device: str, beside: Collection[str]) -> Entry | None:
        """Take a queued entry for one attempt, called `token`, on `device`; None where another process has it.

        Args:
            beside: the tokens of all that ran or started when the device was chosen: where these are others by now,
                the place may be taken and nothing is claimed.
        """
        with self._transaction():
            now = self._row(entry.id)
            if now is None or now.state != "queued":
                return None
            going = self._db.execute("SELECT token, name FROM entries WHERE state IN (?, ?)", GOING).fetchall()
            if {one for one, _ in going} != set(beside) or any(name == entry.name for _, name in going):
                return None
            claimed = replace(
                now, state="starting", token=token, device=device, attempts=now.attempts + 1, wanted="",
                **asdict(manager), started_at=self.clock(), ended_at=None, exit_status=None, note="", error_tail="",
                untold=None,
            )  # fmt: skip
            self._write(claimed)
            self._mirror(claimed)
        return claimed

    def rearrange(self, arrange: Callable[[list[Entry]], Mapping[int, Mapping[str, Any]]]) -> list[Entry]:
        """What `arrange` makes of the whole list, in one transaction: changes by id → the entries it has changed."""
        with self._transaction():
            entries = self.all()
            wanted = arrange(entries)
            changed = [replace(entry, **wanted[entry.id]) for entry in entries if entry.id in wanted]
            for entry in changed:
                self._write(entry, list(wanted[entry.id]))
                self._mirror(entry, flush=False)
        return changed

    def mirror(self, id: int, *, flush: bool = True) -> None:
        """Write an entry, as it is by now, beside its run."""
        with self._transaction():
            if (entry := self._row(id)) is not None:
                self._mirror(entry, flush=flush)

    def told(self, id: int) -> bool:
        """Note that people are told how it ended → whether nobody had been told before."""
        with self._transaction():
            entry = self._row(id)
            if entry is None or entry.untold is None:
                return False
            self._write(told := replace(entry, untold=None), ["untold"])
            self._mirror(told)
        return True

    def remove(self, ids: Collection[int]) -> list[Entry]:
        """Take entries off the list that have no process → those that were; what comes after a finished one is free."""
        with self._transaction():
            found = [entry for id in ids if (entry := self._row(id)) is not None and entry.state not in GOING]
            for table, column in (("entries", "id"), ("configs", "entry")):
                self._db.executemany(f"DELETE FROM {table} WHERE {column} = ?", [(entry.id,) for entry in found])
            done = {entry.id for entry in found if entry.state == "finished"}
            for entry in [one for one in self.all() if done & {*one.after}]:
                freed = replace(entry, after=tuple(id for id in entry.after if id not in done))
                self._write(freed, ["after"])
                self._mirror(freed)
        for entry in found:
            run = self.run(entry)
            shutil.rmtree(run.queued_dir, ignore_errors=True)
            if not run.exists():
                with suppress(OSError):  # its log: then there is something to read
                    run.path.rmdir()
        return found

    # What happened, and who works on it

    def log(self, what: str, text: str = "", entry: int | None = None) -> None:
        with self._transaction():
            self._note(what, text, entry)

    def events(self, since: int = 0, entry: int | None = None) -> list[Event]:
        """Those with an id above `since`, oldest first."""
        with self._explained():
            rows = self._db.execute(
                "SELECT id, time, entry, what, text FROM events WHERE id > ? AND (? IS NULL OR entry = ?) ORDER BY id",
                (since, entry, entry),
            ).fetchall()
        return [Event(*row) for row in rows]

    def changes(self) -> int:
        """A number that is another whenever another process has written; a list made anew in its place is opened."""
        with self._explained():
            if not self.path.exists() or _file(self.path) != self._opened:
                self._db.close()
                self._open()
                self._reopened += 1
            return int(self._db.execute("PRAGMA data_version").fetchone()[0]) + (self._reopened << 32)

    def managers(self) -> list[Manager]:
        """The processes that say they work on the list and are alive."""
        return [manager for manager in self._managers() if manager.identity.is_alive()]

    def enrol(self, identity: Identity) -> None:
        """Note a manager, and forget those that are dead."""
        with self._transaction():
            for manager in self._managers():
                if not manager.identity.is_alive() and not manager.identity.is_elsewhere():
                    self._forget(manager.identity)
            values = (identity.pid, identity.started, identity.boot_id, identity.host, self.clock())
            self._db.execute("INSERT INTO managers VALUES (?, ?, ?, ?, ?)", values)

    def leave(self, identity: Identity) -> None:
        with self._transaction():
            self._forget(identity)

    # Inside

    def _managers(self) -> list[Manager]:
        with self._explained():
            rows = self._db.execute(f"SELECT {', '.join(MANAGER)} FROM managers ORDER BY since").fetchall()
        return [Manager(Identity(pid, started, boot, host or ""), since) for pid, started, boot, host, since in rows]

    def _forget(self, manager: Identity) -> None:
        of_it = (manager.pid, manager.started, manager.boot_id)
        self._db.execute("DELETE FROM managers WHERE pid = ? AND started = ? AND boot_id = ?", of_it)

    def _open(self) -> None:
        self._opened: tuple[int, int] | None = None
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=self.patience_s, isolation_level=None)
            file = _file(self.path)
            # WAL keeps its index in memory that processes share, and two machines share none.
            self._db.execute(f"PRAGMA journal_mode = {'WAL' if self.shared is None else 'DELETE'}")
            self._db.execute("PRAGMA synchronous = FULL")
            self._prepare()
        self._opened = file  # not before: where it is locked now, it is to be opened again

    def _prepare(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > rows.VERSION:
            raise QueueError(
                "the queue was written by a newer ganeum",
                where=str(self.path),
                why=f"its form is {version}, and this version reads {rows.VERSION}",
                suggestion="pip install -U ganeum",
            )
        if version == 0:
            with self._transaction():
                if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:  # another may have been faster
                    rows.create(self._db)
                    self._take_back()
            return
        [answer] = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)
        rows.complete(self._db)

    def _take_back(self) -> None:
        """Into a list that was not there: the entries that are mirrored beside runs, with their configs."""
        entries = mirror.read(self.results)
        for entry, config in entries:
            self._write_new(entry)
            if config is not None:
                self._freeze([(entry.id, config)])
        if entries:
            self._note("rebuilt", f"the list was gone; {len(entries)} entries were found beside their runs", None)

    def _insert(self, entry: Entry) -> Entry:
        """A run has one directory, so it has one entry; one that has ended is queued again, under the id it had."""
        other = self._db.execute("SELECT id, state FROM entries WHERE name = ?", (entry.name,)).fetchone()
        if other is None:
            return replace(entry, id=self._write_new(entry))
        if other[1] not in ENDED:
            raise QueueError(
                f"the run {entry.name} is in the queue already",
                where=str(self.path),
                why=f"it is entry {other[0]}, {other[1]}, and a run has one directory",
                suggestion=f"name={entry.name}-2 for another run",
            )
        again = replace(entry, id=other[0])
        self._write(again)
        return again

    def _write_new(self, entry: Entry) -> int:
        values = [stored(entry, name) for name in COLUMNS]
        values[COLUMNS.index("id")] = entry.id or None
        marks = ", ".join("?" * len(COLUMNS))
        id = self._db.execute(f"INSERT INTO entries ({NAMES}) VALUES ({marks})", values).lastrowid
        assert id is not None, "an insert has a row"
        return id

    def _note(self, what: str, text: str, entry: int | None) -> None:
        values = (self.clock(), entry, what, text)
        self._db.execute("INSERT INTO events (time, entry, what, text) VALUES (?, ?, ?, ?)", values)
        self._db.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?", (EVENTS_KEPT,))

    def _freeze(self, configs: Iterable[tuple[int, str]]) -> None:
        self._db.executemany("INSERT OR REPLACE INTO configs VALUES (?, ?)", configs)

    def _write(self, entry: Entry, names: Sequence[str] = COLUMNS) -> None:
        if names:
            settings = ", ".join(f'"{name}" = ?' for name in names)
            values = [stored(entry, name) for name in names]
            self._db.execute(f"UPDATE entries SET {settings} WHERE id = ?", (*values, entry.id))

    def _row(self, id: int) -> Entry | None:
        row = self._db.execute(f"SELECT {NAMES} FROM entries WHERE id = ?", (id,)).fetchone()
        return None if row is None else entry_of(row)

    def _mirror(self, entry: Entry, *, flush: bool = True) -> None:
        """Within the transaction: else an older state might be written over a newer one."""
        mirror.write(self.run(entry), entry, flush=flush and self._flushes)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            if self._db.in_transaction:  # within `together`, which ends it
                yield
                return
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # it may have been rolled back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise explained(error, self.path) from error


def default_path() -> Path:
    return results_dir() / "queue.sqlite"


def rebuild(path: Path) -> tuple[Path, int]:
    """Put a damaged list aside and make another from what is mirrored beside the runs → where it is, how many."""
    aside, number = path.with_name(f"{path.name}.damaged"), 2
    while aside.exists():
        aside, number = path.with_name(f"{path.name}.damaged-{number}"), number + 1
    try:
        for suffix in ("-wal", "-shm", ""):
            if (file := path.with_name(path.name + suffix)).exists():
                file.rename(aside.with_name(aside.name + suffix))
    except OSError as error:
        raise explained(error, path) from error
    with Store(path) as store:
        return aside, len(store.all())


def _file(path: Path) -> tuple[int, int]:
    """Which file it is, whatever it is called."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino
