"""`ganeum queue list`: how the queue stands."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.choose import Group, Json, Which

ENDED_SHOWN = 20
EMPTY = "the queue is empty: `ganeum queue add CONFIG` fills it"


def command(
    which: Which = None,
    group: Group = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only those in this state: failed, queued, …")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help=f"Also what has ended long ago, and not the last {ENDED_SHOWN} alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show what runs, what is next, what is done, and what went wrong.

    In the order in which they start; what has ended stands first. A failed run
    shows the end of its error; `ganeum queue show` has all of it.
    """
    import json
    import time

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose
    from ganeum.errors import ConfigError
    from ganeum.queue import look, mirror
    from ganeum.queue.entry import ENDED, STATES
    from ganeum.queue.progress import progress
    from ganeum.queue.store import default_path

    if wrong := sorted(set(state or ()) - set(STATES)):
        raise ConfigError(f"{wrong[0]} is no state", where="--state", suggestion=", ".join(STATES))
    if not mirror.is_there(default_path()):  # to look makes no list
        print("[]" if as_json else EMPTY)
        return
    with look.opened(default_path()) as store:
        chosen = choose(store, which, group=group, states=state)
        if state:
            chosen = [entry for entry in chosen if entry.state in state]
        ended = sorted((e for e in chosen if e.state in ENDED), key=lambda entry: (entry.ended_at or 0.0, entry.id))
        others = [entry for entry in chosen if entry.state not in ENDED]
        others.sort(key=lambda entry: entry.state not in ("running", "starting"))
        left_out = 0 if everything or which or state else max(0, len(ended) - ENDED_SHOWN)
        shown = [*ended[left_out:], *others]
        how_far = {entry.id: progress(store.run(entry), entry) for entry in shown if entry.attempts}
        if as_json:
            print(json.dumps([table.plain(entry, how_far.get(entry.id)) for entry in shown], indent=2))
            return
        if not chosen:
            print("nothing is so" if which or group or state else EMPTY)
            return
        table.show(table.table(shown, how_far, time.time()))
        print()
        if left_out:
            print(f"{left_out:,} that ended earlier are not shown: --all")
        print(table.counted(chosen))
        if any(entry.state in ("queued", "running", "starting") for entry in others) and (said := table.nobody(store)):
            print(said)
