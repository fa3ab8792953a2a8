"""Entries as they stand beside their runs: what a list that is lost or damaged is made again from."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from ganeum.queue.entry import Entry
from ganeum.record import RunDirectory, read_json, write_json

ENTRY, CONFIG = "entry.json", "config.yaml"


def write(run: RunDirectory, entry: Entry, *, flush: bool = True) -> None:
    """An entry beside its run, once that has a place for it; `flush`: so that it survives a power cut."""
    if run.queued_dir.is_dir():
        with suppress(OSError):  # a full disk: the list itself has it
            write_json(run.queued_dir / ENTRY, entry.plain(), flush=flush)


def read(results: Path) -> list[tuple[Entry, str | None]]:
    """Each entry with its frozen config, by id; a damaged file is passed over."""
    entries: dict[int, Entry] = {}
    for path in sorted(results.glob(f"*/queued/{ENTRY}")):
        with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
            entry = Entry.of(read_json(path))
            if entry.name == path.parent.parent.name:  # else a copy of another run
                entries[entry.id] = entry
    return [(entries[id], _config(results, entries[id])) for id in sorted(entries)]


def is_there(path: Path) -> bool:
    """Whether there is a list at `path`, or, where that was deleted, what it is made of again."""
    return path.exists() or any(path.parent.glob(f"*/queued/{ENTRY}"))


def _config(results: Path, entry: Entry) -> str | None:
    try:
        return (RunDirectory(results / entry.name).queued_dir / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
