"""`ganeum queue summary`: what happened while nobody looked."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.choose import Group, Json


def command(
    since: Annotated[str, typer.Option(metavar="TIME", help="What ended so long ago at most: 12h, 3d.")] = "1d",
    group: Group = None,
    as_json: Json = False,
) -> None:
    """Tell the night: what ended, what needs you, the best of each sweep, the best runs.

    It is what people are told when the queue has worked through its list.
    """
    import json

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose, to_look
    from ganeum.queue import summary
    from ganeum.queue.entry import ENDED
    from ganeum.queue.progress import progress
    from ganeum.queue.when import clock, hours

    with to_look() as store:
        now = store.clock()
        first = now - hours(since, "--since") * 3600
        entries = choose(store, None, group=group)
        resting = [entry for entry in entries if entry.state in summary.NEEDS_SOMEBODY and entry.state not in ENDED]
        ended = [entry for entry in entries if entry.state in ENDED and (entry.ended_at or 0.0) >= first]
        left = [entry for entry in entries if entry.state not in ENDED and entry not in resting]
        mine = [*ended, *resting]
        if as_json:
            print(json.dumps([table.plain(entry, progress(store.run(entry), entry)) for entry in mine], indent=2))
        else:
            print(summary.night(store, f"Since {clock(first, now)}", mine, left))
