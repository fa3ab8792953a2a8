"""`ganeum queue wait`: until entries have ended."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.choose import Group, Json, Which

POLL_S = 1.0


def command(
    which: Which = None,
    group: Group = None,
    timeout: Annotated[str | None, typer.Option(metavar="TIME", help="Give up after so long: 30m, 8.")] = None,
    as_json: Json = False,
) -> None:
    """Wait until entries have ended, all of the list where none is named; for scripts.

    It starts nothing: `ganeum queue run` does. What is paused or held is not waited for.

    Exit status: 0 all have finished, 1 some have not, 124 where the time was over.
    """
    import json
    import sys
    import time

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose, there
    from ganeum.queue.entry import OPEN
    from ganeum.queue.progress import progress
    from ganeum.queue.when import hours

    resting = ("paused", "held", "interrupted")
    with there() as store:
        ids = [entry.id for entry in choose(store, which, group=group, states=OPEN)]
        deadline = None if timeout is None else time.monotonic() + hours(timeout, "--timeout") * 3600
        if any(store.get(id).state in OPEN for id in ids) and (said := table.nobody(store)):
            print(said, file=sys.stderr)
        while True:
            entries = [entry for entry in store.all() if entry.id in ids]
            waiting = [entry for entry in entries if entry.state in OPEN and entry.state not in resting]
            late = deadline is not None and time.monotonic() > deadline
            if not waiting or late:
                break
            time.sleep(POLL_S)
        how_far = {entry.id: progress(store.run(entry), entry) for entry in entries if entry.attempts}
        if as_json:
            print(json.dumps([table.plain(entry, how_far.get(entry.id)) for entry in entries], indent=2))
        elif entries:
            table.show(table.table(entries, how_far, store.clock()))
    if waiting:
        raise typer.Exit(124)
    if any(entry.state != "finished" for entry in entries):
        raise typer.Exit(1)
