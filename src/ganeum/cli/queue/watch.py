"""`ganeum queue watch`: the live view."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    interval: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="How often to look.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON each time: all that has not ended.")] = False,
) -> None:
    """Watch the queue on the whole screen: what runs, what is next, what ended, the newest log. Ctrl-C ends it."""
    import json
    import sys
    import time
    from contextlib import suppress

    from rich.console import Console
    from rich.live import Live

    from ganeum.cli.queue import table
    from ganeum.queue.entry import ENDED
    from ganeum.queue.progress import progress
    from ganeum.queue.store import Store, default_path
    from ganeum.queue.watch import Board

    board = Board(default_path())
    with suppress(KeyboardInterrupt):
        while as_json:
            with Store.default() as store:
                entries = [entry for entry in store.all() if entry.state not in ENDED]
                print(json.dumps([table.plain(e, progress(store.run(e), e)) for e in entries]), flush=True)
            if once:
                return
            time.sleep(interval)
        console = Console(highlight=False)
        if once or not sys.stdout.isatty():
            console.print(board)
            return
        with Live(board, console=console, screen=True, refresh_per_second=1 / interval):
            while True:
                time.sleep(3600)
