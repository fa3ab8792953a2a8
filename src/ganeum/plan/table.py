"""A table that a person reads, a page shows and a program takes: the same rows as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rich import box
from rich.console import RenderableType
from rich.table import Table as RichTable

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
    """``rows``: mappings from the columns' keys; what is not known is not in them."""

    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Any]]
    title: str = ""

    def used(self) -> tuple[Column, ...]:
        """The columns in which anything stands."""
        return tuple(column for column in self.columns if any(row.get(column.key) is not None for row in self.rows))

    def text(self) -> RenderableType:
        """For ``rich.console.Console.print``."""
        table = RichTable(
            title=self.title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
        )
        for column in self.used():
            table.add_column(column.title, justify="left" if column.left else "right", overflow="fold")
        for row in self.rows:
            table.add_row(*(column.cell(row) for column in self.used()))
        return table

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
