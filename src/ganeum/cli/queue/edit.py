"""`ganeum queue edit`: another config, order or limit for an entry that waits."""

from __future__ import annotations

from typing import Annotated

import typer

from ganeum.cli.queue.choose import MOST_URGENT

CONTEXT_SETTINGS = {"ignore_unknown_options": True}


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ENTRY... [KEY=VALUE]...", help="Which, and keys to set on its config.", show_default=False
        ),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option("--priority", "-p", min=-MOST_URGENT, max=MOST_URGENT, help="The higher, the earlier."),
    ] = None,
    group: Annotated[str | None, typer.Option("--group", "-g", help="Another group; '' for none.")] = None,
    after: Annotated[
        list[str] | None, typer.Option(metavar="ENTRY", help="Start when these have finished; '' for none.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="TIME", help="Not before: 22:30, +2h, …; '' for any time.")] = None,
    max_hours: Annotated[str | None, typer.Option(metavar="TIME", help="8, 90m, 2d; '' for no limit.")] = None,
    max_retries: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Starts after something went wrong.")
    ] = None,
    reread: Annotated[bool, typer.Option("--reread", help="Freeze its config file anew, as it reads now.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the entries as JSON.")] = False,
) -> None:
    """Change entries that wait: what is trained, when, in which order, for how long at most.

    A key is set on the config as it was frozen; with --reread on its file as it
    reads now. Limits may change while a run is going, the rest may not.
    """
    import json
    from typing import Any

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import choose, named, one, there
    from ganeum.config.arguments import split_arguments
    from ganeum.errors import ConfigError, GaneumError, Several
    from ganeum.queue.enqueue import edit
    from ganeum.queue.entry import Entry
    from ganeum.queue.when import hours, moment

    which, overrides = split_arguments(words or [])
    named(which, None, False, "edit")
    with there() as store:
        limits: dict[str, Any] = {}
        if max_hours is not None:
            limits["max_hours"] = hours(max_hours) if max_hours else None
        if max_retries is not None:
            limits["max_retries"] = max_retries
        changes: dict[str, Any] = {}
        if priority is not None:
            changes["priority"] = priority
        if group is not None:
            changes["group"] = group
        if after is not None:
            changes["after"] = tuple(one(store, word).id for word in after if word)
        if at is not None:
            changes["at"] = moment(at, store.clock()) if at else None
        if not (limits or changes or overrides or reread):
            raise ConfigError(
                "nothing to change is said", where="ganeum queue edit", suggestion="max_iters=1000, --priority 1"
            )
        edited: list[Entry] = []
        errors: list[GaneumError] = []
        for entry in choose(store, which):
            try:
                edited.append(edit(store, entry, overrides, {**changes, **limits}, going=not changes, reread=reread))
            except GaneumError as error:  # one that runs by now is no reason to leave the others as they were
                errors += error.errors if isinstance(error, Several) else [error]
        if as_json:
            print(json.dumps([table.plain(entry) for entry in edited], indent=2))
        elif edited:
            table.show(table.table(edited, {}, store.clock()))
    if errors:
        raise errors[0] if len(errors) == 1 else Several(errors)
