"""Rows of every form, compressed in every way, are the same documents."""

import bz2
import csv
import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import ipc, parquet

from ganeum.data.blocks import documents as documents_of
from ganeum.data.blocks import tasks
from ganeum.data.files import Source, Walk
from ganeum.data.prepare import Preparation, Prepared, prepare
from ganeum.errors import DataError, MissingExtra

ROWS = ['one\ntwo, "three"\r\n', "", None, "가늠 text " * 30, "last, but\tone", "\ufeffmark", " "] * 5


def write(path: Path, rows: list[Any], column: str = "text") -> Path:
    """The rows as each form's own library writes them, with a column before the text and one behind it."""
    table = [{"id": i, column: row, "more": [1, {"text": "not this"}]} for i, row in enumerate(rows)]
    match path.suffix:
        case ".jsonl" | ".ndjson":
            path.write_text("".join(json.dumps(row) + "\n" for row in table))
        case ".json":
            path.write_text(json.dumps(table, indent=1))
        case ".csv" | ".tsv" as ending:
            with path.open("w", newline="") as file:
                writer = csv.writer(file, delimiter="," if ending == ".csv" else "\t")
                writer.writerows([["id", column, "more"], *([i, row, "x"] for i, row in enumerate(rows))])
        case ".parquet":
            columns = pa.table({"id": range(len(rows)), column: pa.array(rows, pa.string())})
            parquet.write_table(columns, path, row_group_size=3)
        case ".arrow":
            columns = pa.table({column: pa.array(rows, pa.string())})
            with ipc.new_file(path, columns.schema) as file:
                file.write_table(columns, max_chunksize=3)
    return path


def made(path: Path, **options: Any) -> Prepared:
    return prepare(Preparation((Source(path, "train"),), path.parent / "out", tokenizer="bytes", **options))


def documents(result: Prepared, path: Path) -> list[str]:
    ids = np.fromfile(path.parent / "out" / "train.bin", "<u2")
    ends = np.flatnonzero(ids == 256)
    assert result.meta.train.documents == len(ends)
    return [bytes(some[:-1].astype(np.uint8)).decode() for some in np.split(ids, ends + 1)[:-1]]


@pytest.mark.parametrize("ending", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet", "arrow"])
def test_a_row_is_a_document(tmp_path: Path, ending: str) -> None:
    """Line breaks, quotes and Korean come through as they are; rows without text are left out and counted."""
    path = write(tmp_path / f"a.{ending}", ROWS)
    result = made(path)
    assert [row for row in ROWS if row] == documents(result, path)
    assert (35, 10, 0) == (result.meta.rows, result.meta.rows_without_text, result.meta.bad_rows)
    assert sum(len(row.encode()) for row in ROWS if row) == result.meta.train.bytes
    assert result.meta.split.held_out is None


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "zst": zstandard.compress, "bz2": bz2.compress, "xz": lzma.compress,
}  # fmt: skip


@pytest.mark.parametrize("packed", COMPRESS)
@pytest.mark.parametrize("ending", ["jsonl", "csv", "json", "txt"])
def test_compressed_files_are_read_as_what_they_hold(tmp_path: Path, ending: str, packed: str) -> None:
    """Rows and text come out of .gz, .zst, .bz2 and .xz, also of files made of several compressed parts."""
    content = b"some text\n" * 50 if ending == "txt" else write(tmp_path / f"a.{ending}", ROWS).read_bytes()
    path = tmp_path / f"b.{ending}.{packed}"
    path.write_bytes(COMPRESS[packed](content[:99]) + COMPRESS[packed](content[99:]))
    expected = [content.decode()] if ending == "txt" else [row for row in ROWS if row]
    assert expected == documents(made(path), path)


