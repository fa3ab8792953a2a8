"""Text becomes tokens: what is written, how it is divided, and what is refused."""

import hashlib
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from prepared import digests, files, library, made, tokens

from ganeum.data.corpus import open_corpus
from ganeum.data.files import Source
from ganeum.data.meta import held_out_files
from ganeum.data.prepare import Preparation, prepare
from ganeum.errors import DataError


def test_bytes_by_hand(tmp_path: Path) -> None:
    """Two files, a separator between documents, everything in train.bin: the ids worked out by hand, 256 after each."""
    files(tmp_path, a="hi|yo", b="가")
    result = made(tmp_path, Source(tmp_path / "in", "train"), tokenizer="bytes", separator="|")
    assert [104, 105, 256, 121, 111, 256, 0xEA, 0xB0, 0x80, 256] == tokens(tmp_path / "out" / "train.bin")
    part = result.meta.train
    assert (10, 7, 3) == (part.tokens, part.bytes, part.documents)
    assert hashlib.sha256((tmp_path / "out" / "train.bin").read_bytes()).hexdigest() == part.sha256
    assert ["meta.json", "tokenizer", "train.bin"] == sorted(path.name for path in (tmp_path / "out").iterdir())


def test_nanogpt_reads_what_is_written(tmp_path: Path) -> None:
    """`np.memmap(path, dtype=np.uint16, mode="r")`, as nanoGPT's train.py opens it, has the same tokens."""
    files(tmp_path, a="some text", b="more of it")
    made(tmp_path, val_share=0.5)
    theirs = np.memmap(tmp_path / "out" / "train.bin", dtype=np.uint16, mode="r")
    assert np.array_equal(theirs, open_corpus(tmp_path / "out").train)


@pytest.mark.parametrize("tokenizer", ["bpe", "characters"])
def test_the_same_bytes_whatever_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str) -> None:
    """One process, two or three: every file but meta.json's times is the same, byte for byte."""
    monkeypatch.setattr("ganeum.data.prepare._BYTES_WORTH_A_WORKER", 1)
    library(tmp_path)
    found = []
    for workers in (1, 2, 3):
        result = made(tmp_path, tokenizer=tokenizer, vocab_size=400, val_share=0.2, workers=workers, overwrite=True)
        found.append((digests(tmp_path / "out"), result.meta))
    assert found[0] == found[1] == found[2]


def test_every_document_is_whole_on_one_side(tmp_path: Path) -> None:
    """The documents of both files together are the input's, none is divided, and meta.json's counts are theirs."""
    library(tmp_path)
    meta = made(tmp_path, vocab_size=300, val_share=0.3).meta
    corpus = open_corpus(tmp_path / "out")
    assert corpus.val is not None
    assert corpus.tokenizer is not None
    assert meta.val is not None
    texts: dict[str, list[str]] = {}
    for name, ids, part in (("train", corpus.train, meta.train), ("val", corpus.val, meta.val)):
        ends = np.flatnonzero(ids == corpus.tokenizer.end_of_text)
        texts[name] = [corpus.tokenizer.decode(some[:-1].tolist()) for some in np.split(ids, ends + 1)[:-1]]
        assert ends[-1] == len(ids) - 1
        assert (part.tokens, part.documents) == (len(ids), len(ends))
        assert part.bytes == sum(len(text.encode()) for text in texts[name])
        assert part.bytes == int(corpus.tokenizer.byte_lengths()[ids].sum())
    inputs = sorted(path.read_text() for path in (tmp_path / "in").iterdir())
    assert inputs == sorted(texts["train"] + texts["val"])
    assert 4 <= len(texts["val"]) <= 20
    assert texts["val"] == [path.read_text() for path in held_out_files(meta)]


