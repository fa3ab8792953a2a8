"""Examples that cannot be had, or not by this model: each error says what, where, why and what to try."""

import json
from pathlib import Path

import pytest
from made_pairs import error, gpt2, lines, opened, pairs, t5

from ganeum.data.examples.sources import files_of
from ganeum.errors import DataError, MissingExtra


def test_errors_of_files(tmp_path: Path) -> None:
    """What is not there, holds no rows, or lacks the columns is said with a way out."""
    model = gpt2(tmp_path / "m")
    assert error(model, "nothing.jsonl") == (
        f"DataError: nothing.jsonl does not exist\n  where  {Path.cwd() / 'nothing.jsonl'}\n"
        "  try    data.train: a file of examples, a directory of them, or a data set's name"
    )
    (tmp_path / "a.txt").write_text("text")
    assert error(model, str(tmp_path / "a.txt")) == (
        f"DataError: {tmp_path}/a.txt holds no rows\n  where  {tmp_path}/a.txt\n"
        "  why    examples are rows, in files that end in .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, "
        "compressed or not\n"
        '  try    a JSON line for each example, {"text": "…"} or {"source": "…", "target": "…"}'
    )
    (tmp_path / "d").mkdir()
    assert error(model, str(tmp_path / "d")) == (
        f"DataError: there are no examples in {tmp_path}/d\n  where  data.train\n"
        "  why    no file there ends in .jsonl, .ndjson, .json, .csv, .tsv, .parquet, .arrow, compressed or not, "
        "and holds text\n"
        "  try    files of rows"
    )
    (tmp_path / "b.jsonl").write_bytes(bytes(range(256)) * 64)
    assert error(model, str(tmp_path / "b.jsonl")) == (
        f"DataError: there are no examples in {tmp_path}/b.jsonl\n  where  data.train\n"
        "  why    it is no text: it holds bytes that no text has\n"
        "  try    another file of rows, or this one from where it came"
    )
    file = lines(tmp_path / "a.jsonl", [{"article": "a", "summary": "s"}] * 2)
    assert error(model, file) == (
        f"DataError: {file} has neither the columns 'source', 'target' nor a column 'text'\n  where  {file}\n"
        "  why    it has the columns 'article', 'summary'\n"
        "  try    data.source_column and data.target_column for pairs, or data.text_column for single texts"
    )
    assert error(model, file, source_column="article", kind="pairs") == (
        f"DataError: line 1 of {file} has no column 'target'\n  where  {file}, line 1\n"
        "  why    it has the columns 'article', 'summary'\n  try    data.target_column=summary, say"
    )
    table = tmp_path / "a.csv"
    table.write_text("id,source,more,target\n0,a,x,b\n")
    assert error(model, str(table), kind="texts") == (
        f"DataError: {table} has no column 'text'\n  where  {table}\n"
        "  why    it has the columns 'id', 'source', 'more', 'target'\n  try    data.text_column=id, say"
    )


def test_a_recipe_beside_the_missing_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "prepare.py").touch()
    with pytest.raises(DataError) as told:
        files_of("mine/data/train.jsonl", "train")
    assert told.value.suggestion == f"python {Path('mine/prepare.py')}"


def test_errors_of_rows(tmp_path: Path) -> None:
    """A row that is not JSON, and a value that is not text, are named by file and line."""
    model = gpt2(tmp_path / "m")
    (tmp_path / "a.jsonl").write_text('{"source": "a", "target": "b"}\n{"source": "a", "target\n')
    assert error(model, str(tmp_path / "a.jsonl")).startswith(
        f"DataError: line 2 of {tmp_path}/a.jsonl is no example\n  where  {tmp_path}/a.jsonl, line 2\n"
        "  why    it is not JSON: Unterminated string"
    )
    file = lines(tmp_path / "b.jsonl", [{"source": "a", "target": 3}])
    assert error(model, file) == (
        f"DataError: line 1 of {file} is no example\n  where  {file}, line 1\n"
        "  why    its column 'target' is of type int, not text\n  try    mend the row, or leave it out"
    )
    file = lines(tmp_path / "c.jsonl", [{"source": "", "target": None}] * 3)
    assert error(model, file) == (
        f"DataError: there are no examples in {file}\n"
        "  why    of 3 rows, 3 have a text that is null or empty, and 0 only one token\n"
        "  try    other columns (data.source_column, data.target_column, data.text_column), or other files"
    )


