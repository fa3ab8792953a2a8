"""A table that a person reads, a page shows and a program takes: the same rows as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

Format = Literal["text", "markdown", "json", "csv"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Column:
    """``key`` of a row; its ``title``; how a value is ``shown`` to people (programs get it as it is)."""

    key: str
    title: str
    shown: Callable[[Any], str] = str
    left: bool = False

    def cell(self, row: Mapping[str, Any]) -> str:
        """Empty where the row does not have it."""
        value = row.get(self.key)
        return "" if value is None else self.shown(value)


@dataclass(frozen=True)
class Table:
    """``rows``: mappings from the columns' keys; what is not known is not in them. ``groups``: keys of columns that are
    said above several rows where a terminal is too narrow for all of them. ``most``: rows that a terminal shows."""

    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""
    groups: tuple[str, ...] = ()
    most: int | None = None

    def used(self) -> tuple[Column, ...]:
        """The columns in which anything stands."""
        return tuple(column for column in self.columns if any(row.get(column.key) is not None for row in self.rows))

    def text(self) -> RenderableType:
        """For ``rich.console.Console.print``: what is the same in every row is said once, above them; what is the same
        in a group of rows, above these."""
        same = [column for column in self.used() if self._one_value(column)]
        heads = [column for column in self.used() if column.key in self.groups and column not in same]
        while heads and not self._gathered(heads):
            heads.pop()
        shown = [column for column in self.used() if column not in (*same, *heads)]
        parts: list[RenderableType] = [Text(self.title, style="bold")] if self.title else []
        if same:
            parts.append(Text(_said(same, self.rows[0]), style="dim"))
        for _, rows in groupby(self.rows[: self.most], _key(heads)):
            group = list(rows)
            if heads:
                parts.append(Text(_said(heads, group[0]), style="bold"))
            parts.append(self._text(shown, group))
        if self.most is not None and (more := len(self.rows) - self.most) > 0:
            parts.append(Text(f"and {more:,} more (--format csv lists all)"))
        return Group(*parts)

    def _text(self, columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> RichTable:
        """Some rows, their numbers as wide as all rows need them."""
        table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for index, column in enumerate(columns):
            words = [*column.title.split(), *(column.cell(row) for row in self.rows)]  # a title may wrap, a cell not
            width = None if index == 0 and not self.groups else max(map(len, words))  # but the name in front
            table.add_column(column.title, justify="left" if column.left else "right", width=width, overflow="fold")
        for row in rows:
            table.add_row(*(column.cell(row) for column in columns))
        return table

    def _gathered(self, heads: Sequence[Column]) -> bool:
        """Whether any group would have more than one row."""
        return any(len(list(rows)) > 1 for _, rows in groupby(self.rows, _key(heads)))

    def _one_value(self, column: Column) -> bool:
        """Whether several rows all have it, and the same."""
        values = [row.get(column.key) for row in self.rows]
        return len(values) > 1 and all(value == values[0] for value in values)

    def markdown(self) -> str:
        """GitHub's form."""
        columns = self.used()
        lines = [
            [column.title for column in columns],
            ["---" if column.left else "--:" for column in columns],
            *([column.cell(row).replace("|", "\\|") for column in columns] for row in self.rows),
        ]
        heading = f"**{self.title}**\n\n" if self.title else ""
        return heading + "\n".join("| " + " | ".join(cells) + " |" for cells in lines)

    def csv(self) -> str:
        """A head and the values as they are."""
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow([column.key for column in self.used()])
        writer.writerows([row.get(column.key) for column in self.used()] for row in self.rows)
        return written.getvalue().rstrip("\n")

    def json(self) -> str:
        """A list of objects."""
        return json.dumps([dict(row) for row in self.rows], indent=2, ensure_ascii=False)


def _key(columns: Sequence[Column]) -> Callable[[Mapping[str, Any]], list[Any]]:
    return lambda row: [row.get(column.key) for column in columns]


def _said(columns: Sequence[Column], row: Mapping[str, Any]) -> str:
    return "  ".join(f"{column.title} {column.cell(row)}" for column in columns)
