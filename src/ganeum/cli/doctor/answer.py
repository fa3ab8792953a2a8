"""What the doctor's commands share: texts from a file or standard input, and how an answer is printed."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ganeum.doctor.finding import Report

MOST_BYTES = 200_000_000  # of a text that somebody pasted


def text_of(name: str) -> str:
    """The text of a file, or of standard input for ``-``; signs that are no UTF-8 are replaced.

    Raises:
        DataError: there is no such file, it cannot be read, or it is too large to be a log.
    """
    from ganeum.errors import DataError

    if name == "-":
        return _decoded(sys.stdin.buffer.read())
    path = Path(name)
    try:
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise DataError(
                f"it is too large to be read at once: {path.stat().st_size / 1e6:,.0f} MB",
                where=name,
                suggestion=f"its end: `tail -n 100000 {name} | ganeum doctor … -`",
            )
        return _decoded(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"it cannot be read: {error.strerror}", where=name, suggestion="a file, or - for standard input"
        ) from None


def _decoded(content: bytes) -> str:
    """Windows' shells write UTF-16."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    return content.decode("utf-8-sig", "replace")


def amount(option: str, text: str | None) -> int | None:
    """A count as people type it, ``1.5B``.

    Raises:
        ConfigError: it is none.
    """
    from ganeum import units
    from ganeum.errors import ConfigError

    try:
        return None if text is None else max(1, round(units.amount(text)))
    except ValueError:
        raise ConfigError(
            f"{option} must be a number above 0, but it is {text!r}",
            where=f"the command line: {option} {text}",
            suggestion=f"{option} 130520, or {option} 1.5B",
        ) from None


def can_be_written(file: Path | None, option: str) -> None:
    """Asked before minutes of measuring, not behind them.

    Raises:
        DataError: there is no such directory, nothing can be made in it, or the file is one itself.
    """
    from ganeum.errors import DataError

    if file is None:
        return
    parent = file.absolute().parent
    if file.is_dir():
        why = "it is a directory"
    elif not parent.is_dir():
        why = f"there is no directory {parent}"
    elif not os.access(parent, os.W_OK | os.X_OK):
        why = f"nothing can be made in {parent}"
    else:
        return
    raise DataError("it cannot be written", where=f"{option} {file}", why=why, suggestion="another place")


def show(report: Report, as_json: bool, out: Path | None) -> None:
    """Prints it, and writes ``doctor.json`` where that is asked for.

    Raises:
        DataError: it cannot be written; what was found has been printed.
    """
    from ganeum.errors import DataError
    from ganeum.record.files import write_atomic

    try:
        print(report.json() if as_json else report.text(), flush=True)
    finally:  # also where nobody reads on, as behind `| head`
        if out is not None:
            try:
                write_atomic(out, report.json() + "\n")
            except OSError as error:
                raise DataError(f"the findings cannot be written: {error.strerror}", where=str(out)) from None
