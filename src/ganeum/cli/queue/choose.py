"""Which entries a command means: ids, ranges of ids, names, a group, or all."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ganeum.errors import ConfigError, GaneumError, QueueError, Several

if TYPE_CHECKING:
    from ganeum.queue.entry import Entry
    from ganeum.queue.store import Store

MOST_URGENT = 1_000_000_000  # a priority beyond is a slip of the keyboard, and soon beyond what SQLite can hold
Which = Annotated[
    list[str] | None, typer.Argument(metavar="[ENTRY]...", help="Ids (3), ranges (3-7), or names of runs.")
]
Group = Annotated[str | None, typer.Option("--group", "-g", metavar="NAME", help="All of this group or sweep.")]
Every = Annotated[bool, typer.Option("--all", help="All for which it makes sense.")]
Json = Annotated[bool, typer.Option("--json", help="Print the entries as JSON.")]


def there() -> Store:
    """The list, for a command that changes what is there, and makes none.

    Raises:
        QueueError: there is none, as in another directory than the one that it was made in.
    """
    from ganeum.queue.store import Store

    return Store(_path())


def to_look() -> Store:
    """The list, for a command that changes nothing: also where it cannot be written.

    Raises:
        QueueError: as `there`.
    """
    from ganeum.queue import look

    return look.opened(_path())


def _path() -> Path:
    from ganeum.queue import mirror
    from ganeum.queue.store import default_path

    if not mirror.is_there(default_path()):
        raise QueueError(
            "there is no queue here yet",
            where=str(default_path()),
            suggestion="ganeum queue add CONFIG, or another `cd`",
        )
    return default_path()


def choose(
    store: Store,
    words: Sequence[str] | None,
    *,
    group: str | None = None,
    states: Iterable[str] | None = None,
) -> list[Entry]:
    """The entries meant, in the order named, each once.

    Args:
        group: of this group or sweep besides.
        states: of a group, or of all where nothing is named, only those in such a state.

    Raises:
        QueueError, Several: there is no such entry; the nearest names are suggested.
    """
    entries, allowed = store.all(), None if states is None else set(states)
    chosen: dict[int, Entry] = {}
    errors: list[GaneumError] = []
    for word in words or ():
        try:
            chosen |= {entry.id: entry for entry in _meant(entries, word, str(store.path))}
        except QueueError as error:
            errors.append(error)
    if group is not None:
        those = [entry for entry in entries if group in (entry.group, entry.sweep)]
        if not those:
            names = sorted({name for entry in entries for name in (entry.group, entry.sweep) if name})
            errors.append(
                QueueError(
                    f"there is no group or sweep {group}",
                    where=str(store.path),
                    suggestion=" or ".join(difflib.get_close_matches(group, names, cutoff=0.4)) or None,
                )
            )
        chosen |= {entry.id: entry for entry in those if allowed is None or entry.state in allowed}
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Several(errors)
    if not words and group is None:
        return [entry for entry in entries if allowed is None or entry.state in allowed]
    return list(chosen.values())


def named(words: Sequence[str] | None, group: str | None, every: bool, command: str) -> None:
    """Raises ConfigError where a command that changes things is not told what."""
    if not words and group is None and not every:
        raise ConfigError(
            f"which one to {command} is not said",
            where=f"ganeum queue {command}",
            suggestion=f"ganeum queue {command} 3, --group NAME, or --all",
        )


def one(store: Store, word: str) -> Entry:
    """The one entry meant; of several with that name, the newest."""
    return _meant(store.all(), word, str(store.path))[-1]


def _meant(entries: Sequence[Entry], word: str, where: str) -> list[Entry]:
    by_id = {entry.id: entry for entry in entries}
    alike = sorted((entry for entry in entries if entry.name == word), key=lambda entry: entry.id)
    meant: list[Entry] = []
    if found := re.fullmatch(r"(\d+)-(\d+)", word):
        low, high = int(found[1]), int(found[2])
        meant = [by_id[id] for id in sorted(by_id) if low <= id <= high]
    elif word.isdecimal() and int(word) in by_id:
        meant = [by_id[int(word)]]
    if alike and meant and meant != alike[-1:]:
        raise QueueError(
            f"{word} is the name of a run, and stands for other entries too",
            where=where,
            why=f"the run {word} is entry {alike[-1].id}",
            suggestion=f"{alike[-1].id} for that run; "
            + (f"{meant[0].name} for entry {word}" if len(meant) == 1 else "the names of the others"),
        )
    if meant:
        return meant
    if alike:
        return alike[-1:]
    near = difflib.get_close_matches(word, {entry.name for entry in entries}, n=3, cutoff=0.5)
    raise QueueError(
        f"the queue has no entry {word}",
        where=where,
        suggestion=" or ".join(near) or "`ganeum queue list --all` shows those there are",
    )
