"""The output: a JSON line a row in the input's order, which a later start goes on with, whenever the last one died."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from ganeum.errors import DataError, RunError
from ganeum.inference.rows import STANDARD, Row
from ganeum.record import read_json, write_json
from ganeum.record.files import finite
from ganeum.units import things


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
            RunError: it is the source, was written with other settings, or by something else; nothing is changed then.
        """
        self.name, self.into, self.kept = path, into, 0
        self._file: BinaryIO = sys.stdout.buffer
        self._old: Iterator[bytes] = iter(())
        if path == STANDARD:
            return
        place = Path(path).expanduser()
        beside = place.with_name(place.name + ".settings.json")
        if source != STANDARD and place.exists() and place.samefile(Path(source).expanduser()):
            raise RunError("the rows would be written over themselves", where=path, suggestion="another --output")
        if place.exists() and not overwrite:
            _refuse_others(place, beside, settings)
            self.kept = _cut_torn_line(place)
            self._old = _lines(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_json(beside, dict(settings))
        self._file = place.open("ab" if self.kept else "wb")

    def has(self, row: Row, number: int) -> bool:
        """Whether the row's text is there from an earlier start; asked of every row, from the first one on.

        Raises:
            DataError: the line there was written for another row.
        """
        if number >= self.kept:
            return False
        there = {name: value for name, value in json.loads(next(self._old)).items() if name != self.into}
        if encoded(there) != encoded(row):
            raise DataError(
                f"line {number + 1} of {self.name} was written for another row",
                where=f"{self.name}, line {number + 1}",
                why="the input is not the one that the output was begun with",
                suggestion="another --output, or --overwrite to begin again",
            )
        return True

    def check(self, row: Row) -> None:
        """Raises DataError where a row has the column that the text goes into."""
        if self.into in row:
            raise DataError(
                f"the rows have a column {self.into!r} already",
                why="the texts would go there",
                suggestion=f"--into {self.into}_2, or any other name",
            )

    def write(self, rows: Sequence[Row], texts: Sequence[str]) -> None:
        """Adds rows with their texts, in one go, and sees them on the disk."""
        lines = [encoded({**row, self.into: text}) + b"\n" for row, text in zip(rows, texts, strict=True)]
        self._file.write(b"".join(lines))
        self._file.flush()
        if self.name != STANDARD:
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Nothing more comes."""
        if self.name != STANDARD:
            self._file.close()


def _refuse_others(place: Path, beside: Path, settings: Mapping[str, Any]) -> None:
    again = "another --output, or --overwrite to begin again"
    try:
        before = read_json(beside)
    except (OSError, ValueError):
        raise RunError(
            f"{place} is there already, and what wrote it is not known",
            where=str(place),
            why=f"there is no {beside.name} beside it",
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
