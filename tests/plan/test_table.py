"""The same rows as text, Markdown, JSON and CSV."""

from __future__ import annotations

import csv
import io
import json

from rich.console import Console

from ganeum.plan.page.table import Column, Table

COLUMNS = (
    Column("card", "card", left=True),
    Column("gib", "GiB", "{:.1f}".format),
    Column("pace", "tokens a second", "{:,.0f}".format),
    Column("price", "price"),
)
ROWS = [{"card": "A | B", "gib": 8, "pace": 12345.6}, {"card": "C", "gib": 8}]


def lines(table: Table, width: int = 80) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table.text())
    return [line.rstrip() for line in console.export_text().splitlines() if line.strip()]


def test_a_value_is_shown_to_people_and_given_to_programs_as_it_is() -> None:
    """12345.6 is 12,346 in text and Markdown, and 12345.6 in CSV and JSON; what is not known is empty or not there."""
    table = Table(COLUMNS, ROWS, "Cards")
    assert table.markdown() == (
        "**Cards**\n\n| card | GiB | tokens a second |\n| --- | --: | --: |\n| A \\| B | 8.0 | 12,346 |\n| C | 8.0 |  |"
    )
    assert list(csv.reader(io.StringIO(table.csv()))) == [
        ["card", "gib", "pace"],
        ["A | B", "8", "12345.6"],
        ["C", "8", ""],
    ]
    assert json.loads(table.json()) == ROWS


def test_what_is_the_same_everywhere_is_said_once() -> None:
    """A column with one value is a line above the rows, and a column with none is not there."""
    first, second, *rest = lines(Table(COLUMNS, ROWS, "Cards"))
    assert (first, second) == ("Cards", "GiB 8.0")
    assert not any("8.0" in line or "price" in line for line in rest)


def test_a_terminal_shows_no_more_rows_than_it_should() -> None:
    """Of 23 rows 20 are shown, and it is said where the others are; a program gets all."""
    table = Table(COLUMNS, [{"card": f"card {row}", "pace": row} for row in range(23)], most=20)
    text = lines(table)
    assert ("card 19" in text[-2], text[-1]) == (True, "and 3 more (--format csv lists all)")
    assert len(table.csv().splitlines()) == 24
    assert "more" not in " ".join(lines(Table(COLUMNS, table.rows, most=23)))


def test_groups_are_said_above_their_rows() -> None:
    """Columns that head a group stand above it, once."""
    rows = [{"card": card, "gib": gib, "pace": pace} for card in "AB" for gib, pace in ((1, 10), (2, 20))]
    text = lines(Table(COLUMNS, rows, groups=("card",)))
    assert ["card A", "card B"] == [line for line in text if line.startswith("card")]


def test_a_group_of_one_row_is_no_group() -> None:
    """Two columns that would head one row each head none; the first of them alone, where it gathers rows."""
    rows = [{"card": card, "gib": gib, "pace": gib * len(card)} for card in ("A", "BB") for gib in (1, 2)]
    text = lines(Table(COLUMNS, rows, groups=("card", "gib")))
    assert ["card A", "card BB"] == [line for line in text if line.startswith("card")]
    assert not any("GiB 1.0" in line for line in text)
    text = lines(Table(COLUMNS, rows[::2], groups=("card",)))
    assert not any(line.startswith("card A") for line in text)


def test_numbers_are_never_cut() -> None:
    """However narrow the terminal, a number stands whole; names are folded instead."""
    rows = [{"card": "a card with a long name " * 4, "gib": size, "pace": 1e6 * size} for size in (1.5, 2.5)]
    text = lines(Table(COLUMNS, rows), width=40)
    assert max(map(len, text)) <= 40
    assert any("1,500,000" in line for line in text)


def test_only_the_name_in_front_is_folded() -> None:
    """A word of another column stays one, however narrow it gets."""
    columns = (Column("name", "name", left=True), Column("way", "way", left=True))
    rows = [{"name": "two words", "way": "selective"}, {"name": "another", "way": "none"}]
    shown = lines(Table(columns, rows), width=20)
    assert sum("selective" in line for line in shown) == 1
    assert max(map(len, shown)) <= 20


def test_one_row_is_a_row() -> None:
    """With a single row nothing is taken out of the table: there is nothing to repeat."""
    assert lines(Table(COLUMNS, ROWS[:1]))[-1].split() == ["A", "|", "B", "8.0", "12,346"]
