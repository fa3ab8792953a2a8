"""The rows that texts are written for, with all columns: JSON lines, JSON, CSV, TSV, Parquet, Arrow, plain lines."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from ganeum.data.forms import bare_name, form_of, opened
from ganeum.data.rows import field, list_elements
from ganeum.errors import DataError, MissingExtra

Row = Mapping[str, Any]
STANDARD = "-"
LINE = "text"  # the column that a line of plain text becomes
USUAL = ("source", "prompt", "text", "input", "document")  # columns that are taken where none is named


class Reading:
    """Rows one after the other; ``share`` of the file has been read (None where nobody knows how long it is)."""

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STANDARD else path
        self._file = None if path == STANDARD else Path(path).expanduser()
        self._raw: BinaryIO | None = None
        self._rows = _of_standard_input() if self._file is None else self._of(self._file)

    def __iter__(self) -> Iterator[Row]:
        return self._rows

    @property
    def share(self) -> float | None:
        if self._raw is None or self._file is None or not (size := self._file.stat().st_size):
            return None
        if self._raw.closed:  # whoever reads to the end closes it
            return 1.0
        return min(1.0, self._raw.tell() / size)

    def close(self) -> None:
        """Lets go of the file."""
        self._rows.close()

    def _of(self, file: Path) -> Generator[Row]:
        """The file is open while rows are asked for, and here alone: what fails elsewhere is no error of the file."""
        form = form_of(file, LINE)
        with opened(file) as (stream, raw):
            self._raw = stream if form == "columns" else raw
            match form:
                case "table":
                    yield from _table(stream, file)
                case "columns":
                    yield from _columns(stream, file)
                case "list":
                    yield from _list(stream, file)
                case _:
                    kind = Path(bare_name(file)).suffix.lower()
                    yield from _lines(stream, str(file), form == "lines" or kind == ".json")


@contextmanager
def reading(path: str) -> Iterator[Reading]:
    """Opens a file of rows; ``-`` is standard input, JSON lines or plain ones.

    Raises:
        DataError: it is not there, or a row is broken (as they are read).
        MissingExtra: Parquet or Arrow without pyarrow (as they are read).
    """
    if path != STANDARD and not (file := Path(path).expanduser()).is_file():
        raise DataError(
            f"{path} is {'a directory' if file.is_dir() else 'not there'}",
            where=str(file.absolute()),
            suggestion="a file of rows (.jsonl, .json, .csv, .tsv, .parquet, .arrow, compressed or not), or of lines",
        )
    rows = Reading(path)
    try:
        yield rows
    finally:
        rows.close()


def column_of(row: Row, wanted: str | None, usual: Sequence[str] = ()) -> str:
    """The column that holds what is to be continued or turned into something else.

    Args:
        wanted: what the user named; None: the first there is of ``usual`` and ``USUAL``, or the only one with text.
    Raises:
        DataError: it is not there, or which one is meant cannot be told.
    """
    if wanted is not None:
        return wanted
    named = [name for name in (*usual, *USUAL) if _holds(row, name)]
    texts = [name for name, value in row.items() if isinstance(value, str)]
    if named or len(texts) == 1:
        return named[0] if named else texts[0]
    raise DataError(
        "which column the texts begin with cannot be told",
        where="the first row",
        why=f"its columns with text are {', '.join(texts)}" if texts else "it has no column with text",
        suggestion=f"--column {texts[0]}" if texts else None,
    )


def _holds(row: Row, name: str) -> bool:
    try:
        field(row, name)
    except KeyError:
        return False
    return True


def text_of(row: Row, column: str, number: int, name: str, option: str = "--column") -> str:
    """What stands in a row's column; nothing where it is null.

    Args:
        option: by which the user names the column.
    Raises:
        DataError: there is no such column, or it holds no text.
    """
    if not _holds(row, column):
        raise DataError(
            f"row {number + 1} has no column {column!r}",
            where=f"{name}, row {number + 1}",
            why=f"it has {', '.join(map(str, row)) or 'none'}",
            suggestion=f"{option} NAME, one that every row has",
        )
    value = field(row, column)
    if value is not None and not isinstance(value, str):
        raise DataError(
            f"the column {column!r} of row {number + 1} holds no text",
            where=f"{name}, row {number + 1}",
            why=f"it is {json.dumps(value, default=str)[:60]}",
            suggestion=f"another {option}",
        )
    return value or ""


def _of_standard_input() -> Generator[Row]:
    yield from _lines(sys.stdin.buffer, "standard input", None)


def _lines(stream: BinaryIO, name: str, json_lines: bool | None) -> Iterator[Row]:
    """Objects, or plain lines; None: the first line that is not empty tells which."""
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="\n")
    for number, line in enumerate(text, 1):
        bare = line.strip()
        if json_lines is None and bare:
            json_lines = bare.startswith("{")
        if not json_lines:
            yield {LINE: line.removesuffix("\n").removesuffix("\r")}
        elif bare:
            yield _object(bare, f"{name}, line {number}")


def _object(text: str, where: str) -> Row:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("a line cannot be read as a row", where=where, why=f"it is not JSON: {error}") from None
    return _is_object(row, where)


def _is_object(row: object, where: str) -> Row:
    if not isinstance(row, dict):
        raise DataError("a row has no columns", where=where, why=f"it is {json.dumps(row)[:60]}, not an object")
    return row


def _list(stream: BinaryIO, file: Path) -> Iterator[Row]:
    elements = list_elements(io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape"), file)
    for number, row in enumerate(elements, 1):
        yield _is_object(row, f"{file}, element {number}")


def _table(stream: BinaryIO, file: Path) -> Iterator[Row]:
    tab = Path(bare_name(file)).suffix.lower() == ".tsv"
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(2**27)
    reader = csv.reader(text, delimiter="\t" if tab else ",", strict=True)
    header = next(reader, [])
    if twice := [name for name in dict.fromkeys(header) if header.count(name) > 1]:
        raise DataError(
            f"{file} has {header.count(twice[0])} columns {twice[0]!r}",
            where=f"{file}, line 1",
            why="only one of them could be kept",
            suggestion="the file with a name of its own for each column",
        )
    try:
        for row in reader:
            if len(row) == len(header):
                yield dict(zip(header, row, strict=True))
            elif row:
                raise csv.Error(f"it has {len(row)} fields, and the header line {len(header)}")
    except csv.Error as error:
        raise DataError(
            "a line cannot be read as a row", where=f"{file}, line {reader.line_num}", why=str(error)
        ) from None


def _columns(stream: BinaryIO, file: Path) -> Iterator[Row]:
    if find_spec("pyarrow") is None:
        raise MissingExtra(
            f"{file} needs the package pyarrow, which is not installed", suggestion='pip install "ganeum[parquet]"'
        )
    import pyarrow as pa
    from pyarrow import ipc, parquet

    try:
        if Path(bare_name(file)).suffix.lower() == ".parquet":
            batches = parquet.ParquetFile(stream).iter_batches(256)
        else:
            try:
                batches = ipc.open_stream(stream)
            except pa.ArrowInvalid:  # the other of Arrow's two formats
                stream.seek(0)
                whole = ipc.open_file(stream)
                batches = map(whole.get_batch, range(whole.num_record_batches))
        for batch in batches:
            yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise DataError(f"{file} cannot be read", where=str(file), why=" ".join(str(error).split())) from None
