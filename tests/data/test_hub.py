"""Datasets of Hugging Face's library, from files on this machine; and without the library."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ganeum.data import hub
from ganeum.data.files import Source
from ganeum.data.hub import dataset
from ganeum.data.prepare import Preparation, prepare
from ganeum.errors import DataError, MissingExtra

datasets = pytest.importorskip("datasets")
ROWS = [f"row {i}, 가늠\n" for i in range(700)]


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's cache goes to the test's directory, and it never asks the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def texts(out: Path, name: str = "train.bin") -> list[str]:
    ids = np.fromfile(out / name, "<u2")
    return [bytes(some[:-1].astype(np.uint8)).decode() for some in np.split(ids, np.flatnonzero(ids == 256) + 1)[:-1]]


def saved(tmp_path: Path) -> "datasets.Dataset":
    rows = datasets.Dataset.from_dict({"id": list(range(len(ROWS))), "text": ROWS})
    rows.save_to_disk(tmp_path / "saved", num_shards=3)
    return rows


def test_a_split_of_a_local_dataset(tmp_path: Path) -> None:
    """A directory of JSON lines as the library loads it: the split asked for, row by row; slices too."""
    (tmp_path / "my").mkdir()
    saved(tmp_path).to_json(tmp_path / "my" / "train.jsonl")
    for split, rows in (("train", ROWS), ("train[10:20]", ROWS[10:20])):
        what = Preparation((dataset(str(tmp_path / "my"), split, "train"),), tmp_path / "out", "bytes", overwrite=True)
        meta = prepare(what).meta
        assert rows == texts(tmp_path / "out")
        assert f"{tmp_path}/my[{split}]" == meta.sources[0].path


def test_shuffled_rows_come_in_their_order(tmp_path: Path) -> None:
    """A dataset that is a view of another (shuffled, selected) is read as it is seen, not as it lies in its files."""
    view = saved(tmp_path).shuffle(seed=1).select(range(50))
    prepare(Preparation((Source(Path("view"), "train", dataset=view),), tmp_path / "out", "bytes"))
    assert view["text"][:] == texts(tmp_path / "out")


def test_what_save_to_disk_wrote(tmp_path: Path) -> None:
    """As a path like any other, in the order of its shards; and by --dataset; a later map's cache is not read."""
    saved(tmp_path)
    datasets.load_from_disk(tmp_path / "saved").map(lambda row: {"text": "other"})
    assert list((tmp_path / "saved").glob("cache-*.arrow"))
    prepare(Preparation((Source(tmp_path / "saved", "train"),), tmp_path / "out", "bytes"))
    assert ROWS == texts(tmp_path / "out")
    prepare(Preparation((dataset(str(tmp_path / "saved"), "train", "train"),), tmp_path / "again", "bytes"))
    assert ROWS == texts(tmp_path / "again")


def test_several_splits_are_not_mixed(tmp_path: Path) -> None:
    """A saved DatasetDict: the error says how to name one; each is a directory, or a --split."""
    rows = saved(tmp_path)
    datasets.DatasetDict(train=rows, validation=rows.select(range(5))).save_to_disk(tmp_path / "dict")
    with pytest.raises(DataError) as error:
        prepare(Preparation((Source(tmp_path / "dict"),), tmp_path / "out", "bytes"))
    assert str(error.value) == (
        f"DataError: {tmp_path}/dict holds 2 splits: train, validation\n"
        f"  where  {tmp_path}/dict/dataset_dict.json\n"
        "  why    one is trained on; another may be validated on\n"
        f"  try    ganeum prepare {tmp_path}/dict/train --val {tmp_path}/dict/validation"
    )
    command = [sys.executable, "-m", "ganeum", "prepare", "--dataset", "dict", "--val-split", "validation"]
    done = subprocess.run([*command, "--tokenizer", "bytes", "--out", "out"], cwd=tmp_path, capture_output=True)
    assert (0, b"") == (done.returncode, done.stderr)
    assert (ROWS, ROWS[:5]) == (texts(tmp_path / "out"), texts(tmp_path / "out", "val.bin"))


def test_what_cannot_be_had(tmp_path: Path) -> None:
    """A split that is not there, or a column: the library's reason, and the columns there are."""
    saved(tmp_path)
    rows = datasets.load_from_disk(tmp_path / "saved")
    datasets.DatasetDict(train=rows).save_to_disk(tmp_path / "dict")
    with pytest.raises(DataError, match=r"split test, cannot be had\n[\s\S]*KeyError: 'test'[\s\S]*--split"):
        dataset(str(tmp_path / "dict"), "test", "train")
    with pytest.raises(DataError, match=r"has no column 'content'[\s\S]*the columns 'id', 'text'"):
        prepare(Preparation((Source(Path("x"), dataset=rows),), tmp_path / "out", "bytes", column="content"))


def test_the_same_dataset_again_is_unchanged(tmp_path: Path) -> None:
    """The library's fingerprint of its rows decides, not a file's time."""
    saved(tmp_path)
    for expected in (False, True):
        what = Preparation((dataset(str(tmp_path / "saved"), "train", "split"),), tmp_path / "out", "bytes")
        assert expected == prepare(what).unchanged


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error gives the pip line."""
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as error:
        dataset("roneneldan/TinyStories", "train", "split")
    assert str(error.value) == (
        "MissingExtra: --dataset needs the package datasets, which is not installed\n"
        '  try    pip install "ganeum[datasets]"'
    )


def test_a_silent_hub_is_waited_for_in_words_and_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is asked for, and where, is said at once; nothing is tried again, and the library's settings are back."""
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: pytest.fail("it was tried again"))
    with pytest.raises(DataError) as error:
        dataset("nobody/nothing", "train", "train")
    assert capsys.readouterr().err == (
        "nobody/nothing: no such file, so a data set of that name is asked for at http://127.0.0.1:9\n"
    )
    assert error.value.why == "http://127.0.0.1:9 does not answer, and nothing of that name was fetched before"
    assert (constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE) == (False, False)
