"""Where the texts of an example stand in a row: two columns of a pair, or one of a single text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from ganeum.config.schema import Data
from ganeum.data.files import TextFile
from ganeum.data.forms import opened
from ganeum.data.rows import field, line_text, texts, with_fields
from ganeum.errors import DataError

Kind = Literal["pairs", "texts"]
Row = tuple[str | None, ...]  # the texts in the wanted columns, None for null


@dataclass(frozen=True)
class Fields:
    """The columns that are read of every row, as ``rows.Wanted`` says.

    Attributes:
        names: (source, target), or (text,).
        keys: what the config calls them.
    """

    names: tuple[str, ...]
    keys: tuple[str, ...]

    def text(self, row: object, path: Path, place: str) -> Row:
        """Of a row that is JSON; raises DataError where it is no object, or lacks a column."""
        if not isinstance(row, dict):
            self.bad(path, place, f"it is not an object with {_columns(self.names)}")
        values = []
        for name in self.names:
            try:
                values.append(field(row, name))
            except KeyError:
                raise _no_column(self, name, with_fields(row), f"{place} of {path}", f"{path}, {place}") from None
        return self.fields(values, path, place)

    def fields(self, values: Sequence[object], path: Path, place: str) -> Row:
        """Of values; raises DataError where one is not text."""
        for name, value in zip(self.names, values, strict=True):
            if value is not None and not isinstance(value, str):
                self.bad(path, place, f"its column {name!r} is of type {type(value).__name__}, not text")
        return tuple(value if value is None else str(value) for value in values)

    def bad(self, path: Path, place: str, why: str) -> NoReturn:
        """Raises DataError."""
        raise DataError(
            f"{place} of {path} is no example",
            where=f"{path}, {place}",
            why=why,
            suggestion="mend the row, or leave it out",
        )

    def refuse_unclear(self, path: Path, columns: Sequence[str]) -> None:
        """Raises DataError where a column is missing, or there twice."""
        for name in self.names:
            if name not in columns:
                raise _no_column(self, name, columns, str(path), str(path))
            if (count := columns.count(name)) > 1:
                raise DataError(
                    f"{path} has {count} columns {name!r}",
                    where=str(path),
                    why="which of them holds the text is not for us to guess",
                    suggestion="the file with a name of its own for each column",
                )


def fields_of(data: Data, file: TextFile, *, pairs_only: bool) -> Fields:
    """What is read of every row, as the config says and, where it leaves it open, the columns of the first file.

    Args:
        pairs_only: the model has an encoder, so a single text is nothing to it.

    Raises:
        DataError: the columns are not there, or single texts are asked of a model that learns from pairs.
    """
    pairs = Fields((data.source_column, data.target_column), ("data.source_column", "data.target_column"))
    single = Fields((data.text_column,), ("data.text_column",))
    if data.kind == "texts" and pairs_only:
        raise DataError(
            "single texts say nothing to a model with an encoder",
            where="data.kind: texts",
            why="its encoder reads a source, and its decoder learns the target of it",
            suggestion="data.kind: pairs (data.source_column, data.target_column), or a model without an encoder",
        )
    if data.kind != "auto" or pairs_only:
        return pairs if data.kind == "pairs" or pairs_only else single
    columns = columns_of(file)
    if set(pairs.names) <= set(columns):
        return pairs
    if single.names[0] in columns or not columns:
        return single
    raise DataError(
        f"{file.path} has neither {_columns(pairs.names)} nor a column {single.names[0]!r}",
        where=str(file.path),
        why=f"it has {_columns(columns)}",
        suggestion="data.source_column and data.target_column for pairs, or data.text_column for single texts",
    )


@dataclass
class _Look:
    """Wants nothing of a row but to know its columns."""

    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    def refuse_unclear(self, path: Path, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)

    def text(self, row: object, path: Path, place: str) -> None:
        self.columns = tuple(with_fields(row)) if isinstance(row, dict) else ()

    def fields(self, values: Sequence[object], path: Path, place: str) -> None:
        return None

    def bad(self, path: Path, place: str, why: str) -> None:
        return None


def columns_of(file: TextFile) -> tuple[str, ...]:
    """The columns of a file, of its first row where each has its own; none where there is no row."""
    look = _Look()
    if file.form == "lines":
        with opened(file.path) as (stream, _):
            line = next((line for line in stream if line.strip()), b"{}")
        line_text(line.removeprefix(b"\xef\xbb\xbf"), look, file.path, 1)
        return look.columns
    with texts(file, look) as (rows, _):
        next(rows, None)
    return look.columns


def _columns(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:20])) + (", …" if len(names) > 20 else "")
    return f"the columns {shown}" if names else "no columns"


def _no_column(fields: Fields, name: str, columns: Sequence[str], what: str, where: str) -> DataError:
    key = fields.keys[fields.names.index(name)]
    free = [column for column in columns if column not in fields.names]
    return DataError(
        f"{what} has no column {name!r}",
        where=where,
        why=f"it has {_columns(columns)}",
        suggestion=f"{key}={free[0]}, say" if free else "a file with that column",
    )
