"""Examples as a user names them: which files are read, what an example is, what is left out, and what is said of it."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from made_pairs import config, error, gpt2, lines, opened, pairs, t5
from pyarrow import parquet

from ganeum.data.examples.examples import Examples, open_examples
from ganeum.data.examples.known import known

ROWS = [{"source": 'one "two",\nthree', "target": "1 2"}, {"source": "가늠 토큰", "target": "the gauge"}] * 3


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """The rows as each form's own library writes them, with a column before and between."""
    rows = [{"id": str(i), "source": row["source"], "more": "x", "target": row["target"]} for i, row in enumerate(rows)]
    match path.name.partition(".")[2]:
        case "jsonl" | "ndjson":
            lines(path, rows)
        case "jsonl.gz":
            path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
        case "json":
            path.write_text(json.dumps(rows, indent=1))
        case "csv" | "tsv" as form:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, rows[0], delimiter="," if form == "csv" else "\t")
                writer.writeheader()
                writer.writerows(rows)
        case "parquet":
            parquet.write_table(pa.Table.from_pylist(rows), path)
        case "arrow":
            table = pa.Table.from_pylist(rows)
            with pa.ipc.new_stream(path, table.schema) as file:
                file.write_table(table)
    return str(path)


def told(examples: Examples) -> list[tuple[str, str]]:
    """Every example's texts, in the order of the rows."""
    store = examples.train.store
    decode = examples.tokenizer.decode
    return [(decode(store.ids("source", i)), decode(store.ids("target", i))) for i in range(len(store))]


@pytest.mark.parametrize("form", ["jsonl", "ndjson", "jsonl.gz", "json", "csv", "tsv", "parquet", "arrow"])
def test_pairs_are_read_from_every_form(tmp_path: Path, form: str) -> None:
    """Two columns of any form of rows are sources and targets, line breaks, quotes and Korean as they were."""
    found = told(opened(gpt2(tmp_path / "m"), write(tmp_path / f"rows.{form}", ROWS), val_share=0.5))
    assert [(row["source"], row["target"]) for row in ROWS] == found


def test_files_of_a_list_come_one_after_the_other(tmp_path: Path) -> None:
    """data.train may be several files of any forms; a directory is its files with rows, in the order of their names."""
    model = gpt2(tmp_path / "m")
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "b.csv", ROWS[1:2])
    write(tmp_path / "d" / "a.jsonl", ROWS[:1])
    (tmp_path / "d" / "README.md").write_text("what this is")
    both = [write(tmp_path / "c.parquet", ROWS[1:2]), str(tmp_path / "d")]
    assert [ROWS[i]["target"] for i in (1, 0, 1)] == [target for _, target in told(opened(model, both, val_share=0.5))]


def test_data_sets_that_were_saved_are_read(tmp_path: Path) -> None:
    """Of a DatasetDict on the disk, train is trained on and validation is validated on."""
    import datasets

    parts = {"train": ROWS[:2], "validation": [{"source": "held", "target": "out"}]}
    datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()}).save_to_disk(
        str(tmp_path / "saved")
    )
    examples = opened(gpt2(tmp_path / "m"), str(tmp_path / "saved"), val=str(tmp_path / "saved"))
    assert (2, 1) == (len(examples.train), len(examples.val))
    assert [("held", "out")] == [(one.source, one.target) for one in examples.references(9)]