def test_the_vocabulary_never_sees_held_out_text(tmp_path: Path) -> None:
    """A word that is everywhere in the held-out document, and nowhere else, gets no token of its own."""
    files(tmp_path, a="the gauge " * 50)
    (tmp_path / "other.txt").write_text("zyxwvut " * 500)
    made(tmp_path, Source(tmp_path / "in"), Source(tmp_path / "other.txt", "val"), vocab_size=400)
    tokenizer = open_corpus(tmp_path / "out").tokenizer
    assert tokenizer is not None
    assert len(tokenizer.encode("the gauge")) < len(tokenizer.encode("zyxwvut"))
    assert 7 == len(tokenizer.encode("zyxwvut"))


@pytest.mark.parametrize("share", [1e-9, 0.9])
def test_two_documents_are_one_and_one(tmp_path: Path, share: float) -> None:
    """However small or large the share, either side has a document where there are two."""
    files(tmp_path, a="one", b="two")
    meta = made(tmp_path, tokenizer="bytes", val_share=share).meta
    assert (1, 1) == (meta.train.documents, meta.val and meta.val.documents)


def test_one_document_is_not_divided(tmp_path: Path) -> None:
    """A book in one file is trained on whole; there is no val.bin, and meta.json says so."""
    files(tmp_path, book="It was a dark night.\n" * 100)
    meta = made(tmp_path, tokenizer="characters").meta
    assert meta.val is None
    assert "none" == meta.split.rule
    assert open_corpus(tmp_path / "out").val is None


def test_validation_text_can_be_named(tmp_path: Path) -> None:
    """With text named for validation nothing else is held out."""
    files(tmp_path, a="aaa", b="bbb", c="ccc")
    (tmp_path / "test.txt").write_text("val")
    meta = made(
        tmp_path, Source(tmp_path / "in", "train"), Source(tmp_path / "test.txt", "val"), tokenizer="bytes"
    ).meta
    assert ("given", 3, 1) == (meta.split.rule, meta.train.documents, meta.val and meta.val.documents)
    assert [118, 97, 108, 256] == tokens(tmp_path / "out" / "val.bin")
    assert [tmp_path / "test.txt"] == held_out_files(meta)


def test_the_split_stays_when_files_are_added(tmp_path: Path) -> None:
    """A document's side hangs on its name: new files move none of the old ones."""
    library(tmp_path, 40)
    before = set(made(tmp_path, tokenizer="bytes", val_share=0.3).meta.split.held_out or [])
    files(tmp_path, **{f"aaa{i}": "new" for i in range(40)})
    after = set(made(tmp_path, tokenizer="bytes", val_share=0.3, overwrite=True).meta.split.held_out or [])
    assert before == {name for name in after if not name.startswith("aaa")}
    assert after != before


def test_a_large_vocabulary_is_written_as_uint32(tmp_path: Path) -> None:
    """More than 65,536 characters do not fit 16 bits."""
    letters = "".join(map(chr, range(0x10000, 0x10000 + 65_536)))
    files(tmp_path, a=letters)
    meta = made(tmp_path, tokenizer="characters").meta
    assert ("uint32", 65_537) == (meta.dtype, meta.vocab_size)
    assert list(range(65_537)) == tokens(tmp_path / "out" / "train.bin", "<u4")
    assert 65_536 == open_corpus(tmp_path / "out").train.max()


def test_the_largest_uint16_vocabulary(tmp_path: Path) -> None:
    """65,535 characters and the end-of-text token: ids 0 to 65,535 fit 16 bits exactly."""
    files(tmp_path, a="".join(map(chr, range(0x10000, 0x10000 + 65_535))))
    meta = made(tmp_path, tokenizer="characters").meta
    assert ("uint16", 65_536) == (meta.dtype, meta.vocab_size)
    assert list(range(65_536)) == tokens(tmp_path / "out" / "train.bin")


