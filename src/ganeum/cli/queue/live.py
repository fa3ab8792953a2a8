"""The queue in the foreground: lines that tell what happens, and on a terminal the live view below them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TextIO

STAMP = "%m-%d %H:%M:%S  "  # a night has a date


@dataclass
class Stop:
    """A wish to stop, by Ctrl-C or a signal; a second one does not wait for anything."""

    number: int | None = None
    event: threading.Event = field(default_factory=threading.Event)
    terminals: tuple[int, ...] = field(default_factory=lambda: tuple(filter(os.isatty, (1, 2))))

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        if number == getattr(signal, "SIGHUP", None):  # the terminal is gone: to write to it would be an error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in self.terminals:
                os.dup2(nowhere, stream)
        if self.event.is_set():
            raise KeyboardInterrupt
        self.number = number
        self.event.set()


@contextmanager
def stopping() -> Iterator[Stop]:
    """While open, Ctrl-C, SIGTERM and SIGHUP become a `Stop` and nothing else; what `nohup` keeps off stays off."""
    stop = Stop()
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop.ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shown(path: Path, stream: TextIO) -> Iterator[Callable[[str], None]]:
    """What takes a line to print, with the time; on a terminal the list at `path` stands below it, drawn anew each
    second."""
    if not stream.isatty():
        begin = "" if "JOURNAL_STREAM" in os.environ else STAMP  # systemd's journal has the time already
        yield lambda text: print(f"{datetime.now():{begin}}{text}" if begin else text, file=stream, flush=True)
        return
    from rich.console import Console
    from rich.live import Live

    from ganeum.queue.watch import Board

    console = Console(file=stream, highlight=False, markup=False)
    with Live(Board(path, whole=False, fits=True), console=console, refresh_per_second=0.5, transient=True):
        yield lambda text: console.print(f"{datetime.now():{STAMP}}{text}")