def test_a_data_set_by_its_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NAME:CONFIG[SPLIT] is what ``datasets`` is asked for; its rows are pairs like others."""
    import datasets

    asked = []

    def load_dataset(*arguments: object, split: str) -> Any:
        asked.append((*arguments, split))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr("ganeum.hardware.hub.silent", lambda: False)
    examples = opened(gpt2(tmp_path / "m"), "owner/name:korean[train[:10%]]", val="owner/name:korean")
    assert [("owner/name", "korean", "train[:10%]"), ("owner/name", "korean", "validation")] == asked
    assert [row["target"] for row in ROWS] == [target for _, target in told(examples)]


def test_columns_have_any_name(tmp_path: Path) -> None:
    """source_column and target_column name them, text_column that of single texts."""
    model = gpt2(tmp_path / "m")
    file = lines(tmp_path / "rows.jsonl", [{"article": f"long {i}", "summary": "short"} for i in range(4)])
    assert ("long 0", "short") == told(opened(model, file, source_column="article", target_column="summary"))[0]
    assert ("", "long 0") == told(opened(model, file, kind="texts", text_column="article"))[0]


def test_what_an_example_is_hangs_on_its_columns(tmp_path: Path) -> None:
    """kind: auto takes pairs where both columns are there, else single texts."""
    model = gpt2(tmp_path / "m")
    assert "pairs" == opened(model, lines(tmp_path / "a.jsonl", ROWS), val_share=0.5).kind
    assert "texts" == opened(model, lines(tmp_path / "b.jsonl", [{"text": "one"}, {"text": "two"}])).kind


def test_rows_without_text_are_left_out_and_counted(tmp_path: Path) -> None:
    """Null, empty and white space in either column make no example; the reader is told how many."""
    bad = [{"source": s, "target": t} for s, t in [(None, "x"), ("x", None), ("", "x"), ("x", ""), (" \n", "x")]]
    said: list[str] = []
    run = config(gpt2(tmp_path / "m"), lines(tmp_path / "rows.jsonl", bad + pairs(5)))
    examples = open_examples(run, said.append)
    assert 5 == len(examples.train) + len(examples.val)
    assert "5 rows of 10 left out: a text is null or empty" in said
    assert 5 == examples.describe(run)["left_out"]


def test_what_was_cut_is_told(tmp_path: Path) -> None:
    """How many texts were longer than max_length, how long the longest was, and how many tokens it cost."""
    rows = [{"source": "x" * n, "target": "y"} for n in (4, 10, 20, 30)]  # one token a byte
    said: list[str] = []
    run = config(gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", rows), max_length=10, val_share=0.5)
    examples = open_examples(run, said.append)
    assert "sources: half up to 10 tokens, 9 of 10 up to 30, 99 of 100 up to 30, the longest 30" in said
    assert "sources: 2 (50.0%) were cut to 10 tokens (data.max_length), which lost 46.9% of all" in said  # 30 of 64
    sources = examples.describe(run)["texts"]["sources"]
    assert (10, 2, 30, 34, 30) == tuple(sources[name] for name in ("limit", "cut", "longest", "tokens", "lost"))
    assert {"50": 10, "90": 30, "99": 30} == sources["percentiles"]


def test_bytes_that_are_not_utf8_are_replaced_and_told(tmp_path: Path) -> None:
    """A broken byte in a table becomes U+FFFD, in a row that is otherwise kept."""
    (tmp_path / "a.csv").write_bytes(b"source,target\nna\xefve,1\nplain,2\n")
    said: list[str] = []
    examples = open_examples(config(gpt2(tmp_path / "m"), str(tmp_path / "a.csv")), said.append)
    assert [("na\N{REPLACEMENT CHARACTER}ve", "1"), ("plain", "2")] == told(examples)
    assert "1 example had bytes that are not UTF-8, which became U+FFFD" in said


def test_the_split_is_the_same_whatever_the_order(tmp_path: Path) -> None:
    """Which are held out hangs on their sources and the seed, not on the rows before them; another seed, others."""
    model, rows = gpt2(tmp_path / "m"), pairs(200)
    first = opened(model, lines(tmp_path / "a.jsonl", rows), val_share=0.1)
    again = opened(model, lines(tmp_path / "b.jsonl", pairs(7, seed=9) + rows[::-1]), val_share=0.1)
    other = opened(model, lines(tmp_path / "a.jsonl", rows), val_share=0.1, split_seed=1)
    held = [{one.source for one in some.references(1000)} for some in (first, again, other)]
    assert held[0] <= held[1]
    assert held[0] != held[2]
    assert 8 <= len(held[0]) <= 32  # 20 expected, standard deviation 4.2


def test_equal_sources_lie_on_one_side(tmp_path: Path) -> None:
    """Rows that repeat a source are never in both parts, so nothing held out was trained on; they are told."""
    rows = [{"source": f"s{i % 20}", "target": f"t{i}"} for i in range(200)]
    said: list[str] = []
    run = config(gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", rows), val_share=0.3)
    examples = open_examples(run, said.append)
    texts = told(examples)
    train, val = ({texts[i][0] for i in part.numbers} for part in (examples.train, examples.val))
    assert train
    assert val
    assert not train & val
    assert 200 == len(examples.train) + len(examples.val)
    assert "180 examples repeat a source that came before" in said


def test_two_examples_are_one_to_train_with_and_one_held_out(tmp_path: Path) -> None:
    """However small the share, neither side is empty."""
    examples = opened(gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(2)), val_share=0.001)
    assert (1, 1) == (len(examples.train), len(examples.val))


def test_at_most_so_many_are_trained_on(tmp_path: Path) -> None:
    """The first of those that are trained on without it; what is held out, and what lies in the cache, stays."""
    model, file = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(100))
    whole, few = opened(model, file, val_share=0.2), opened(model, file, val_share=0.2, max_examples=10)
    assert whole.train.numbers[:10].tolist() == few.train.numbers.tolist()
    assert whole.val.numbers.tolist() == few.val.numbers.tolist()
    assert whole.train.store.directory == few.train.store.directory
    more = opened(model, file, val_share=0.2, max_examples=10_000)
    assert whole.train.numbers.tolist() == more.train.numbers.tolist()


def test_a_single_example_cannot_be_split(tmp_path: Path) -> None:
    """One source has nothing to be held out; with data.val it is trained on."""
    model, one = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(1))
    assert error(model, one) == (
        "DataError: there is nothing to hold out: 1 example of one source\n"
        "  where  data.val_share\n"
        "  why    what a model is validated on must not be what it was trained on\n"
        "  try    more examples, or data.val=FILE"
    )
    examples = opened(model, one, val=lines(tmp_path / "b.jsonl", pairs(1, seed=5)))
    assert 1 == examples.batches(config(model, one)).steps_per_epoch


def test_the_planner_knows_what_was_told_last(tmp_path: Path) -> None:
    """known() says what describe() said of the same files and settings, and nothing of others."""
    model, file = gpt2(tmp_path / "m"), lines(tmp_path / "a.jsonl", pairs(50))
    run = config(model, file)
    assert known(run) is None
    described = open_examples(run, lambda line: None).describe(run)
    found = known(run)
    assert found is not None
    assert {key: described[key] for key in described if key not in ("steps_per_epoch", "padding")} == found
    assert known(config(model, file, batch={"batch_size": 3})) == found
    assert known(config(model, file, max_length=100)) is None
    lines(tmp_path / "a.jsonl", pairs(51))
    assert known(run) is None


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "arrow", "saved"])
def test_texts_within_a_column_are_read(tmp_path: Path, form: str) -> None:
    """Translations lie as {"translation": {"en": …, "de": …}}: translation.en is a text in it, null where either is."""
    import datasets

    rows = [{"id": i, "translation": {"en": f"gauge {i}", "de": f"Maß {i}"}} for i in range(3)]
    model, names = gpt2(tmp_path / "m"), {"source_column": "translation.en", "target_column": "translation.de"}
    with_null, file = [*rows, {"id": 3, "translation": None}], tmp_path / f"rows.{form}"
    match form:
        case "jsonl":
            lines(file, with_null)
        case "json":
            file.write_text(json.dumps(with_null))
        case "parquet":
            parquet.write_table(pa.Table.from_pylist(with_null), file)
        case "arrow":
            table = pa.Table.from_pylist(with_null)
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
        case "saved":
            datasets.Dataset.from_list(rows).save_to_disk(str(file))
    examples = opened(model, str(file), **names)
    assert [(f"gauge {i}", f"Maß {i}") for i in range(3)] == told(examples)
    assert error(model, str(file), kind="pairs", **{**names, "target_column": "translation.fr"}).endswith(
        "  why    it has the columns 'id', 'translation', 'translation.en', 'translation.de'\n"
        "  try    data.target_column=id, say"
    )


def test_held_out_examples_that_are_learnt_from_are_told(tmp_path: Path) -> None:
    """data.val that is data.train's own file, or shares some sources with it, says nothing of new ones."""
    model, rows = t5(tmp_path / "m"), pairs(8)
    train, some = lines(tmp_path / "train.jsonl", rows), lines(tmp_path / "some.jsonl", rows[6:] + pairs(30)[28:])
    said: dict[str, list[str]] = {train: [], some: []}
    for val, told in said.items():
        open_examples(config(model, train, val=val), told.append)
    warnings = [line for told in said.values() for line in told if line.startswith("!")]
    assert warnings == [
        "! held out: 8 of 8 examples (100%) have a source that is learnt from, too: of these the held-out loss says "
        "nothing of new ones",
        "! held out: 2 of 4 examples (50%) have a source that is learnt from, too: of these the held-out loss says "
        "nothing of new ones",
    ]