def test_a_row_longer_than_the_positions_is_refused(tmp_path: Path) -> None:
    """GPT-2 has as many positions as its config says; T5's are relative, and without an end."""
    model, file = (
        gpt2(tmp_path / "m"),
        lines(tmp_path / "a.jsonl", [{"source": "x" * 1000, "target": f"{i}" * 90} for i in (1, 2)]),
    )
    assert error(model, file, max_length=2000, val=file) == (
        f"DataError: an example takes 1,090 places, and {model} knows 1,024 positions\n"
        "  where  data.max_length and data.max_target_length\n"
        "  why    a pair is one row, its target behind its source\n  try    both together at most 1,024"
    )
    fits = opened(model, file, max_length=1000, max_target_length=24, val=file, batching="fixed")
    assert (0, 1024) == fits.layout.largest
    file = lines(tmp_path / "b.jsonl", [{"source": "gauge " * 1500, "target": "x"}])
    assert 1500 < opened(t5(tmp_path / "t5"), file, max_length=2000, val=file).layout.largest[0]


def test_errors_of_models(tmp_path: Path) -> None:
    """A model or tokenizer that is not there or of another model, and texts for an encoder, are refused."""
    file = lines(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two"}])
    (tmp_path / "no").mkdir()
    assert error(str(tmp_path / "no"), file).startswith(
        f"DataError: the config of the model {tmp_path}/no cannot be had\n  where  model.source: {tmp_path}/no\n"
    )
    model = t5(tmp_path / "t5")
    assert error(model, file, kind="texts") == (
        "DataError: single texts say nothing to a model with an encoder\n  where  data.kind: texts\n"
        "  why    its encoder reads a source, and its decoder learns the target of it\n"
        "  try    data.kind: pairs (data.source_column, data.target_column), or a model without an encoder"
    )
    rows = lines(tmp_path / "b.jsonl", pairs(9))
    other = t5(tmp_path / "small")
    settings = json.loads((tmp_path / "small" / "config.json").read_text())
    (tmp_path / "small" / "config.json").write_text(json.dumps(settings | {"vocab_size": 3}))
    assert error(other, rows, tokenizer=model).endswith(
        f"is beyond the model's vocabulary of 3\n  where  the tokenizer {model}\n"
        "  why    it is the tokenizer of another model\n"
        "  try    data.tokenizer: the one that belongs to model.source"
    )
    assert error(model, rows, max_target_length=1) == (
        "DataError: data.max_target_length: 1 leaves no room for a text\n  where  data.max_target_length\n"
        "  why    the tokenizer sets 1 token around every text\n  try    data.max_target_length: 128, say"
    )
    (tmp_path / "t5" / "tokenizer.json").unlink()
    assert error(model, rows).startswith(
        f"DataError: the tokenizer {model} cannot be had\n  where  model.source\n  why "
    )


@pytest.mark.parametrize(
    ("package", "train", "extra"), [("transformers", "a.jsonl", "hf"), ("datasets", "owner/name", "datasets")]
)
def test_a_missing_package_gives_the_pip_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, train: str, extra: str
) -> None:
    """Without the extra the error says how to get it."""
    model = gpt2(tmp_path / "m")
    lines(tmp_path / "a.jsonl", pairs(6))
    monkeypatch.chdir(tmp_path)
    for module in ("data.hub", "data.examples.model"):
        monkeypatch.setattr(f"ganeum.{module}.find_spec", lambda asked: None if asked == package else object())
    with pytest.raises(MissingExtra) as raised:
        opened(model, train)
    asked = "data.train=owner/name" if package == "datasets" else f"model.source={model}"
    assert str(raised.value) == (
        f"MissingExtra: {asked} needs the package {package}, which is not installed\n"
        f'  try    pip install "ganeum[{extra}]"'
    )


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", ""), ("a.jsonl", "\n \n"), ("a.json", "[]\n")])
def test_a_file_without_rows(tmp_path: Path, name: str, content: str) -> None:
    """The error speaks of rows that are not there, not of columns."""
    (file := tmp_path / name).write_text(content)
    assert error(t5(tmp_path / "m"), str(file)) == (
        f"DataError: there are no rows in {file}\n"
        "  why    nothing stands in what is read, or only blank lines, or a list of nothing: []\n"
        '  try    a JSON line for each example, {"text": "…"} or {"source": "…", "target": "…"}, say'
    )
