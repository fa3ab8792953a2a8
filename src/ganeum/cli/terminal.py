"""Output on whatever there is: characters that its encoding lacks are replaced by ones that look alike, not died of.

A terminal of ``LC_ALL=C``, or a file that Windows writes in cp949 or cp1252, holds no ``█``, ``→`` or ``한``.
"""

from __future__ import annotations

import codecs
import inspect
import io
import os
import sys
from pathlib import Path

ALIKE = {
    **dict.fromkeys("–—─", "-"),
    **dict.fromkeys("“”‘’", "'"),
    **{"█": "#", "▓": "=", "▒": ".", "▏": "|", "×": "x", "✗": "x", "±": "~", "·": "-", "…": ".", "→": ">", "←": "<"},
}


def alike(error: UnicodeError) -> tuple[str, int]:
    """What ``codecs`` asks of an encoding's error handler: a text that it has, and where to go on."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(ALIKE.get(character, "?") for character in error.object[error.start : error.end]), error.end


def paragraphs(text: str | None) -> str | None:
    """A docstring as help: each paragraph in one line, which the terminal's width then breaks, and nothing else; None
    of none, as with ``python -OO``."""
    return text and "\n\n".join(" ".join(one.split()) for one in inspect.cleandoc(text).split("\n\n"))


def hold_everything() -> None:
    """Lets standard output and standard error take any text, and one that was closed (`>&-`) take it nowhere."""
    codecs.register_error("alike", alike)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="alike")
