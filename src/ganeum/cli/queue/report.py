"""What became of the entries that a command worked on: errors, a table, and the headline below it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ganeum.queue.entry import Entry
    from ganeum.queue.store import Store


def about(store: Store, ended: Collection[int], only: Collection[int] | None) -> tuple[list[Entry], list[Entry]]:
    """The entries that a report is about, those of the ids `ended` or `only`; and the others that are still to come."""
    from ganeum.queue.entry import ENDED

    everything = store.all()
    mine = [entry for entry in everything if entry.id in (ended if only is None else only)]
    return mine, [entry for entry in everything if entry.state not in ENDED and entry not in mine]


def show(store: Store, mine: Sequence[Entry], left: Sequence[Entry], lead: str, as_json: bool, also: str = "") -> None:
    """Errors in full, the table, the best of each sweep, and the headline; or the entries as JSON."""
    import json

    from ganeum.cli.queue import table
    from ganeum.queue import summary
    from ganeum.queue.progress import progress

    how_far = {entry.id: progress(store.run(entry), entry) for entry in mine if entry.attempts}
    if as_json:
        print(json.dumps([table.plain(entry, how_far.get(entry.id)) for entry in mine], indent=2))
        return
    for entry in mine:
        if entry.state == "failed" and entry.error_tail:
            print(f"\n{entry.name}:")
            print("\n".join(f"    {line}" for line in summary.error(entry)))
    if mine:
        print()
        table.show(table.table(mine, how_far, store.clock()))
    print()
    for line in summary.bests(store, mine):
        print(line)
    print(summary.headline(lead, mine, left) + (f"; {also}" if also else ""))
