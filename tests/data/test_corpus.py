"""Opening prepared data: what is checked, and nanoGPT's own files."""

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ganeum.data.corpus import open_corpus
from ganeum.data.tokenizer import Bytes
from ganeum.errors import DataError


def part(ids: np.ndarray[Any, Any]) -> dict[str, Any]:
    return {"tokens": len(ids), "bytes": len(ids), "documents": 1, "sha256": hashlib.sha256(ids.tobytes()).hexdigest()}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """1,000 and 100 bytes as tokens, as `prepare` leaves them."""
    train, val = (np.arange(n).astype("<u2") % 256 for n in (1000, 100))
    train.tofile(tmp_path / "train.bin")
    val.tofile(tmp_path / "val.bin")
    Bytes().save(tmp_path / "tokenizer")
    meta = {
        "ganeum_version": "0.1.0", "tokenizer": "bytes", "vocab_size": 257, "dtype": "uint16",
        "train": part(train), "val": part(val), "sources": [], "replaced_bytes": 0, "skipped_files": 0,
        "fingerprint": "",
        "split": {"rule": "hash", "val_share": 0.1, "seed": 0, "separator": None, "held_out": []},
    }  # fmt: skip
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    return tmp_path


def refused(directory: Path, block_size: int | None = None) -> str:
    with pytest.raises(DataError) as error:
        open_corpus(directory, block_size)
    return str(error.value).replace(str(directory), "DIR")


def test_a_corpus_opens_as_memory_maps(prepared: Path) -> None:
    """The tokens are maps of the files, never copies; meta and tokenizer come with them."""
    corpus = open_corpus(prepared, 32)
    assert isinstance(corpus.train, np.memmap)
    assert (1000, 100, 257) == (len(corpus.train), len(corpus.val), corpus.vocab_size)  # type: ignore[arg-type]
    assert corpus.tokenizer is not None
    assert "abc" == corpus.tokenizer.decode(corpus.train[97:100].tolist())


def test_a_directory_without_data_says_how_to_make_it(tmp_path: Path) -> None:
    """Its own prepare.py where there is one, the command otherwise."""
    assert refused(tmp_path) == (
        "DataError: there is no data in DIR\n  where  DIR/train.bin\n  try    ganeum prepare PATH… --out DIR"
    )
    (tmp_path / "prepare.py").touch()
    assert refused(tmp_path).endswith("  try    python DIR/prepare.py")
    assert "why    the directory does not exist" in refused(tmp_path / "none")


def test_an_interrupted_preparation_is_not_data(prepared: Path) -> None:
    """Between the first rename and the last there is no meta.json but the temporary directory."""
    (prepared / "meta.json").unlink()
    (prepared / ".preparing").mkdir()
    assert refused(prepared) == (
        "DataError: the data in DIR is not complete\n"
        "  where  DIR/.preparing\n"
        "  why    `ganeum prepare` is at work there, or was interrupted\n"
        "  try    wait for it, or run the same `ganeum prepare` again"
    )


def test_an_empty_corpus_is_refused(prepared: Path) -> None:
    """No token, nothing to learn."""
    (prepared / "train.bin").write_bytes(b"")
    assert refused(prepared) == (
        "DataError: train.bin is empty\n"
        "  where  DIR/train.bin\n"
        "  why    there is no token to learn from\n"
        "  try    prepare the data again from a text that is not empty: ganeum prepare …"
    )


def test_a_corpus_shorter_than_a_window_is_refused(prepared: Path) -> None:
    """Where the block size is known, both files must hold a window; which one does not is said."""
    open_corpus(prepared, 99)
    assert refused(prepared, 100) == (
        "DataError: 100 tokens are fewer than one window of model.block_size 100\n"
        "  where  DIR/val.bin\n"
        "  why    a window is 100 inputs and one more token as the last target\n"
        "  try    more text held out (--val-share, --val), or model.block_size: 99 at most"
    )


def test_a_bin_that_does_not_fit_its_meta_is_refused(prepared: Path) -> None:
    """A file cut short, or of another dtype, has another size than meta.json says."""
    os.truncate(prepared / "train.bin", 1998)
    assert refused(prepared) == (
        "DataError: train.bin has 1,998 bytes, which does not fit\n"
        "  where  DIR/train.bin\n"
        "  why    meta.json says 1,000 tokens of uint16: 2,000 bytes\n"
        "  try    prepare the data again: ganeum prepare … --overwrite"
    )
    (prepared / "val.bin").unlink()
    (prepared / "train.bin").write_bytes(bytes(2000))
    assert "val.bin is missing" in refused(prepared)


@pytest.mark.parametrize("token", [257, 65_535])
def test_a_token_beyond_the_vocabulary_is_named_with_its_place(prepared: Path, token: int) -> None:
    """Damage inside a file of the right size is found before it becomes an index error in the model."""
    tokens = np.memmap(prepared / "train.bin", "<u2", "r+")
    tokens[[777, 900]] = token
    tokens.flush()
    assert refused(prepared) == (
        f"DataError: token 777 is {token}, beyond the vocabulary of 257\n"
        "  where  DIR/train.bin\n"
        "  why    the file is damaged, or belongs to another tokenizer\n"
        "  try    prepare the data again: ganeum prepare …"
    )