@pytest.mark.parametrize("packed", COMPRESS)
@pytest.mark.parametrize("harm", ["cut", "flipped", "other"])
def test_a_damaged_archive_is_named(tmp_path: Path, packed: str, harm: str) -> None:
    """Cut short, with a wrong byte, or something else by that name: an error with the file, never half of its text."""
    content = bytearray(COMPRESS[packed](np.random.default_rng(0).bytes(9000).hex().encode()))
    if harm == "flipped":
        content[len(content) // 2] ^= 0xFF
        content[-6:] = b"\xff" * 6  # and a wrong checksum, where the format has one
    path = tmp_path / f"a.txt.{packed}"
    path.write_bytes({"cut": content[:-20], "flipped": content, "other": b"plain text"}[harm])
    with pytest.raises(DataError, match=rf"a\.txt\.{packed} cannot be decompressed\n  where  {tmp_path}"):
        made(path)


def test_a_directory_mixes_forms(tmp_path: Path) -> None:
    """Text, rows and archives in one directory, in the order of names; a settings file in JSON is text."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.jsonl", ["one", "two"])
    (tmp_path / "in" / "b.txt").write_text("three")
    write(tmp_path / "in" / "c.parquet", ["four"])
    (tmp_path / "in" / "d.csv.gz").write_bytes(gzip.compress(write(tmp_path / "x.csv", ["five"]).read_bytes()))
    (tmp_path / "in" / "e.json").write_text('{"a": 1}\n')
    (tmp_path / "in" / "f.json").write_text('{"text": "six"}\n{"text": "seven"}\n')
    result = made(tmp_path / "in")
    assert ["one", "two", "three", "four", "five", '{"a": 1}\n', "six", "seven"] == documents(result, tmp_path / "in")


def test_as_text_reads_rows_as_they_stand(tmp_path: Path) -> None:
    """--as-text: a table is one document, every byte of it; Parquet is no text and is left out."""
    path = write(tmp_path / "a.csv", ["one", "two"])
    assert [path.read_bytes().decode()] == documents(made(path, as_text=True), path)
    write(tmp_path / "b.parquet", ["one"])
    survey = Walk([Source(tmp_path / "b.parquet")], as_text=True).survey()
    assert (0, 1) == (survey.files, survey.skipped)


@pytest.mark.parametrize("ending", ["csv", "parquet", "arrow"])
def test_a_column_that_is_there_twice(tmp_path: Path, ending: str) -> None:
    """Neither of two columns `text` is taken for the text; two of another name are in nobody's way."""
    path, names = tmp_path / f"a.{ending}", ["id", "text", "text"]
    columns = pa.table([["1"], ["one"], ["two"]], names=names)
    match ending:
        case "csv":
            path.write_text("id,text,text\n1,one,two\n")
        case "parquet":
            parquet.write_table(columns, path)
        case "arrow":
            with ipc.new_file(path, columns.schema) as file:
                file.write_table(columns)
    with pytest.raises(DataError) as error:
        made(path)
    assert str(error.value) == (
        f"DataError: {path} has 2 columns 'text'\n"
        f"  where  {path}\n"
        "  why    which of them holds the text is not for us to guess\n"
        "  try    another --column, or the file with a name of its own for each column"
    )
    assert ["1"] == documents(made(path, column="id"), path)


@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_a_column_that_is_not_text(tmp_path: Path, ending: str) -> None:
    """--as-text is not offered where a file is no text as it stands."""
    path = tmp_path / f"a.{ending}"
    columns = pa.table({"text": [3, 4]})
    if ending == "parquet":
        parquet.write_table(columns, path)
    else:
        with ipc.new_file(path, columns.schema) as file:
            file.write_table(columns)
    with pytest.raises(DataError) as error:
        made(path)
    assert str(error.value) == (
        "DataError: row 1 cannot be read as a row\n"
        f"  where  {path}, row 1\n"
        "  why    its column 'text' is a number, not text\n"
        "  try    --column NAME, or --skip-bad-rows (they are left out and counted)"
    )


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "arrow"])
def test_a_column_that_is_not_there(tmp_path: Path, ending: str) -> None:
    """The columns there are are listed, and --column takes one of them."""
    path = write(tmp_path / f"a.{ending}", ["one", "two"], column="content")
    listed = {"arrow": "'content'", "parquet": "'id', 'content'"}.get(ending, "'id', 'content', 'more'")
    with pytest.raises(DataError) as error:
        made(path)
    assert str(error.value) == (
        f"DataError: {path} has no column 'text'\n"
        f"  where  {path}\n"
        f"  why    it has the columns {listed}\n"
        f"  try    --column {'content' if ending == 'arrow' else 'id'}, say"
    )
    assert ["one", "two"] == documents(made(path, column="content"), path)


