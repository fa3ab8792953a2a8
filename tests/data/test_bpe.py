"""Byte-level BPE: trained here the same way every time, and encoded as Hugging Face's tokenizers does."""

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest
import tokenizers
from gpt2_slice import gpt2_slice
from hypothesis import given
from hypothesis import strategies as st

from ganeum.data import gpt2 as gpt2_module
from ganeum.data.bpe import BPE, bytes_of
from ganeum.data.gpt2 import gpt2, gpt2_if_cached
from ganeum.errors import DataError

WIZARD = "Harry Potter was a wizard."
HOUSE = [Path(json.__file__).read_text(), Path(subprocess.__file__).read_text(), "가늠자와 가늠쇠, 가늠하다 " * 20]


@lru_cache
def trained() -> tuple[BPE, tokenizers.Tokenizer]:
    bpe = BPE.train(HOUSE, 600)
    theirs = tokenizers.Tokenizer.from_str(bpe._description)
    theirs.encode_special_tokens = True  # text that spells a special token is text
    return bpe, theirs


@given(
    st.lists(st.sampled_from([*" \n\t'.,()=_0129", "self", "return", "import os", "'s", "가늠", "é", "\u3000", "🙂"]))
)
def test_tiktoken_encodes_what_tokenizers_trained(parts: list[str]) -> None:
    """Our ids are those that Hugging Face's library gives for the same tokenizer.json."""
    ours, theirs = trained()
    text = "".join(parts)
    assert theirs.encode(text).ids == ours.encode(text)
    assert theirs.decode(ours.encode(text), skip_special_tokens=False) == text


def test_a_whole_file_has_the_same_ids() -> None:
    """The same over tens of kilobytes of source code that the merges were not learnt from."""
    ours, theirs = trained()
    text = Path(sys.modules["typing"].__file__ or "").read_text()
    assert theirs.encode(text).ids == ours.encode(text)


def test_the_asked_number_of_ids_comes_out() -> None:
    """The 256 bytes, the end-of-text token and the merges together make vocab_size."""
    ours, _ = trained()
    assert (600, 0) == (ours.vocab_size, ours.end_of_text)


def test_a_short_text_gives_fewer_ids() -> None:
    """`aaaa bb` has few pairs, so training ends soon after the 257 ids that are always there."""
    assert 257 < BPE.train(["aaaa bb", "aaaa bb"], 5000).vocab_size < 265


def test_words_without_end_cost_no_time_and_teach_nothing() -> None:
    """400,000 times the same letter, mark or space, which would take minutes, changes nothing in what is learnt."""
    plain = BPE.train(["the gauge "] * 50, 300)
    for letter in ("x", "=", " ", "가", "7", "_"):
        assert plain.token_bytes == BPE.train(["the gauge "] * 50 + [letter * 400_000], 300).token_bytes


def test_prose_without_spaces_is_learnt() -> None:
    """Chinese or Japanese has no spaces for pages; its marks end words, and its words are learnt."""
    bpe = BPE.train(["機械学習は、面白い。" * 200], 300)
    assert 3 >= len(bpe.encode("機械学習は"))


def test_training_does_not_depend_on_threads() -> None:
    """One thread or four: the same tokenizer.json, byte for byte."""
    code = (
        "import json, subprocess, sys; from pathlib import Path; from ganeum.data.bpe import BPE\n"
        "texts = [Path(m.__file__).read_text() for m in (json, subprocess)] * 3\n"
        "sys.stdout.write(BPE.train(texts, 700)._description)"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"RAYON_NUM_THREADS": threads},
            capture_output=True,
            check=True,
        ).stdout
        for threads in ("1", "4")
    }
    assert len(made) == 1


def test_merges_are_found_again_from_ranks() -> None:
    """tiktoken's form has no merges; those worked out from it are the ones that training made."""
    ours, theirs = trained()
    ranks = {token: id - 1 for id, token in enumerate(ours.token_bytes) if token}  # id 0 is the special token
    again = json.loads(BPE.from_ranks(ranks, "bpe")._description)
    assert json.loads(theirs.to_str())["model"]["merges"] == again["model"]["merges"]


def test_a_token_out_of_reach_is_refused() -> None:
    """`abc` without `ab` or `bc` before it cannot have come from merges."""
    ranks = {bytes([byte]): byte for byte in range(256)} | {b"abc": 256}
    with pytest.raises(ValueError, match=r"b'abc' \(id 256\) cannot be reached"):
        BPE.from_ranks(ranks, "bpe")


def test_document_000s_ids() -> None:
    """Document 000's six ids of its sentence, among 50,257; 50256 ends a text."""
    bpe = gpt2_slice()
    assert [18308, 14179, 373, 257, 18731, 13] == bpe.encode(WIZARD)
    assert (50_257, 50_256) == (bpe.vocab_size, bpe.end_of_text)
    assert bpe.decode([14179]) == " Potter"


