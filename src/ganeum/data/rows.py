"""Rows as documents: the text column of JSON lines, JSON lists, CSV, TSV, Parquet, Arrow and opened datasets.

JSON lines are cut into blocks like text and parsed by the workers. The others, of which nobody can tell where a row
begins without reading all before it, are read here row by row, and travel to the workers as the text of their rows.
"""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from ganeum.data.files import TextFile
from ganeum.data.forms import bare_name, opened
from ganeum.errors import DataError, MissingExtra
from ganeum.units import things

_LONGEST_ROW = 2**27  # bytes; a quote or bracket that is never closed must not gather the rest of the file
_ROWS_AT_ONCE = 256
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Wanted(Protocol[T_co]):
    """What is wanted of every row: some columns, and what is made of their values."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        ...

    def refuse_unclear(self, path: Path, columns: Sequence[str]) -> None:
        """Raises DataError where a file's columns lack one that is wanted, or several have its name."""
        ...

    def text(self, row: object, path: Path, place: str) -> T_co:
        """Of a row that is JSON: an object, or else it is broken."""
        ...

    def fields(self, values: Sequence[object], path: Path, place: str) -> T_co:
        """Of the values in the wanted columns, in the order of ``names``."""
        ...

    def bad(self, path: Path, place: str, why: str) -> T_co:
        """Of a row that cannot be read."""
        ...


@dataclass(frozen=True)
class Column:
    """Where the text of a row is.

    Attributes:
        name: of the column.
        skip_bad: rows that are broken are left out and counted, not an error.
    """

    name: str = "text"
    skip_bad: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The one column."""
        return (self.name,)

    def text(self, row: object, path: Path, place: str) -> bytes | None:
        """UTF-8 of the row's text, empty for null; what is not Unicode as the bytes it was. None: broken, left out.

        Raises:
            DataError: broken, and ``skip_bad`` is not set.
        """
        if not isinstance(row, dict):
            return self.bad(path, place, f"it is {_kind(row)}, not an object with a column {self.name!r}")
        try:
            value = field(row, self.name)
        except KeyError:
            why = f"it has no column {self.name!r}, but {_listed(with_fields(row))}"
            return self.bad(path, place, why, column=_text_in(row))
        return self.value(value, path, place, row)

    def fields(self, values: Sequence[object], path: Path, place: str) -> bytes | None:
        """The same of a row of which only the column was read."""
        return self.value(values[0], path, place)

    def value(self, value: object, path: Path, place: str, row: dict[str, Any] | None = None) -> bytes | None:
        """The same of what stands in the column; ``row``: all of them, None where the file is no text as it stands."""
        if value is None:
            return b""
        if not isinstance(value, str):
            column = "NAME" if row is None else _text_in(row)
            why = f"its column {self.name!r} is {_kind(value)}, not text"
            return self.bad(path, place, why, column=column, as_text=row is not None)
        return utf8(value)

    def bad(self, path: Path, place: str, why: str, *, column: str = "", as_text: bool = True) -> bytes | None:
        """None for a broken row; raises DataError unless such rows are left out. ``column``: another to try."""
        if self.skip_bad:
            return None
        ways = [f"--column {column}"] if column else []
        ways += ["--skip-bad-rows (they are left out and counted)"]
        ways += ["--as-text (the file as it stands is one text)"] if as_text else []
        raise DataError(
            f"{place} cannot be read as a row",
            where=f"{path}, {place}",
            why=why,
            suggestion=", or ".join([", ".join(ways[:-1]), ways[-1]]),
        )

    def refuse_unclear(self, path: Path, columns: Sequence[str]) -> None:
        """Raises DataError where a file's columns lack the one that is wanted, or several have its name."""
        if self.name not in columns:
            raise DataError(
                f"{path} has no column {self.name!r}",
                where=str(path.absolute()),
                why=f"it has {_listed(columns)}",
                suggestion=f"--column {shlex.quote(columns[0])}, say" if columns else "a file with a header line",
            )
        if (count := columns.count(self.name)) > 1:
            raise DataError(
                f"{path} has {count} columns {self.name!r}",
                where=str(path.absolute()),
                why="which of them holds the text is not for us to guess",
                suggestion="another --column, or the file with a name of its own for each column",
            )


