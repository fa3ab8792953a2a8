"""Keys while a view has the screen: read as they are pressed, not shown; the terminal is left as it was found."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

ENOUGH = 1024  # keys pressed between two looks


@contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """What waits so many seconds for keys → those pressed; `q` where there is nobody any more to press one.

    Where keys cannot be read (no terminal, another program in front of it, Windows) it only waits.
    """
    try:
        import termios
        import tty

        number = sys.stdin.fileno()
        before = termios.tcgetattr(number)
        if os.tcgetpgrp(number) != os.getpgrp():
            raise OSError("in the background: the terminal would stop it")
    except (ImportError, OSError, ValueError, AttributeError):
        yield _only_wait
        return
    except termios.error:
        yield _only_wait
        return

    def pressed(seconds: float) -> str:
        if not select.select([number], [], [], seconds)[0]:
            return ""
        return os.read(number, ENOUGH).decode(errors="replace") or "q"

    tty.setcbreak(number)
    try:
        yield pressed
    finally:
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(number, termios.TCSADRAIN, before)


def _only_wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""
