"""`ganeum queue remove` and `clean`: entries off the list; runs keep their directories."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.choose import Every, Group, Json, Which


def remove(which: Which = None, group: Group = None, every: Every = False, as_json: Json = False) -> None:
    """Take entries off the list. What a run has written stays; one that is going has to be killed first."""
    import json

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose, named, there
    from ganeum.errors import QueueError
    from ganeum.queue.control import called
    from ganeum.queue.entry import GOING

    named(which, group, every, "remove")
    with there() as store:
        chosen = choose(store, which, group=group)
        if going := [entry for entry in chosen if entry.state in GOING]:
            raise QueueError(
                f"{called(going[0])} is {going[0].state}, so nothing was removed",
                suggestion=f"ganeum queue kill {' '.join(str(entry.id) for entry in going)}",
            )
        removed = store.remove([entry.id for entry in chosen])
        if as_json:
            print(json.dumps([table.plain(entry) for entry in removed], indent=2))
        else:
            for entry in removed:
                print(f"{entry.id}  {entry.name}  removed")


def clean(
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Those in this state: finished, and killed.")
    ] = None,
    older: Annotated[str | None, typer.Option(metavar="TIME", help="Only what ended so long ago: 12h, 7d.")] = None,
    group: Group = None,
    as_json: Json = False,
) -> None:
    """Take what has ended off the list: what is finished and killed, unless --state says otherwise."""
    import json

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose, there
    from ganeum.errors import ConfigError
    from ganeum.queue.entry import ENDED
    from ganeum.queue.when import hours

    states = tuple(state or ("finished", "killed"))
    if wrong := sorted(set(states) - set(ENDED)):
        raise ConfigError(f"what is {wrong[0]} has not ended", where="--state", suggestion=", ".join(ENDED))
    with there() as store:
        last = store.clock() - (hours(older, "--older") * 3600 if older else 0.0)
        chosen = choose(store, None, group=group, states=states)
        removed = store.remove([entry.id for entry in chosen if (entry.ended_at or 0.0) <= last])
        if as_json:
            print(json.dumps([table.plain(entry) for entry in removed], indent=2))
        else:
            print(f"removed: {table.counted(removed)}")
