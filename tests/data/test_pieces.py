"""SentencePiece models keep the library's ids, and each id's bytes are what it decodes to."""

import io
import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from ganeum.data.files import Source
from ganeum.data.pieces import SentencePiece
from ganeum.data.prepare import Preparation, prepare
from ganeum.data.tokenizer import load_tokenizer
from ganeum.errors import DataError, MissingExtra

TEXTS = ["The gauge was a wizard's, 123 times.", "가늠자와 가늠쇠", "def x(): return 'naïve' 🙂", "aa bb ab ba"] * 20
LLAMA = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
         "remove_extra_whitespaces": False, "allow_whitespace_only_pieces": True}  # fmt: skip
STYLES: dict[str, dict[str, object]] = {
    "llama": LLAMA,
    "plain": LLAMA | {"add_dummy_prefix": False, "model_type": "unigram"},
    "t5": {"model_type": "unigram"},  # NFKC, spaces trimmed, an unknown token
}


@lru_cache
def model(style: str, **more: int) -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=written, vocab_size=420 if "byte_fallback" in STYLES[style] else 80,
        hard_vocab_limit=False, minloglevel=2, **STYLES[style], **more,
    )  # fmt: skip
    return written.getvalue()


PIECES = st.sampled_from(
    ["The", " gauge", "가늠", " ", "  ", "\n", "naïve", "é", "e\u0301", "🙂", "123", "</s>", "<0x41>"]
)


@pytest.mark.parametrize("style", STYLES)
@given(parts=st.lists(PIECES, max_size=20))
def test_ids_are_the_librarys(style: str, parts: list[str]) -> None:
    """The same ids, none of them the end of a text, though the text spells it."""
    text, ours = "".join(parts), SentencePiece(model(style))
    assert sentencepiece.SentencePieceProcessor(model_proto=model(style)).encode(text) == ours.encode(text)
    assert ours.end_of_text not in ours.encode(text)


@pytest.mark.parametrize(("style", "prefix"), [("llama", " "), ("plain", "")])
@given(parts=st.lists(PIECES, min_size=1, max_size=20))
def test_nothing_is_lost_with_byte_fallback(style: str, prefix: str, parts: list[str]) -> None:
    """Decoding gives the text, behind the one space that most models set, and the lengths add up to its UTF-8."""
    text, ours = "".join(parts), SentencePiece(model(style))
    ids = ours.encode(text)
    assert prefix + text == ours.decode(ids)
    assert len((prefix + text).encode()) == int(ours.byte_lengths()[ids].sum())
    assert text == sentencepiece.SentencePieceProcessor(model_proto=model(style)).decode(ids)


def test_normalised_text_is_what_is_counted() -> None:
    """A model that normalises (NFKC: ½ is 1⁄2) and trims spaces decodes to the text as it sees it."""
    ours = SentencePiece(model("t5"))
    ids = ours.encode("  The   gauge ")
    assert " The gauge" == ours.decode(ids)
    assert 10 == int(ours.byte_lengths()[ids].sum())


def test_text_is_prepared_and_sampled_elsewhere(tmp_path: Path) -> None:
    """A .model file or a directory as on the hub: the model's own end of text, and tokenizer/ needs nothing else."""
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "tokenizer.model").write_bytes(model("llama"))
    (tmp_path / "a.txt").write_text("The gauge. " * 120_000)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model("llama"))
    expected = [*theirs.encode((tmp_path / "a.txt").read_text()), theirs.eos_id()]
    for place in ("hub", "hub/tokenizer.model"):
        what = Preparation((Source(tmp_path / "a.txt"),), tmp_path / "out", str(tmp_path / place), overwrite=True)
        assert "sentencepiece" == prepare(what).meta.tokenizer
        assert expected == np.fromfile(tmp_path / "out" / "train.bin", "<u2").tolist()
    again = load_tokenizer(tmp_path / "out" / "tokenizer")
    assert (theirs.eos_id(), "</s>") == (again.end_of_text, again.decode([again.end_of_text or 0]))


def test_an_end_that_the_model_lacks_is_asked_for() -> None:
    """Trained with eos_id=-1, the control tokens are listed; one that is none is refused; '' is none."""
    without = model("t5", eos_id=-1)
    with pytest.raises(DataError) as error:
        SentencePiece(without)
    assert str(error.value) == (
        "DataError: the SentencePiece model has no token that ends a text\n"
        "  why    it was trained with eos_id=-1\n"
        "  try    --end-of-text TOKEN; its control tokens are <s>\n"
        "         (--end-of-text '' where nothing is to stand between documents)"
    )
    assert 1 == SentencePiece(without, "<s>").end_of_text
    assert SentencePiece(without, "").end_of_text is None
    with pytest.raises(DataError, match="has no token '<eos>' to end a text with"):
        SentencePiece(without, "<eos>")


def test_a_file_that_is_no_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever else has that name is an error, in tokenizer/ too, and the library says nothing of its own."""
    file = tmp_path / "x.model"
    for content in (b"nothing of the kind", b"", model("t5")[:-9]):
        file.write_bytes(content)
        with pytest.raises(DataError) as error:
            load_tokenizer(file)
        assert str(error.value) == (
            f"DataError: {file} is no tokenizer that can be read\n"
            f"  where  {file}\n"
            "  why    it is no SentencePiece model, or not all of one\n"
            "  try    fetch it again, or name another: a tokenizer.json, a SentencePiece .model, "
            "or a directory with one"
        )
    assert "" == capfd.readouterr().err
    (tmp_path / "ganeum.json").write_text(json.dumps({"kind": "sentencepiece", "end_of_text": "</s>"}))
    with pytest.raises(DataError, match="there is no tokenizer in"):
        load_tokenizer(tmp_path)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error gives the pip line."""
    monkeypatch.setattr("ganeum.data.pieces.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as error:
        SentencePiece(b"")
    assert str(error.value) == (
        "MissingExtra: a SentencePiece model needs the package sentencepiece, which is not installed\n"
        '  try    pip install "ganeum[sentencepiece]"'
    )
