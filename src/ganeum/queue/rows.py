"""The tables of the queue's list, and an entry as a row of them and back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ganeum.queue.entry import Entry
from ganeum.queue.process import Identity

VERSION = 1
COLUMNS = tuple(field.name for field in fields(Entry))
NAMES = ", ".join(f'"{name}"' for name in COLUMNS)
MANAGER = ("pid", "started", "boot_id", "host", "since")
_JSON = ("after", "overrides", "trial", "spec")
_SCHEMA = f"""
CREATE TABLE entries (id INTEGER PRIMARY KEY AUTOINCREMENT, {NAMES.replace('"id", ', "")});
CREATE INDEX entries_by_name ON entries (name);
CREATE TABLE events (id INTEGER PRIMARY KEY, time REAL NOT NULL, entry INTEGER, what TEXT NOT NULL, text TEXT NOT NULL);
CREATE TABLE configs (entry INTEGER PRIMARY KEY, config TEXT NOT NULL);
CREATE TABLE managers ({", ".join(MANAGER)});
PRAGMA user_version = {VERSION};
"""


@dataclass(frozen=True)
class Event:
    """One line of the queue's history: `what` is one word (added, claimed, running, finished, …)."""

    id: int
    time: float
    entry: int | None
    what: str
    text: str


@dataclass(frozen=True)
class Manager:
    """A process that works on the list, since when (seconds since 1970)."""

    identity: Identity
    since: float


def create(db: sqlite3.Connection) -> None:
    """The tables, in a list that has none; within a transaction."""
    for statement in _SCHEMA.split(";")[:-1]:
        db.execute(statement)


def complete(db: sqlite3.Connection) -> None:
    """Columns that an older version did not have.

    Raises:
        sqlite3.Error: a table is missing.
    """
    db.execute("SELECT count(*) FROM entries, events, managers, configs WHERE 0")
    for table, names in (("entries", COLUMNS), ("managers", MANAGER)):
        there = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
        for name in names:
            if name not in there:
                db.execute(f'ALTER TABLE {table} ADD COLUMN "{name}"')


def stored(entry: Entry, name: str) -> Any:
    """A field as its column has it."""
    value = getattr(entry, name)
    return json.dumps(value) if name in _JSON and value is not None else value


def entry_of(row: Sequence[Any]) -> Entry:
    """A row of `COLUMNS`."""
    values = {name: value for name, value in zip(COLUMNS, row, strict=True) if value is not None}
    values |= {name: json.loads(values[name]) for name in _JSON if name in values}
    values |= {name: tuple(values[name]) for name in ("after", "overrides") if name in values}
    return Entry(**{**values, "strict": bool(values.get("strict"))})
