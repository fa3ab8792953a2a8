"""The rows that texts are written for: every form with all its columns, and what is said of broken ones."""

import csv
import gzip
import io
import json
import sys

import pyarrow as pa
import pytest
from pyarrow import ipc, parquet

from ganeum.errors import DataError
from ganeum.inference.rows import column_of, reading, text_of

ROWS = [{"id": "1", "text": "한국어, with a comma"}, {"id": "2", "text": "two\nlines"}]


def read(path) -> list[dict]:
    with reading(str(path)) as rows:
        return [dict(row) for row in rows]


def table(delimiter: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerows([["id", "text"], *(row.values() for row in ROWS)])
    return out.getvalue()


def write(path) -> None:
    """The rows in the form that the name says."""
    match path.name.split(".", 1)[1]:
        case "jsonl":
            path.write_text("\n\n".join(json.dumps(row) for row in ROWS))
        case "jsonl.gz":
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in ROWS).encode()))
        case "json":
            path.write_text(json.dumps(ROWS, indent=1))
        case "csv":
            path.write_text("\ufeff" + table(","), newline="")
        case "tsv":
            path.write_text(table("\t"), newline="")
        case "parquet":
            parquet.write_table(pa.Table.from_pylist(ROWS), path)
        case "arrow":
            rows = pa.Table.from_pylist(ROWS)
            with ipc.new_stream(str(path), rows.schema) as stream:
                stream.write_table(rows)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "csv", "tsv", "parquet", "arrow"])
def test_every_form_keeps_every_column(tmp_path, ending):
    """What Python's own writers, or Arrow's, put into a file comes out as it went in, line breaks and commas too."""
    write(tmp_path / f"rows.{ending}")
    assert ROWS == read(tmp_path / f"rows.{ending}")


def test_lines_of_text_are_rows(tmp_path):
    """A line of a text file is a row, an empty one too; Windows' ends of lines are no part of it."""
    (tmp_path / "lines.txt").write_bytes("{eins}\r\n\nüber\n".encode())
    assert [{"text": "{eins}"}, {"text": ""}, {"text": "über"}] == read(tmp_path / "lines.txt")


@pytest.mark.parametrize(
    ("given", "expected"), [('{"a": 1}\n', [{"a": 1}]), ("\n{\n", [{"text": ""}, {"a": "{"}]), ("hi", [{"text": "hi"}])]
)
def test_standard_input_is_looked_into(monkeypatch, given, expected):
    """What begins with a brace is read as JSON lines, anything else as lines of text."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    if given == "\n{\n":
        with pytest.raises(DataError, match="cannot be read as a row"):
            read("-")
    else:
        assert expected == read("-")


def test_how_much_has_been_read(tmp_path):
    """The share of the file that is read grows to all of it."""
    (tmp_path / "rows.jsonl").write_text('{"text": "abc"}\n' * 100_000)
    with reading(str(tmp_path / "rows.jsonl")) as rows:
        shares = [rows.share for _ in rows] + [rows.share]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[60_000]
    assert shares[-1] == 1.0


def test_a_list_is_read_as_rows_are_asked_for(tmp_path):
    """Of a JSON list of 20 MB whose end is missing the first row comes at once, from less than a hundredth of it."""
    (tmp_path / "rows.json").write_text("[" + '{"text": "abc"},\n' * 1_200_000)
    with reading(str(tmp_path / "rows.json")) as rows:
        assert {"text": "abc"} == next(iter(rows))
        assert 0 < rows.share < 0.01


def test_what_fails_elsewhere_is_no_error_of_the_file(tmp_path):
    """An OSError of whoever asks for the rows stays what it is."""
    (tmp_path / "rows.jsonl").write_text('{"text": "abc"}\n')

    def fail() -> None:
        with reading(str(tmp_path / "rows.jsonl")) as rows:
            next(iter(rows))
            raise PermissionError

    with pytest.raises(PermissionError):
        fail()


def test_two_columns_of_one_name_are_refused(tmp_path):
    """Only one of them could be kept."""
    (tmp_path / "rows.csv").write_text("a,text,a\n1,2,3\n")
    with pytest.raises(DataError) as error:
        read(tmp_path / "rows.csv")
    assert f"""\
DataError: {tmp_path}/rows.csv has 2 columns 'a'
  where  {tmp_path}/rows.csv, line 1
  why    only one of them could be kept
  try    the file with a name of its own for each column""" == str(error.value)


@pytest.mark.parametrize(
    ("row", "wanted", "usual", "expected"),
    [
        ({"text": "a", "question": "b"}, "question", (), "question"),
        ({"text": "a", "question": "b"}, None, ("question",), "question"),
        ({"id": 1, "text": "a", "title": "b"}, None, (), "text"),
        ({"id": 1, "title": "b"}, None, (), "title"),
    ],
)
def test_which_column_is_read(row, wanted, usual, expected):
    """The one that is named, else the run's own, else a usual one, else the only one with text."""
    assert expected == column_of(row, wanted, usual)


def test_a_column_is_not_guessed():
    """Of two columns with unusual names neither is taken."""
    with pytest.raises(DataError) as error:
        column_of({"id": 1, "title": "b", "body": "c"}, None)
    assert """\
DataError: which column the texts begin with cannot be told
  where  the first row
  why    its columns with text are title, body
  try    --column title""" == str(error.value)


def test_a_row_without_the_column():
    """The row is named by its number and shows what it has."""
    with pytest.raises(DataError) as error:
        text_of({"id": 1}, "text", 6, "in.jsonl")
    assert """\
DataError: row 7 has no column 'text'
  where  in.jsonl, row 7
  why    it has id
  try    --column NAME, one that every row has""" == str(error.value)
    with pytest.raises(DataError) as error:
        text_of({"text": [1, 2]}, "text", 6, "in.jsonl")
    assert """\
DataError: the column 'text' of row 7 holds no text
  where  in.jsonl, row 7
  why    it is [1, 2]
  try    another --column""" == str(error.value)
    assert text_of({"text": None}, "text", 6, "in.jsonl") == ""


@pytest.mark.parametrize(
    ("name", "content", "where", "why"),
    [
        (
            "a.jsonl",
            '{"a": 1}\n{"a": ?}',
            "a.jsonl, line 2",
            "it is not JSON: Expecting value: line 1 column 7 (char 6)",
        ),
        ("a.jsonl", "[1]", "a.jsonl, line 1", "it is [1], not an object"),
        ("a.csv", "a,b\n1\n", "a.csv, line 2", "it has 1 fields, and the header line 2"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path, monkeypatch, name, content, where, why):
    """What cannot be read is told with the file, the line and the reason."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as error:
        read(name)
    assert (where, why) == (error.value.where, error.value.why)


def test_a_row_of_brackets_alone(tmp_path, monkeypatch):
    """What is nested too deep for Python to follow is a broken row, no traceback."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"a": ' + "[" * 100_000)
    with pytest.raises(DataError, match="a line cannot be read as a row"):
        read("a.jsonl")


def test_a_file_that_is_not_there(tmp_path):
    """The path and what may stand there."""
    with pytest.raises(DataError) as error:
        read(tmp_path / "no.jsonl")
    assert f"""\
DataError: {tmp_path}/no.jsonl is not there
  where  {tmp_path}/no.jsonl
  try    a file of rows (.jsonl, .json, .csv, .tsv, .parquet, .arrow, compressed or not), or of lines""" == str(
        error.value
    )
