"""Signals as a terminal would have them, however the tests were started."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Under `nohup` hangups are ignored, and in the background Ctrl-C: by every process that a test starts, too."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
