"""`ganeum queue rebuild`: the list anew, from what lies beside the runs."""

from __future__ import annotations

from typing import Annotated

import typer


def command(as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False) -> None:
    """Put a damaged list aside and make it again from the run directories.

    Every entry is mirrored beside its run, so none is lost. No queue process may
    work on the list meanwhile.
    """
    import json

    from ganeum import units
    from ganeum.errors import QueueError
    from ganeum.queue.store import default_path, rebuild

    path = default_path()
    if not path.exists():
        raise QueueError(
            "there is no list to put aside", where=str(path), suggestion="it is made by itself when needed"
        )
    aside, found = rebuild(path)
    if as_json:
        print(json.dumps({"aside": str(aside), "entries": found}))
    else:
        entries = units.things(found, "entry").replace("entrys", "entries")
        print(f"{entries} found beside their runs; the old list is {aside}")