TEXT_COLUMN = Column()


def utf8(text: str) -> bytes:
    """UTF-8 of a text; bytes that were not UTF-8 come out as they went in, and halves of surrogate pairs as three."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a pair, from an escape in JSON
        return text.encode("utf-8", "surrogatepass")


def line_text(line: bytes, column: Wanted[T], path: Path, number: int) -> T:
    """What is wanted of one JSON line."""
    try:
        row = json.loads(line.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        return column.bad(path, f"line {number}", f"it is not JSON: {error}")
    return column.text(row, path, f"line {number}")


@contextmanager
def texts(file: TextFile, column: Wanted[T]) -> Iterator[tuple[Iterator[T], Callable[[], int]]]:
    """What is wanted of every row; and what tells how many bytes of the file have been read.

    Raises:
        DataError: the column is not there, or a row is broken.
        MissingExtra: Parquet or Arrow without pyarrow.
    """
    if file.form == "dataset":
        columns = _with_fields(file.dataset.features.arrow_schema)
        column.refuse_unclear(file.path, columns)
        outer = _outermost(column.names, file.dataset.column_names)
        only, share = file.dataset.select_columns(outer).with_format("arrow"), _Share()
        size = file.dataset.data.nbytes
        yield _of_batches(share.of(only.iter(_ROWS_AT_ONCE), only.num_rows, size), file, column), share
        return
    with opened(file.path) as (stream, raw):
        if file.form == "columns":
            share = _Share()
            yield _of_batches(_batches(file.path, stream, column, share), file, column), share
        else:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
            yield (_table if file.form == "table" else _list)(text, file.path, column), raw.tell


def _table(text: io.TextIOWrapper, path: Path, column: Wanted[T]) -> Iterator[T]:
    csv.field_size_limit(_LONGEST_ROW)
    tab = Path(bare_name(path)).suffix.lower() == ".tsv"
    reader = csv.reader(text, delimiter="\t" if tab else ",", strict=True)
    header = next(reader, [])
    if not header:
        return
    column.refuse_unclear(path, header)
    places = [header.index(name) for name in column.names]
    last = max(places, default=-1)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield column.bad(path, f"line {line}", str(error))
            continue
        if row is None:
            return
        if not row:
            continue  # a blank line
        if len(row) > last:
            yield column.fields([row[place] for place in places], path, f"line {line}")
        else:
            why = f"it has {things(len(row), 'field')}, and {header[last]!r} is number {last + 1}"
            yield column.bad(path, f"line {line}", why)


def _list(text: io.TextIOWrapper, path: Path, column: Wanted[T]) -> Iterator[T]:
    for number, row in enumerate(list_elements(text, path), 1):
        yield column.text(row, path, f"element {number}")


def list_elements(text: io.TextIOWrapper, path: Path) -> Iterator[object]:
    """The elements of a JSON list, one after the other as the file is read; raises DataError where it is none."""
    decode, buffer, number = json.JSONDecoder().raw_decode, text.read(2**16), 0
    at = len(buffer) - len(buffer.lstrip()) + 1  # behind the bracket
    while True:
        rest = buffer[at:].lstrip(" \t\r\n,")
        try:
            if rest.startswith("]"):
                return
            row, end = decode(rest)
        except (ValueError, RecursionError) as error:
            more = text.read(max(2**16, len(rest)))
            if not more or len(rest) > _LONGEST_ROW:
                raise DataError(
                    f"element {number + 1} of the list cannot be read",
                    where=f"{path}, element {number + 1}",
                    why=f"it is not JSON: {error}" if more else f"the file ends inside the list: {error}",
                    suggestion="mend the file; `ganeum prepare --as-text` takes it as it stands, as one text",
                ) from error
            buffer, at = rest + more, 0
            continue
        number += 1
        yield row
        buffer, at = rest, end


class _Share:
    """How many of a file's bytes have been read where its own place does not tell: as many as of its rows."""

    def __init__(self) -> None:
        self._read = 0.0

    def __call__(self) -> int:
        return int(self._read)

    def until(self, place: int) -> None:
        """All up to there."""
        self._read = place

    def of(self, batches: Iterable[Any], rows: int, size: int) -> Iterator[Any]:
        """The batches, counted as they pass."""
        for batch in batches:
            self._read += size * batch.num_rows / rows
            yield batch


