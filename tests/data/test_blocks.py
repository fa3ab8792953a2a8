"""Cutting files into blocks changes no document and no token."""

from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeum.data import blocks
from ganeum.data.blocks import documents, held_out_share, tasks
from ganeum.data.bpe import BPE
from ganeum.data.files import TextFile
from ganeum.data.jobs import Rules
from ganeum.data.tokenizer import Bytes, Tokenizer

FRAGMENTS = [
    *" \n\r\t\v'.!_0\x1c\x85\xa0", "  ", "\n\n", " \n ", "word", "'s", "'ll", "12", "é", "가", "늠", "\u3000", "\u2009",
    "”", "か", "🙂", "e\u0301", "<|", "|>", "a", "b", "the",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=120).map("".join)
BYTES = [b" ", b"\n", b"a", b"\xea\xb0\x80", b"\xea", b"\xb0", b"\xff", b"\xf0\x9f", b"\xed\xa0\x80"]
STORIES = ["story", " ", "\n", "\r\n", "<SEP>", "<SEP", "SEP>", "a b c d e f", "가늠"]
RULES = Rules(separator=None, seed=0, threshold=0.0, strict=False)


@lru_cache
def tokenizer(kind: str) -> Tokenizer:
    return (
        Bytes()
        if kind == "bytes"
        else BPE.train(["".join(FRAGMENTS) * 3, "the word's  \n\n  the words'll", " a b"] * 4, 330)
    )


def pieces(path: Path, content: bytes, separator: bytes | None, size: int) -> list[blocks.Document]:
    path.write_bytes(content)
    file = TextFile(path, path.name, "split")
    found = tasks([file], separator, size)
    return [document for task in found for block in task for document in documents(block, separator)]


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@given(text=TEXTS, size=st.integers(8, 64))
def test_pieces_have_the_tokens_of_the_whole(
    kind: str, text: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document read in small blocks, cut only at white space, gives the ids that it gives in one piece."""
    monkeypatch.setattr(blocks, "_LONGEST_WORD_BLOCKS", 10**9)
    chosen = tokenizer(kind)
    whole = text.removeprefix("\ufeff")
    ids = [
        id
        for piece in pieces(tmp_path / "a", text.encode(), None, size)
        for id in chosen.encode(RULES.text_of(piece)[0])
    ]
    assert chosen.encode(whole) == ids


def test_text_is_really_cut(tmp_path: Path) -> None:
    """The tests above would pass if nothing were ever cut: 10,000 words in blocks of 1 KiB make about 50 pieces."""
    found = pieces(tmp_path / "a", b"word " * 10_000, None, 1024)
    assert 40 < len(found) < 60
    assert [piece.opens for piece in found] == [True] + [False] * (len(found) - 1)
    assert [piece.closes for piece in found] == [False] * (len(found) - 1) + [True]


@given(content=st.lists(st.sampled_from(BYTES)), size=st.integers(4, 32))
def test_bad_bytes_are_replaced_as_in_the_whole(
    content: list[bytes], size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of the pieces is what Python's `replace` makes of the whole, and the same number of bytes is counted."""
    monkeypatch.setattr(blocks, "_LONGEST_WORD_BLOCKS", 10**9)
    data = b"".join(content)
    read = [RULES.text_of(piece) for piece in pieces(tmp_path / "a", data, None, size)]
    assert data.decode("utf-8", "replace") == "".join(text for text, _ in read)
    good = len(data.decode("utf-8", "ignore").encode())
    assert len(data) - good == sum(replaced for _, replaced in read)


@pytest.mark.parametrize("separator", ["<SEP>", "\n\n", "c d e f"])
@given(parts=st.lists(st.sampled_from(STORIES), max_size=60), size=st.integers(8, 64))
def test_documents_are_what_stands_between_separators(
    separator: str, parts: list[str], size: int, tmp_path: Path
) -> None:
    """In blocks of any size the documents are those of a plain split, less line breaks around them and empty ones."""
    text = "".join(parts)
    joined: list[bytes] = []
    for piece in pieces(tmp_path / "a", text.encode(), separator.encode(), size):
        if piece.opens:
            joined.append(b"")
        joined[-1] += piece.data
    expected = [part.strip("\r\n").encode() for part in text.split(separator)]
    assert [part for part in expected if part] == joined


@given(parts=st.lists(st.sampled_from(["one", "\n", "<SEP>", "two three"]), max_size=60), size=st.integers(4, 64))
def test_numbers_and_offsets_do_not_depend_on_blocks(parts: list[str], size: int, tmp_path: Path) -> None:
    """A document's number counts separators before it, its offset is its place in the file: what the split hangs on."""
    data = "".join(parts).encode()
    for piece in pieces(tmp_path / "a", data, b"<SEP>", size):
        assert data[piece.offset : piece.offset + len(piece.data)] == piece.data
        assert data.count(b"<SEP>", 0, piece.offset + len(piece.data)) == piece.number


def test_a_word_without_end_is_cut_between_characters(tmp_path: Path) -> None:
    """Text without white space for four blocks is cut all the same, never inside a character, and nothing is lost."""
    found = pieces(tmp_path / "a", ("가" * 10_000).encode(), None, 1000)
    assert len(found) > 3
    assert max(len(piece.data) for piece in found) <= 5000
    assert "가" * 10_000 == "".join(piece.data.decode() for piece in found)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """EF BB BF in front of a file is dropped; further in it is a character like any other."""
    assert [b"a\xef\xbb\xbfb"] == [
        piece.data for piece in pieces(tmp_path / "a", b"\xef\xbb\xbfa\xef\xbb\xbfb", None, 100)
    ]


def test_line_ends_are_kept(tmp_path: Path) -> None:
    """CR LF is text as it stands."""
    assert [b"a\r\nb\r\n"] == [piece.data for piece in pieces(tmp_path / "a", b"a\r\nb\r\n", None, 100)]


def test_the_split_hangs_on_seed_name_and_number_only() -> None:
    """The same document has the same place wherever it lies, and the places are spread evenly."""
    here, there = TextFile(Path("/a/x.txt"), "x.txt", "split"), TextFile(Path("/b/c/x.txt"), "x.txt", "split")
    shares = [held_out_share(1, here, number) for number in range(10_000)]
    assert shares == [held_out_share(1, there, number) for number in range(10_000)]
    assert abs(sum(share < 0.05 for share in shares) - 500) < 100
    assert shares[:100] != [held_out_share(2, here, number) for number in range(100)]