def test_a_file_is_searched_once_and_again_when_it_changes(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is remembered while size and time stand; a file written anew is searched anew."""
    open_corpus(prepared)
    with monkeypatch.context() as patch:
        patch.setattr("ganeum.data.corpus._SCAN_TOKENS", None)  # a second search would fail on this
        open_corpus(prepared)
    tokens = np.arange(1000).astype("<u2")
    tokens.tofile(prepared / "train.bin")
    os.utime(prepared / "train.bin", ns=(0, 123))
    assert "token 257 is 257" in refused(prepared)


def test_a_cache_that_cannot_be_written_is_no_error(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search is then made every time, nothing else."""
    monkeypatch.setenv("GANEUM_CACHE", str(prepared / "meta.json"))
    open_corpus(prepared)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        ("{}", "ganeum_version: Field required"),
        ("[1]", "Input should be an object"),
        ('{"vocab_size": 257', "Invalid JSON: EOF while parsing an object at line 1 column 18"),
    ],
)
def test_a_damaged_meta_is_named(prepared: Path, change: str, message: str) -> None:
    """Not JSON, or JSON that lacks what it should say."""
    (prepared / "meta.json").write_text(change)
    assert refused(prepared) == (
        "DataError: meta.json is damaged\n"
        "  where  DIR/meta.json\n"
        f"  why    {message}\n"
        "  try    prepare the data again: ganeum prepare … --overwrite"
    )


def test_a_tokenizer_of_another_preparation_is_refused(prepared: Path) -> None:
    """The vocabulary beside the tokens must be theirs."""
    from ganeum.data.tokenizer import Characters

    Characters("abc").save(prepared / "tokenizer")
    assert refused(prepared) == (
        "DataError: its vocabulary has 4 tokens, but meta.json says 257\n"
        "  where  DIR/tokenizer\n"
        "  why    the files come from different preparations\n"
        "  try    prepare the data again: ganeum prepare … --overwrite"
    )


def nanogpt(directory: Path, text: str) -> None:
    """What data/shakespeare_char/prepare.py of nanoGPT leaves."""
    chars = sorted(set(text))
    stoi = {ch: i for i, ch in enumerate(chars)}
    for name, some in (("train", text[: len(text) * 9 // 10]), ("val", text[len(text) * 9 // 10 :])):
        np.array([stoi[c] for c in some], dtype=np.uint16).tofile(directory / f"{name}.bin")
    meta = {"vocab_size": len(chars), "itos": dict(enumerate(chars)), "stoi": stoi}
    with (directory / "meta.pkl").open("wb") as file:
        pickle.dump(meta, file)


def test_nanogpts_characters_open_here(tmp_path: Path) -> None:
    """train.bin, val.bin and meta.pkl as nanoGPT writes them: same ids, same text."""
    text = "To be, or not to be: that is the question.\n" * 20
    nanogpt(tmp_path, text)
    corpus = open_corpus(tmp_path)
    assert corpus.meta is None
    assert corpus.val is not None
    assert corpus.tokenizer is not None
    assert len(set(text)) == corpus.vocab_size
    assert text == corpus.tokenizer.decode([*corpus.train.tolist(), *corpus.val.tolist()])
    assert corpus.tokenizer.end_of_text is None


def test_nanogpts_bare_files_have_gpt2s_vocabulary(tmp_path: Path) -> None:
    """Without meta.pkl nanoGPT assumes GPT-2's vocabulary, and so do we; 50257 is then one too many."""
    np.array([50_256, 0, 13], np.uint16).tofile(tmp_path / "train.bin")
    assert 50_257 == open_corpus(tmp_path).vocab_size
    np.array([0, 50_257], np.uint16).tofile(tmp_path / "train.bin")
    assert refused(tmp_path) == (
        "DataError: token 1 is 50257, beyond the vocabulary of 50,257\n"
        "  where  DIR/train.bin\n"
        "  why    there is no meta.json or meta.pkl, so GPT-2's vocabulary is assumed\n"
        "  try    prepare the data again: ganeum prepare …"
    )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("content", [{"vocab_size": Evil()}, {"vocab_size": np.int64(3)}, {"vocab_size": "65"}, [], 5])
def test_a_meta_pkl_executes_nothing(tmp_path: Path, content: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle that names any function or class, or does not say vocab_size, is refused; nothing of it is run."""
    monkeypatch.chdir(tmp_path)
    np.zeros(100, np.uint16).tofile(tmp_path / "train.bin")
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps(content))
    assert "DataError: meta.pkl cannot be read\n  where  DIR/meta.pkl\n  why    " in refused(tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_a_named_function_is_in_the_error(tmp_path: Path) -> None:
    """What the pickle asked for is said in full."""
    np.zeros(100, np.uint16).tofile(tmp_path / "train.bin")
    (tmp_path / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": Evil()}))
    assert refused(tmp_path) == (
        "DataError: meta.pkl cannot be read\n"
        "  where  DIR/meta.pkl\n"
        f"  why    UnpicklingError: it asks for {os.name}.system; only plain containers, text and numbers are read\n"
        "  try    remove it (GPT-2's vocabulary is then assumed, as nanoGPT does), or prepare the data again"
    )
