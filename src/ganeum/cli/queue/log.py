"""`ganeum queue log`: what a run prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.queue.store import Store

POLL_S = 0.5
MOST_LINES = 1_000_000


def command(
    which: Annotated[
        str | None,
        typer.Argument(metavar="[ENTRY]", help="Its id or name; the newest one that runs.", show_default=False),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=MOST_LINES, help="So many of the last lines; 0: all.")
    ] = 40,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON object a line: {line}.")] = False,
) -> None:
    """Print the log of a run: all that its process wrote, of every start."""
    import json
    from collections import deque

    from ganeum.cli.queue.choose import one, to_look
    from ganeum.errors import QueueError
    from ganeum.queue.entry import GOING

    def say(text: str) -> None:
        print(json.dumps({"line": text}) if as_json else text, flush=True)

    with to_look() as store:
        if which is None:
            going = sorted((e for e in store.all() if e.state in GOING), key=lambda entry: entry.started_at or 0.0)
            if not going:
                raise QueueError("nothing runs", suggestion="ganeum queue log 3, of the entry 3")
            entry = going[-1]
        else:
            entry = one(store, which)
        path = store.run(entry).queue_log_path
        if not path.exists() and not (follow and entry.state not in ("finished", "failed", "killed")):
            raise QueueError(f"{entry.name} has printed nothing yet: it is {entry.state}", where=str(path))
        position = 0
        if path.exists():
            with path.open("rb") as file:
                for line in deque(file, maxlen=lines or None):
                    say(line.decode(errors="replace").rstrip("\n"))
                position = file.tell()
        if follow:
            _follow(store, entry.id, position, say)


def _follow(store: Store, id: int, position: int, say: Callable[[str], None]) -> None:
    """Whole lines as they come, until the entry has ended and nothing more came."""
    import time

    from ganeum.queue import look
    from ganeum.queue.entry import ENDED

    path = store.run(store.get(id)).queue_log_path
    while True:
        with look.opened(store.path) as now:  # anew: what cannot be written here may be a picture
            ended = now.get(id).state in (*ENDED, "paused", "held")
        if path.exists():
            with path.open("rb") as file:
                file.seek(position)
                new = file.read()
            whole = new if ended else new[: new.rfind(b"\n") + 1]
            position += len(whole)
            for line in whole.splitlines():
                say(line.decode(errors="replace"))
        if ended:
            return
        time.sleep(POLL_S)