def test_gpt2_itself_where_it_can_be_had() -> None:
    """The real vocabulary, from tiktoken's cache or $GANEUM_GPT2_VOCABULARY, against the ids of document 000."""
    named = os.environ.get("GANEUM_GPT2_VOCABULARY")
    bpe = gpt2(Path(named)) if named else gpt2_if_cached()
    if bpe is None:
        pytest.skip("GPT-2's vocabulary is not on this machine")
    assert [18308, 14179, 373, 257, 18731, 13] == bpe.encode(WIZARD)
    assert (50_257, 50_256) == (bpe.vocab_size, bpe.end_of_text)
    theirs = tokenizers.Tokenizer.from_str(bpe._description)
    assert theirs.encode(HOUSE[0]).ids == bpe.encode(HOUSE[0])


def test_a_vocabulary_without_room_for_bytes_is_refused() -> None:
    """256 ids are one too few."""
    with pytest.raises(DataError) as error:
        BPE.train(["abc"], 256)
    assert str(error.value) == (
        "DataError: a BPE vocabulary of 256 is too small\n"
        "  why    the 256 bytes and the end-of-text token are always in it: 257\n"
        "  try    --vocab-size 257 or more, or --tokenizer bytes"
    )


def test_gpt2_that_cannot_be_had_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither cached nor reachable: one error with the ways out."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(
        "tiktoken.get_encoding", lambda name: (_ for _ in ()).throw(ConnectionError("no route to host"))
    )
    with pytest.raises(DataError) as error:
        gpt2()
    assert str(error.value) == (
        "DataError: GPT-2's vocabulary cannot be had\n"
        "  where  https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/vocab.bpe\n"
        f"  why    it is not in tiktoken's cache ({tmp_path}), and fetching it failed: "
        "ConnectionError: no route to host\n"
        "  try    --gpt2-vocabulary FILE with one of gpt2.tiktoken, r50k_base.tiktoken, encoder.json, vocab.json, "
        "vocab.bpe, merges.txt from a machine that has it\n"
        "         (the PyPI package openai-whisper holds gpt2.tiktoken),\n"
        "         or --tokenizer bpe, which is trained on your own text"
    )
    assert gpt2_if_cached() is None


def test_openais_and_hugging_faces_files_say_the_same(tmp_path: Path) -> None:
    """ranks, encoder.json and vocab.bpe of one vocabulary are read as the same ids."""
    bpe = gpt2_slice()
    content = json.loads(bpe._description)["model"]
    ranks = {bytes_of(token): id for token, id in content["vocab"].items() if token != "<|endoftext|>"}
    lines = [
        f"{base64.b64encode(token).decode()} {id}" for token, id in sorted(ranks.items(), key=lambda item: item[1])
    ]
    (tmp_path / "gpt2.tiktoken").write_text("\n".join(lines) + "\n")
    (tmp_path / "encoder.json").write_text(json.dumps(content["vocab"]))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in content["merges"]))
    read = [gpt2_module._read(tmp_path / name) for name in ("gpt2.tiktoken", "encoder.json", "merges.txt")]
    assert read == [ranks] * 3
    assert gpt2_module._read(tmp_path) == ranks


def test_another_vocabulary_is_not_taken_for_gpt2s(tmp_path: Path) -> None:
    """A file of the right form with other merges is refused by its checksum, tiktoken's own for this vocabulary."""
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(DataError) as error:
        gpt2(tmp_path / "merges.txt")
    assert str(error.value) == (
        "DataError: this vocabulary is not GPT-2's\n"
        f"  where  {tmp_path}/merges.txt\n"
        "  why    it has 257 tokens, or others in another order; GPT-2 has 50,256\n"
        "  try    GPT-2's own file, or --tokenizer bpe, which is trained on your own text"
    )


@pytest.mark.parametrize(
    ("name", "content"), [("x.tiktoken", "a b c"), ("encoder.json", "{"), ("merges.txt", "\x00 a")]
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path: Path, name: str, content: str) -> None:
    """Whatever is in it, the error names the file and what would do."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=f"(?s)no GPT-2 vocabulary can be read from {tmp_path}/{name}.*vocab.bpe"):
        gpt2(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"none of gpt2\.tiktoken"):
        gpt2(tmp_path / "empty")


def test_ctrl_c_ends_training_before_the_texts_end() -> None:
    """The texts are not read to their end first, though threads of the library read them."""
    read = 0

    def texts() -> Iterator[str]:
        nonlocal read
        for read in range(20_000):
            if read == 1000:
                os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.0001)
            yield f"some words and the number {read}"

    with pytest.raises(KeyboardInterrupt):
        BPE.train(texts(), 300)
    assert read < 10_000
