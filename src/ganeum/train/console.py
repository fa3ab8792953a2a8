"""What the reader sees: a live line on a terminal, one plain line an interval elsewhere, and all of it in a file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from io import StringIO, TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, cast

from rich.console import Console as Terminal
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from ganeum import units

REFRESH_S = 0.25
BAR = 12  # characters


class Console:
    """Lines to a stream and to logs/console.log; on a terminal, the newest interval stays as a line that moves.

    Args:
        path: logs/console.log, continued if it is there.
        total: steps of the run.
        stream: where a reader looks; default standard output.
    """

    def __init__(self, path: Path, total: int, stream: TextIO | None = None) -> None:
        stream = stream or sys.stdout
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # an old code page has no ➤, and that must not end a training
        self._stream = cast(TextIO, _Reader(stream))
        self._terminal = Terminal(file=self._stream, highlight=False, soft_wrap=True)
        self._file = path.open("ab", buffering=0)  # nothing is left to be written when it is closed
        self._total, self._latest, self._refreshed = total, "", 0.0
        self._live: Live | None = None

    def __enter__(self) -> Console:
        if self._terminal.is_terminal:
            self._live = Live(console=self._terminal, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        self._file.close()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._live:
            self._terminal.print(text, markup=False, emoji=False)  # above the live line
        else:
            self._stream.write(text + "\n")
            self._stream.flush()
        self._write(text)

    def show(self, drawn: RenderableType) -> None:
        """A table and its like; the file gets it as plain text."""
        if self._live:
            self._terminal.print(drawn, soft_wrap=False)
        else:
            Terminal(file=self._stream, highlight=False, width=100).print(drawn)
        with StringIO() as text:
            Terminal(file=text, width=100).print(drawn)
            self._write(text.getvalue().rstrip("\n"))

    def interval(self, metrics: Mapping[str, Any], left_s: float | None) -> None:
        """A logged step: moves the live line, or prints a plain one."""
        self._latest = line(metrics, left_s)
        if self._live:
            self._write(f"step {metrics['step']:,}/{self._total:,}  {self._latest}")
            self.tick(metrics["step"], now=True)
        else:
            self.say(f"step {metrics['step']:,}/{self._total:,}  {self._latest}")

    def tick(self, step: int, *, now: bool = False) -> None:
        """Another step is done: four times a second the live line shows it. Costs nothing elsewhere."""
        if self._live and (now or time.monotonic() - self._refreshed > REFRESH_S):
            self._refreshed = time.monotonic()
            share = step / self._total
            bar = "━" * round(BAR * share) + "╌" * (BAR - round(BAR * share))
            text = f"step {step:,}/{self._total:,} {bar} {share:.0%}  {self._latest}"
            self._live.update(Text(text), refresh=True)

    def _write(self, text: str) -> None:
        self._file.write((text + "\n").encode("utf-8", "replace"))


class _Reader:
    """A stream whose reader may leave (`| head -1`): what he would have seen is dropped, and the training goes on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except BrokenPipeError:
            self._gone()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._gone()

    def _gone(self) -> None:
        """Nobody reads this file any more, what is left in its buffer neither: that goes out at the process's end."""
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def line(metrics: Mapping[str, Any], left_s: float | None) -> str:
    """loss, learning rate, tokens/s, MFU, memory, time left; what is not known is left out."""
    parts = [f"loss {metrics['loss']:.4f}"]
    if metrics.get("val_loss") is not None:
        parts.append(f"val {metrics['val_loss']:.4f}")
    if metrics.get("val_bpb") is not None:
        parts.append(f"{metrics['val_bpb']:.3f} bits/byte")
    parts.append(f"lr {metrics['learning_rate']:.2e}")
    parts.append(f"{metrics['tokens_per_second']:,.0f} tokens/s")
    if metrics.get("mfu") is not None:
        parts.append(f"MFU {metrics['mfu']:.1%}")
    parts.append(f"{metrics['memory_allocated_gib']:.2f} GiB")
    if left_s is not None:
        parts.append(f"{units.duration(left_s)} left")
    return "  ".join(parts)
