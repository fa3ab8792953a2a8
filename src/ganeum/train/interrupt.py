"""Ctrl-C and SIGTERM: the first lets the step finish and a checkpoint be written, the second ends at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

SHOW_CURSOR = "\x1b[?25h"  # the live line hides it


class Interrupted(Exception):
    """The run was stopped from outside and its checkpoint is written.

    Attributes:
        step: updates completed, all of them in the checkpoint.
        exit_status: what a shell expects: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"interrupted at step {step:,}")
        self.step, self.exit_status = step, 128 + number


class Terminated(KeyboardInterrupt):
    """SIGTERM where there is no step to finish: raised as Ctrl-C is, so that no library takes it for an error of its
    own and goes on without what it was about to import."""


class Interrupt:
    """Listens while it is entered; ``requested`` is the signal's number once one came."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():  # Python hears signals in no other
            self._before = {number: signal.signal(number, self._hear) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        again, self.requested = self.requested is not None, number
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        if again:
            _tell(f"{SHOW_CURSOR}\n{name} again: stopped at once\n")
            os._exit(128 + number)  # nothing needs tidying: the directory is usable whenever a process ends
        _tell(f"\n{name}: finishing this step and writing a checkpoint; once more stops at once\n")


@contextmanager
def terminable() -> Iterator[None]:
    """Where there is no step to finish, SIGTERM ends at once, in order and with status 143, as Ctrl-C does anyway."""

    def hear(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield
    except BaseException as error:
        stop = stopped_by(error)
        if stop is None:
            raise
        raise (Interrupted(signal.SIGTERM, 0) if isinstance(stop, Terminated) else stop) from None
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def stopped_by(error: BaseException) -> BaseException | None:
    """The interruption that an error is, or came of: an import that is broken off leaves half a module behind, and what
    is tidied up on the way out may fail at it. None where nobody has interrupted anything."""
    while not isinstance(error, (Interrupted, KeyboardInterrupt)):
        if error.__context__ is None:
            return None
        error = error.__context__
    return error


def _tell(text: str) -> None:
    """Straight to standard error: a handler may run in the middle of a print, which cannot be entered twice."""
    with suppress(OSError):
        os.write(2, text.encode())