def test_bad_bytes_are_replaced_and_counted(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 become U+FFFD, EF BF BD, and are counted."""
    files(tmp_path, a=b"a\xff\xfeb")
    meta = made(tmp_path, tokenizer="bytes").meta
    assert [0x61, 0xEF, 0xBF, 0xBD, 0xEF, 0xBF, 0xBD, 0x62, 256] == tokens(tmp_path / "out" / "train.bin")
    assert (2, 8) == (meta.replaced_bytes, meta.train.bytes)


def test_strict_refuses_bad_bytes(tmp_path: Path) -> None:
    """The file, the offset and the byte are named; nothing is left behind."""
    files(tmp_path, a="good|fine", b=b"fine|caf\xe9 noir")
    with pytest.raises(DataError) as error:
        made(tmp_path, tokenizer="bytes", strict=True, separator="|")
    assert str(error.value) == (
        "DataError: byte 8 is not UTF-8: 0xe9\n"
        f"  where  {tmp_path}/in/b.txt, offset 8\n"
        "  why    invalid continuation byte; --strict refuses what it cannot read exactly\n"
        "  try    convert the file (iconv -f … -t utf-8), or leave --strict out: such bytes become U+FFFD"
    )
    assert not (tmp_path / "out").exists()


def test_no_text_is_refused(tmp_path: Path) -> None:
    """An empty file, empty documents only, binaries only, or a pattern that fits nothing: said, nothing written."""
    files(tmp_path, a="", b=b"\x00\x01")
    with pytest.raises(DataError) as error:
        made(tmp_path, tokenizer="bytes")
    assert str(error.value) == (
        "DataError: there is no text to learn from\n"
        f"  where  {tmp_path}/in\n"
        "  why    there is no document for train.bin in 1 text file\n"
        "  try    other paths, or another --pattern"
    )
    files(tmp_path, a="||\n||")
    with pytest.raises(DataError, match=r"no document for train\.bin in 1 text file\n"):
        made(tmp_path, tokenizer="bytes", separator="||")
    with pytest.raises(DataError, match=r"no text file is there whose name matches \*\.py; 0|matches \*\.py"):
        made(tmp_path, Source(tmp_path / "in", patterns=("*.py",)), tokenizer="bytes")
    with pytest.raises(DataError, match=r"matches b\*; 1 file left out for not being text: \S*/in/b\S*\n"):
        made(tmp_path, Source(tmp_path / "in", patterns=("b*",)), tokenizer="bytes")
    assert not (tmp_path / "out").exists()


def test_only_validation_text_is_refused(tmp_path: Path) -> None:
    """Validation text alone trains nothing."""
    files(tmp_path, a="")
    (tmp_path / "val.txt").write_text("val")
    with pytest.raises(DataError, match=r"no document for train\.bin in 2 text files\n"):
        made(tmp_path, Source(tmp_path / "in", "train"), Source(tmp_path / "val.txt", "val"), tokenizer="bytes")


def test_a_tokenizer_can_be_reused(tmp_path: Path) -> None:
    """--tokenizer with a directory gives new text the ids of the old vocabulary."""
    library(tmp_path, 5)
    made(tmp_path, vocab_size=300)
    vocabulary = tmp_path / "out" / "tokenizer"
    other = tmp_path / "other.txt"
    other.write_text("the gauge 가늠 run")
    prepare(Preparation((Source(other),), tmp_path / "second", tokenizer=str(vocabulary)))
    assert digests(vocabulary) == digests(tmp_path / "second" / "tokenizer")


def test_progress_counts_up_to_the_end(tmp_path: Path) -> None:
    """Each phase reports bytes done of bytes in all, rising, and ends with all of them."""
    library(tmp_path)
    seen: dict[str, list[tuple[int, int]]] = {}
    started = time.monotonic()
    prepare(
        Preparation((Source(tmp_path / "in"),), tmp_path / "out", vocab_size=300),
        lambda phase, done, total: seen.setdefault(phase, []).append((done, total)),
    )
    assert time.monotonic() > started
    size = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert ["reading", "vocabulary", "tokens"] == list(seen)
    for counts in seen.values():
        assert counts == sorted(counts)
        assert (size, size) == counts[-1]


def test_a_tokenizer_that_cannot_be_had_is_said_before_anything_is_read(tmp_path: Path) -> None:
    """A name that is none, or a vocabulary that is too small: no text is read, nothing is written."""
    library(tmp_path, 3)
    phases: list[str] = []
    for options, message in (
        ({"tokenizer": "gpt3"}, "there is no tokenizer 'gpt3'"),
        ({"vocab_size": 100}, "a BPE vocabulary of 100 is too small"),
        ({"tokenizer": "gpt2", "gpt2_vocabulary": tmp_path}, "no GPT-2 vocabulary can be read from"),
    ):
        what = Preparation((Source(tmp_path / "in"),), tmp_path / "out", **options)
        with pytest.raises(DataError, match=message):
            prepare(what, lambda phase, done, total: phases.append(phase))
    assert [] == phases
    assert not (tmp_path / "out").exists()


def test_files_of_one_name_in_two_places(tmp_path: Path) -> None:
    """Books of the same name from two directories, or one named twice, are two documents: one on either side."""
    for place in "ab":
        (tmp_path / place).mkdir()
        (tmp_path / place / "book.txt").write_text(place)
    for n, paths in enumerate((("a/book.txt", "b/book.txt"), ("a", "b"), ("a/book.txt", "a/book.txt"))):
        sources = tuple(Source(tmp_path / path) for path in paths)
        out = tmp_path / f"out{n}"
        meta = prepare(Preparation(sources, out, tokenizer="bytes")).meta
        assert (1, 1) == (meta.train.documents, meta.val and meta.val.documents)
        assert bytes(tokens(out / "val.bin")[:1]) == held_out_files(meta)[0].read_bytes()


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take no such name")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """Old Korean archives hold such names: they are read, and shown with their bytes."""
    directory = Path(os.fsdecode(os.fsencode(tmp_path / "in") + b"\xb0\xa1"))
    directory.mkdir()
    for name, content in ((b"\xb3\xaa.txt", b"text"), (b"b.txt", b"more"), (b"\xb4\xd9.bin", b"\0")):
        (directory / os.fsdecode(name)).write_bytes(content)
    result = made(tmp_path, Source(directory), tokenizer="bytes", val_share=0.9)
    assert str(tmp_path / "in") + "\\xb0\\xa1" == result.meta.sources[0].path
    assert (str(tmp_path / "in") + "\\xb0\\xa1/\\xb4\\xd9.bin",) == result.skipped_names
    assert result.meta == open_corpus(tmp_path / "out").meta


@pytest.mark.parametrize("content", [b"", b"\0", b"||"])
def test_validation_text_that_is_none(tmp_path: Path, content: bytes) -> None:
    """An empty, binary or document-less --val is an error that names it, not a preparation without val.bin."""
    files(tmp_path, a="one")
    (tmp_path / "val.txt").write_bytes(content)
    with pytest.raises(DataError) as error:
        made(
            tmp_path,
            Source(tmp_path / "in", "train"),
            Source(tmp_path / "val.txt", "val"),
            tokenizer="bytes",
            separator="|",
        )
    assert str(error.value) == (
        "DataError: there is no text to validate on\n"
        f"  where  {tmp_path}/val.txt\n"
        "  why    it was named for validation, but is empty or not text\n"
        "  try    another --val, or none: then --val-share of the documents is held out"
    )
    assert not (tmp_path / "out").exists()


def test_the_file_least_utf8_is_named(tmp_path: Path) -> None:
    """A book in CP949 among good ones is the one named, with its share: 4 of 5 bytes."""
    files(tmp_path, a="좋은 글", b="가나 ".encode("cp949"), c=b"\xff" * 8 + b"a" * 92)
    assert (tmp_path / "in" / "b.txt", 0.8) == made(tmp_path, tokenizer="bytes").worst