@pytest.mark.parametrize(
    ("line", "why", "column"),
    [
        ("{", "it is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)", ""),
        ("[1]", "it is a list, not an object with a column 'text'", ""),
        ('{"id": 1, "content": "x"}', "it has no column 'text', but the columns 'id', 'content'", "content"),
        ('{"text": 3, "id": 1}', "its column 'text' is a number, not text", ""),
        ('{"text": {"en": ""}, "the body": "x"}', "its column 'text' is an object, not text", "'the body'"),
    ],
)
def test_a_broken_line_is_named_or_left_out(tmp_path: Path, line: str, why: str, column: str) -> None:
    """File, line, why, what to try, a column with text among it; with --skip-bad-rows it is left out and counted."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n' + line + '\n{"text": "two"}')
    with pytest.raises(DataError) as error:
        made(path)
    hint = f"--column {column}, " if column else ""
    assert str(error.value) == (
        "DataError: line 3 cannot be read as a row\n"
        f"  where  {path}, line 3\n"
        f"  why    {why}\n"
        f"  try    {hint}--skip-bad-rows (they are left out and counted), "
        "or --as-text (the file as it stands is one text)"
    )
    result = made(path, skip_bad_rows=True)
    assert ["one", "two"] == documents(result, path)
    assert (3, 0, 1) == (result.meta.rows, result.meta.rows_without_text, result.meta.bad_rows)


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        ("id,text\n1,one\n2\n3,two\n", 3, "it has 1 field, and 'text' is number 2"),
        ('id,text\n1,one\n2,"x"y\n3,two\n', 3, "',' expected after '\"'"),
    ],
)
def test_a_broken_line_of_a_table(tmp_path: Path, content: str, line: int, why: str) -> None:
    """Too few fields, or quotes that end nowhere: named by line, or left out and counted."""
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"line {line} cannot be read as a row[\s\S]*{re.escape(why)}"):
        made(path)
    result = made(path, skip_bad_rows=True)
    assert ["one", "two"] == documents(result, path)
    assert (3, 1) == (result.meta.rows, result.meta.bad_rows)


@pytest.mark.parametrize(
    "content",
    ['[{"text": "one"}, {"text": "two"', '[{"text": "one"}, {"text": two}]', "[{,", '[{"text": "a"},' + "[" * 100_000],
)
def test_a_broken_list(tmp_path: Path, content: str) -> None:
    """A JSON list that is cut short or wrong cannot be read on: an error even where rows may be skipped."""
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"element [12] of the list cannot be read"):
        made(path, skip_bad_rows=True)


def test_a_long_list_is_read_piece_by_piece(tmp_path: Path) -> None:
    """Objects that reach across every read of 64 KiB, small and large ones."""
    rows = [f"{'가' * (7919 * i % 90_000)} {i}" for i in range(60)]
    path = write(tmp_path / "a.json", rows)
    assert rows == documents(made(path), path)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "arrow"])
def test_progress_rises_to_the_end(tmp_path: Path, ending: str) -> None:
    """Bytes of the file that were read, whatever its form: rising, several steps, never above its size, at last all."""
    path, seen = write(tmp_path / f"a.{ending}", [f"row {i} " * 200 for i in range(3000)]), list[int]()
    what = Preparation((Source(path, "train"),), tmp_path / "out", tokenizer="bytes")
    prepare(what, lambda phase, done, total: seen.append(done) if phase == "tokens" else None)
    size = path.stat().st_size
    assert sorted(seen) == seen
    assert 3 <= len(set(seen))
    assert 0.9 * size <= seen[-1] <= size


def test_a_damaged_parquet_file(tmp_path: Path) -> None:
    """Cut short, its footer is gone: an error with its name."""
    path = write(tmp_path / "a.parquet", ["one"])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"a\.parquet cannot be read\n  where .*behind row 0\n  why    Parquet magic"):
        made(path)


def test_bytes_that_are_not_utf8_in_a_row(tmp_path: Path) -> None:
    """They become U+FFFD and are counted, in lines and tables; half a surrogate pair from an escape too; or refused."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "caf\xe9"}\n{"text": "\\ud800!"}\n')
    result = made(tmp_path / "a.jsonl")
    assert ["caf\ufffd", "\ufffd\ufffd\ufffd!"] == documents(result, tmp_path / "a.jsonl")
    assert 4 == result.meta.replaced_bytes
    (tmp_path / "b.csv").write_bytes(b"text\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"byte 3 is not UTF-8: 0xe9\n  where .*b\.csv, text of row 1"):
        made(tmp_path / "b.csv", strict=True, overwrite=True)


@given(
    rows=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.none(), min_size=1),
    size=st.integers(1, 64),
)
def test_documents_do_not_depend_on_blocks(rows: list[str | None], size: int, tmp_path: Path) -> None:
    """Numbers (what the split hangs on) and texts are those of the whole file, whatever the size of a block."""
    for form in ("jsonl", "json"):
        path = write(tmp_path / f"a.{form}", rows)
        found = [
            (document.number, document.data.decode())
            for task in tasks(Walk([Source(path)]), None, size)
            for block in task
            for document in documents_of(block, None)
        ]
        assert [(number, row) for number, row in enumerate(rows) if row] == found


def test_the_same_bytes_whatever_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process or two read every form, several blocks of each, to the same train.bin and val.bin."""
    monkeypatch.setattr("ganeum.data.prepare._BYTES_WORTH_A_WORKER", 1)
    (tmp_path / "in").mkdir()
    for ending in ("jsonl", "csv", "parquet"):
        write(tmp_path / "in" / f"a.{ending}", [f"row {i} of {ending} " * 30 for i in range(2500)])
    found = []
    for workers in (1, 2):
        what = Preparation((Source(tmp_path / "in"),), tmp_path / "out", "bytes", workers=workers, overwrite=True)
        meta = prepare(what).meta
        found.append([meta] + [(tmp_path / "out" / name).read_bytes() for name in ("train.bin", "val.bin")])
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("package", "name", "message"),
    [
        ("zstandard", "a.jsonl.zst", "is compressed with zstd, and the package zstandard is not installed\n"
         '  try    pip install "ganeum[zstd]"'),
        ("pyarrow", "a.parquet", "needs the package pyarrow, which is not installed\n"
         '  try    pip install "ganeum[parquet]"'),
    ],
)  # fmt: skip
def test_a_missing_package_gives_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, name: str, message: str
) -> None:
    """Without the extra the error says how to get it."""
    (tmp_path / name).write_bytes(b"x")
    for module in ("forms", "rows"):
        monkeypatch.setattr(f"ganeum.data.{module}.find_spec", lambda asked: None if asked == package else object())
    with pytest.raises(MissingExtra) as error:
        made(tmp_path / name)
    assert str(error.value) == f"MissingExtra: {tmp_path}/{name} {message}"
