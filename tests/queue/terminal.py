"""A terminal of a given size for a program that a test runs: keys are typed into it, and its screen is read."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

HOME = "\x1b[H"  # where each picture of the whole screen begins
_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """Runs `ganeum WORDS` in a terminal of its own."""

    def __init__(self, *words: str, columns: int = 80, rows: int = 24, code: str | None = None) -> None:
        self._master, self._slave = pty.openpty()
        self.size(columns, rows)
        self.settings = termios.tcgetattr(self._slave)
        command = ["-m", "ganeum"] if code is None else ["-c", code]
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, *command, *words],
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            | {"TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        )

    def size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def hang_up(self) -> None:
        """As when its window is closed, or ssh is cut off."""
        os.close(self._slave)
        os.close(self._master)

    def until(self, seen: Callable[[str], object], patience_s: float = 60.0) -> str:
        """Reads until `seen` is true of all that was written so far → that."""
        deadline = time.monotonic() + patience_s
        while not seen(self.output):
            assert time.monotonic() < deadline, self.output
            self._read(0.1)
        return self.output

    def end(self, patience_s: float = 60.0) -> tuple[int, str]:
        """Its exit status, and all that it wrote."""
        deadline = time.monotonic() + patience_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.output
            self._read(0.1)
        while self._read(0.0):
            pass
        return self.process.returncode, self.output

    def is_as_before(self) -> bool:
        """Whether what is typed is shown, line by line, as it was."""
        return termios.tcgetattr(self._slave) == self.settings

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, seconds: float) -> bool:
        if not select.select([self._master], [], [], seconds)[0]:
            return False
        self.output += os.read(self._master, 65536).decode(errors="replace")
        return True


def pictures(output: str) -> list[list[str]]:
    """The lines of each picture that was drawn on the whole screen."""
    drawn = [_CODE.sub("", part).replace("\r", "") for part in output.split(HOME)[1:]]
    return [[line.rstrip() for line in part.split("\n")] for part in drawn]
