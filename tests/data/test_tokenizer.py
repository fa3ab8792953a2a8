"""Every kind of tokenizer keeps the same promises."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeum.data.bpe import BPE
from ganeum.data.tokenizer import Bytes, Characters, Tokenizer, load_tokenizer
from ganeum.errors import DataError

ALPHABET = "abc de'st nofx\n\t\r 019.,!<|>_가늠é\u3000\u00a0\u0085\u200d🙂\U0001f468\x00\x1c"
KINDS = ["bytes", "characters", "bpe"]


@lru_cache
def tokenizer(kind: str) -> Tokenizer:
    if kind == "bytes":
        return Bytes()
    if kind == "characters":
        return Characters("".join(sorted(set(ALPHABET))))
    return BPE.train([ALPHABET, "abc abc's decade 가늠 가늠자\n\n  dead beef <|endoftext|>"] * 3, 300)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(ALPHABET))
def test_nothing_is_lost(kind: str, text: str) -> None:
    """decode(encode(text)) is the text, ids are below vocab_size, and their lengths are those of its UTF-8."""
    chosen = tokenizer(kind)
    ids = chosen.encode(text)
    assert text == chosen.decode(ids)
    assert all(0 <= id < chosen.vocab_size for id in ids)
    assert len(text.encode()) == int(chosen.byte_lengths()[ids].sum())


@pytest.mark.parametrize("kind", ["bytes", "bpe"])
@given(text=st.text())
def test_bytes_and_bpe_can_say_anything(kind: str, text: str) -> None:
    """The same for any Unicode text there is."""
    chosen = tokenizer(kind)
    ids = chosen.encode(text)
    assert text == chosen.decode(ids)
    assert len(text.encode()) == int(chosen.byte_lengths()[ids].sum())


@pytest.mark.parametrize("kind", KINDS)
def test_text_that_spells_the_special_token_is_text(kind: str) -> None:
    """`<|endoftext|>` in a text never becomes the end-of-text token, which stands for no bytes."""
    chosen = tokenizer(kind)
    ids = chosen.encode("a<|endoftext|>")
    assert chosen.end_of_text is not None
    assert chosen.end_of_text not in ids
    assert chosen.byte_lengths()[chosen.end_of_text] == 0
    assert chosen.decode([chosen.end_of_text]) == "<|endoftext|>"


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_it_is_the_same(kind: str, tmp_path: Path) -> None:
    """A tokenizer written to a directory and read from it gives the same ids and has the same special token."""
    chosen = tokenizer(kind)
    chosen.save(tmp_path / "a" / "tokenizer")
    again = load_tokenizer(tmp_path / "a" / "tokenizer")
    assert (chosen.kind, chosen.vocab_size, chosen.end_of_text) == (again.kind, again.vocab_size, again.end_of_text)
    assert chosen.encode(ALPHABET) == again.encode(ALPHABET)
    assert chosen.token_bytes == again.token_bytes


def test_bytes_are_their_own_ids() -> None:
    """가 is EA B0 80 in UTF-8; 257 ids in all, 256 ends a text."""
    assert [0xEA, 0xB0, 0x80, 0x61] == Bytes().encode("가a")
    assert (257, 256) == (Bytes().vocab_size, Bytes().end_of_text)


def test_characters_have_nanogpts_ids() -> None:
    """Sorted by code point, as nanoGPT's data/shakespeare_char/prepare.py numbers them; one more id ends a text."""
    text = "hello world"
    chars = sorted(set(text))
    stoi = {ch: i for i, ch in enumerate(chars)}
    chosen = Characters("".join(chars))
    assert [stoi[c] for c in text] == chosen.encode(text)
    assert (len(chars) + 1, len(chars)) == (chosen.vocab_size, chosen.end_of_text)


def test_a_cut_character_decodes_to_a_replacement() -> None:
    """Ids that end inside a character become U+FFFD, not an error."""
    assert Bytes().decode([0x61, 0xEA, 0xB0]) == "a\N{REPLACEMENT CHARACTER}"


