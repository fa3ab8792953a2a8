"""The output: a JSON line a row in the input's order, which a later start goes on with, whenever the last one died."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from ganeum.errors import DataError, RunError
from ganeum.inference.rows import STANDARD, Row
from ganeum.record import read_json, write_json
from ganeum.record.directory import LOCK_PATIENCE_S
from ganeum.record.files import finite
from ganeum.units import things

OTHER_FORMS = (".csv", ".tsv", ".parquet", ".arrow", ".gz", ".bz2", ".xz", ".zst", ".zip")


def encoded(row: Row) -> bytes:
    """One line of JSON, without its end; what JSON lacks becomes null (NaN) or text (a date)."""
    row = finite(row)
    text = json.dumps(row, ensure_ascii=False, default=str)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half of a pair: only its escape is UTF-8
        return json.dumps(row, default=str).encode()


class Output:
    """Where rows go, each with its text in the column ``into``.

    Beside a file ``out.jsonl`` lies ``out.jsonl.settings.json``: what its texts were written with. Another start with
    the same settings goes on behind the last whole line; what was cut off inside a line is written again.
    """

    def __init__(
        self, path: str, into: str, settings: Mapping[str, Any], *, source: str = STANDARD, overwrite: bool = False
    ) -> None:
        """Opens or goes on with the file.

        Args:
            source: where the rows come from.
        Raises:
            RunError: its name promises another form, it is the source, was written with other settings, or by something
                else, is being written by another process, or cannot be written; nothing is changed then.
        """
        if not into.strip():
            raise RunError(
                "--into is empty", where="--into", why="the texts need a column", suggestion="--into generated"
            )
        self.name, self.into, self.kept = path, into, 0
        self._file: BinaryIO = sys.stdout.buffer
        self._old: Iterator[bytes] = iter(())
        self._lock: FileLock | None = None
        if path == STANDARD:
            return
        place = Path(path).expanduser()
        if (ending := place.suffix.lower()) in OTHER_FORMS:
            raise RunError(
                f"the output is JSON lines, and {path} would be taken for something else",
                where="--output",
                why=f"a file that ends in {ending} is read otherwise, by ganeum, too",
                suggestion=f"--output {place.with_suffix('.jsonl')}",
            )
        if not path or place.is_dir():
            raise RunError(f"--output is {'a directory' if path else 'empty'}", where=path, suggestion="a file's name")
        beside = place.with_name(place.name + ".settings.json")
        with self._told():
            if source != STANDARD and place.exists() and place.samefile(Path(source).expanduser()):
                raise RunError("the rows would be written over themselves", where=path, suggestion="another --output")
            if place.exists() and not overwrite:
                _refuse_others(place, beside, settings)
            place.parent.mkdir(parents=True, exist_ok=True)
            self._lock = _alone(place)
            if place.exists() and not overwrite:
                self.kept = _cut_torn_line(place)
                self._old = _lines(place)
            write_json(beside, dict(settings))
            self._file = place.open("ab" if self.kept else "wb")

    def has(self, row: Row, number: int) -> bool:
        """Whether the row's text is there from an earlier start; asked of every row, from the first one on.

        Raises:
            DataError: the line there was written for another row, or is none of those that are written here.
        """
        if number >= self.kept:
            return False
        try:
            there = dict(json.loads(next(self._old)))
            del there[self.into]
        except (ValueError, TypeError, KeyError):
            raise DataError(
                f"line {number + 1} of {self.name} is damaged",
                where=f"{self.name}, line {number + 1}",
                why=f"it is no JSON object with a text in {self.into!r}",
                suggestion="take away that line and all behind it: the same command writes them again; or --overwrite",
            ) from None
        if encoded(there) != encoded(row):
            raise DataError(
                f"line {number + 1} of {self.name} was written for another row",
                where=f"{self.name}, line {number + 1}",
                why="the input is not the one that the output was begun with",
                suggestion="another --output, or --overwrite to begin again",
            )
        return True

    def check(self, row: Row, number: int) -> None:
        """Raises DataError where a row has the column that the text goes into."""
        if self.into in row:
            raise DataError(
                f"row {number + 1} has a column {self.into!r} already",
                why="its text would go there",
                suggestion=f"--into {self.into}_2, or any other name",
            )

    def write(self, rows: Sequence[Row], texts: Sequence[str]) -> None:
        """Adds rows with their texts, in one go, and sees them on the disk."""
        lines = [encoded({**row, self.into: text}) + b"\n" for row, text in zip(rows, texts, strict=True)]
        if self.name == STANDARD:
            self._file.write(b"".join(lines))
            self._file.flush()
            return
        with self._told():
            self._file.write(b"".join(lines))
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Nothing more comes; another process may go on."""
        if self._lock is not None:
            try:
                with self._told():
                    self._file.close()
            finally:
                self._lock.release()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the system refuses, as an error of the output."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"{self.name} cannot be written",
                where=str(error.filename or Path(self.name).expanduser().absolute()),
                why=error.strerror,
                suggestion="another --output; or mend that, and the same command goes on",
            ) from error


def _alone(place: Path) -> FileLock:
    """Takes the file for this process; the system lets go of it when the process ends, however it ends."""
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    try:
        lock.acquire(timeout=LOCK_PATIENCE_S)
    except Timeout:
        raise RunError(
            f"{place} is being written by another process",
            where=str(place),
            why="two at once would write every row twice",
            suggestion="wait for it, stop it, or another --output",
        ) from None
    return lock


def _refuse_others(place: Path, beside: Path, settings: Mapping[str, Any]) -> None:
    again = "another --output, or --overwrite to begin again"
    try:
        before = dict(read_json(beside))
    except (OSError, ValueError, TypeError) as error:
        gone = isinstance(error, FileNotFoundError)
        raise RunError(
            f"{place} is there already, and what wrote it is not known",
            where=str(place),
            why=f"there is no {beside.name} beside it" if gone else f"{beside.name} beside it cannot be read: {error}",
            suggestion=again,
        ) from None
    now = json.loads(json.dumps(settings))
    differing = [
        f"{name}: {json.dumps(before.get(name))} there, {json.dumps(now.get(name))} here"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    if differing:
        raise RunError(
            f"{place} was written with other settings: it cannot be gone on with",
            where=str(beside),
            why="\n".join(differing),
            suggestion=again,
        )


def _cut_torn_line(place: Path) -> int:
    """Cuts off what stands behind the last end of a line → the lines there are."""
    lines = end = 0
    with place.open("rb+") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            lines, end = lines + 1, end + len(line)
        if end < place.stat().st_size:
            file.truncate(end)
    return lines


def _lines(place: Path) -> Iterator[bytes]:
    with place.open("rb") as file:
        yield from file


def kept_note(output: Output) -> str:
    """What is said where an earlier start's lines are kept."""
    return f"{things(output.kept, 'row')} of {output.name} were written before, and stay"
