"""`ganeum queue move`: another order."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.choose import Group, Json, Which


def command(
    which: Which = None,
    group: Group = None,
    first: Annotated[bool, typer.Option("--first", help="To the front of all.")] = False,
    last: Annotated[bool, typer.Option("--last", help="Behind all.")] = False,
    before: Annotated[str | None, typer.Option(metavar="ENTRY", help="Right before this one.")] = None,
    behind: Annotated[str | None, typer.Option(metavar="ENTRY", help="Right behind this one.")] = None,
    as_json: Json = False,
) -> None:
    """Change the order in which entries start; they take the priority of where they go."""
    import json

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose, named, one, there
    from ganeum.errors import ConfigError
    from ganeum.queue import control
    from ganeum.queue.entry import ENDED

    named(which, group, False, "move")
    if sum((first, last, before is not None, behind is not None)) != 1:
        raise ConfigError(
            "one place to move to is needed",
            where="ganeum queue move",
            suggestion="--first, --last, --before 3, --behind 3",
        )
    with there() as store:
        entries = choose(store, which, group=group)
        rest = [entry for entry in store.all() if entry not in entries and entry.state not in ENDED]
        to = one(store, before or behind or "") if before or behind else (rest[0] if first and rest else None)
        moved = control.move(store, entries, to=to, behind=behind is not None)
        if as_json:
            print(json.dumps([table.plain(entry) for entry in moved], indent=2))
        else:
            waiting = [entry for entry in store.all() if entry.state not in ENDED]
            table.show(table.table(waiting, {}, store.clock()))
