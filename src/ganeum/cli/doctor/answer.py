"""What the doctor's commands share: texts from a file or standard input, and how an answer is printed."""

from __future__ import annotations

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


def show(report: Report, as_json: bool, out: Path | None) -> None:
    """Prints it, and writes ``doctor.json`` where that is asked for.

    Raises:
        DataError: it cannot be written.
    """
    from ganeum.errors import DataError
    from ganeum.record.files import write_atomic

    if out is not None:
        try:
            write_atomic(out, report.json() + "\n")
        except OSError as error:
            raise DataError(f"the findings cannot be written: {error.strerror}", where=str(out)) from None
    print(report.json() if as_json else report.text())
