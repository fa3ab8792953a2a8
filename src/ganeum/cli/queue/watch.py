"""`ganeum queue watch`: the live view."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    interval: Annotated[float, typer.Option(min=0.2, metavar="SECONDS", help="How often to look.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON each time: all that has not ended.")] = False,
) -> None:
    """Watch the queue on the whole screen: what runs, what is next, what ended, the newest log. q ends it."""
    import sys
    from contextlib import suppress

    from rich.console import Console

    from ganeum.queue.store import default_path
    from ganeum.queue.watch import Board

    with suppress(KeyboardInterrupt):
        if as_json:
            _lines(interval, once)
        elif once or not sys.stdout.isatty():
            Console(highlight=False).print(Board(default_path(), once=True))
        else:
            _screen(interval)


def _screen(interval: float) -> None:
    """Until q or Ctrl-C; the screen is given back as it was, however this ends."""
    import signal
    import sys

    from rich.console import Console
    from rich.live import Live

    from ganeum.cli.queue.keys import keys
    from ganeum.queue.store import default_path
    from ganeum.queue.watch import Board

    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, frame: sys.exit(128 + number))
    if hasattr(signal, "SIGTSTP"):  # Ctrl-Z would leave the shell on the view's screen
        signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    board = Board(default_path(), fits=True)
    with keys() as pressed, Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live:
        while True:
            live.update(board, refresh=True)
            if "q" in pressed(interval).lower():
                return


def _lines(interval: float, once: bool) -> None:
    """All that has not ended, a line of JSON each time."""
    import json
    import time

    from ganeum.cli.queue import table
    from ganeum.cli.queue.choose import to_look
    from ganeum.queue.entry import ENDED
    from ganeum.queue.progress import progress

    while True:
        with to_look() as store:
            entries = [entry for entry in store.all() if entry.state not in ENDED]
            print(json.dumps([table.plain(e, progress(store.run(e), e)) for e in entries]), flush=True)
        if once:
            return
        time.sleep(interval)