def test_half_a_surrogate_pair_is_replaced() -> None:
    """What a shell hands over for bytes that are not UTF-8 becomes U+FFFD, not a traceback."""
    assert Bytes().encode("a\udcff") == [0x61, 0xEF, 0xBF, 0xBD]


def test_an_unknown_character_is_named() -> None:
    """A prompt with a character that the corpus lacks is refused, with its place."""
    with pytest.raises(DataError) as error:
        Characters("abc").encode("abz")
    assert str(error.value) == (
        "DataError: the vocabulary of 3 characters has no 'z'\n"
        "  where  character 3 of the text\n"
        "  why    it never occurs in the corpus that the vocabulary was taken from\n"
        "  try    other words, or data prepared with --tokenizer bytes or bpe, which can say anything"
    )


def test_an_id_beyond_the_vocabulary_is_named() -> None:
    """Decoding an id that no text can have is a clear error."""
    with pytest.raises(DataError) as error:
        Bytes().decode([257])
    assert str(error.value) == "DataError: token 257 is beyond the vocabulary of 257 (bytes)"


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    """A directory without one says so."""
    with pytest.raises(DataError) as error:
        load_tokenizer(tmp_path)
    assert str(error.value) == (
        f"DataError: there is no tokenizer in {tmp_path}\n"
        f"  where  {tmp_path}/tokenizer.json\n"
        "  try    ganeum prepare … writes one beside train.bin"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ganeum.json", "{"),
        ("ganeum.json", '{"kind": "characters"}'),
        ("ganeum.json", "[]"),
        ("tokenizer.json", "{"),
    ],
)
def test_a_damaged_tokenizer_is_named(tmp_path: Path, name: str, content: str) -> None:
    """Of one that `prepare` wrote, whatever is wrong with its files, the error names the file and the way out."""
    (tmp_path / "ganeum.json").write_text('{"kind": "bpe"}')
    (tmp_path / name).write_text(content)
    why = {
        "{": "it is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "[]": "it is JSON, but not what a tokenizer writes",
    }.get(content, "it is JSON, but 'characters' is missing in it")
    with pytest.raises(DataError) as error:
        load_tokenizer(tmp_path)
    assert str(error.value) == (
        f"DataError: the tokenizer in {tmp_path} is damaged\n"
        f"  where  {tmp_path}/{name}\n"
        f"  why    {why}\n"
        "  try    prepare the data again: ganeum prepare … --overwrite"
    )


MAGIC = '{"added_tokens": [{"id": 0, "content": "<|endoftext|>", "special": true}], "model": {"type": "Magic"}}'


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("tokenizer.json", "", "it is empty"),
        ("tokenizer.json", MAGIC[:40], "it is not JSON: Unterminated string starting at: line 1 column 40 (char 39)"),
        ("tokenizer.json", "\xff", "it is not JSON: 'utf-8' codec can't decode byte 0xff in position 0: "
         "invalid start byte"),
        ("tokenizer.json", '{"a": 1}', "it is JSON, but 'added_tokens' is missing in it"),
        ("tokenizer.json", "[1]", "it is JSON, but not what a tokenizer writes"),
        ("tokenizer_config.json", '"eos"', "it is JSON, but not what a tokenizer writes"),
    ],
)  # fmt: skip
def test_a_damaged_tokenizer_of_another_library(tmp_path: Path, name: str, content: str, why: str) -> None:
    """What the user named is to be fetched again; preparing again would mend nothing."""
    (tmp_path / "tokenizer.json").write_text(MAGIC)
    (tmp_path / name).write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as error:
        load_tokenizer(tmp_path)
    assert str(error.value) == (
        f"DataError: {tmp_path}/{name} is no tokenizer that can be read\n"
        f"  where  {tmp_path}/{name}\n"
        f"  why    {why}\n"
        "  try    fetch it again, or name another: a tokenizer.json, a SentencePiece .model, or a directory with one"
    )


def test_an_unknown_kind_is_named(tmp_path: Path) -> None:
    """A kind of a later version is not taken for another."""
    (tmp_path / "ganeum.json").write_text(json.dumps({"kind": "morse"}))
    with pytest.raises(DataError, match="a tokenizer of kind 'morse' is not known here"):
        load_tokenizer(tmp_path)