def _batches(path: Path, stream: BinaryIO, column: Wanted[T], share: _Share) -> Iterator[Any]:
    """Arrow's batches of the wanted columns."""
    if find_spec("pyarrow") is None:
        raise MissingExtra(
            f"{path} needs the package pyarrow, which is not installed", suggestion='pip install "ganeum[parquet]"'
        )
    import pyarrow as pa
    from pyarrow import ipc, parquet

    if Path(bare_name(path)).suffix.lower() == ".parquet":
        table = parquet.ParquetFile(stream)
        column.refuse_unclear(path, _with_fields(table.schema_arrow))
        batches = table.iter_batches(_ROWS_AT_ONCE, columns=[*column.names])
        yield from share.of(batches, table.metadata.num_rows, path.stat().st_size)
        return
    try:
        batches = reader = ipc.open_stream(stream)
    except pa.ArrowInvalid:  # the other of Arrow's two formats
        stream.seek(0)
        reader = ipc.open_file(stream)
        batches = map(reader.get_batch, range(reader.num_record_batches))
    column.refuse_unclear(path, _with_fields(reader.schema))
    for batch in batches:  # their number is not written in front of a stream
        share.until(stream.tell())
        yield batch.select(_outermost(column.names, reader.schema.names))


def _of_batches(batches: Iterator[Any], file: TextFile, column: Wanted[T]) -> Iterator[T]:
    number = 0
    try:
        for batch in batches:
            for values in zip(*(_values(batch, name) for name in column.names), strict=True):
                number += 1
                yield column.fields(values, file.path, f"row {number}")
    except ValueError as error:  # pyarrow's errors are
        raise DataError(
            f"{file.path} cannot be read",
            where=f"{file.path}, behind row {number}",
            why=" ".join(str(error).split()),
            suggestion="fetch or write the file again",
        ) from error


def field(row: Mapping[str, Any], name: str) -> Any:
    """What stands under a name in a row, ``translation.en`` under ``en`` of the object under ``translation``; a column
    that is itself called so comes first.

    Raises:
        KeyError: nothing does.
    """
    if name in row or "." not in name:
        return row[name]
    outer, _, inner = name.partition(".")
    if (within := row[outer]) is None:
        return None
    if not isinstance(within, dict):
        raise KeyError(name)
    return field(within, inner)


def with_fields(row: dict[str, Any]) -> list[str]:
    """The names of a row's columns, and behind each object those of what it holds."""
    inner = {name: with_fields(value) if isinstance(value, dict) else [] for name, value in row.items()}
    return [full for name in row for full in (name, *(f"{name}.{field}" for field in inner[name]))]


def _with_fields(schema: Any) -> list[str]:
    """The same of an Arrow schema or struct."""
    from pyarrow import types

    inner = {one.name: _with_fields(one.type) if types.is_struct(one.type) else [] for one in schema}
    return [full for one in schema for full in (one.name, *(f"{one.name}.{field}" for field in inner[one.name]))]


def _outermost(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """The columns that hold these fields, each once."""
    return list(dict.fromkeys(name if name in columns else name.partition(".")[0] for name in names))


def _values(batch: Any, name: str) -> list[Any]:
    """Of one column, or one field in it, row by row."""
    (outer,) = _outermost([name], batch.schema.names)
    values = batch.column(outer).to_pylist()
    return values if outer == name else [field({outer: value}, name) for value in values]


def _text_in(row: dict[str, Any]) -> str:
    """The first column of a row that holds text, as a shell takes it; empty: none does."""
    return next((shlex.quote(name) for name, value in row.items() if isinstance(value, str)), "")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else names.get(type(value), f"of type {type(value).__name__}")


def _listed(columns: Sequence[str]) -> str:
    shown = ", ".join(map(repr, columns[:20])) + (", …" if len(columns) > 20 else "")
    return f"the columns {shown}" if columns else "no columns"
