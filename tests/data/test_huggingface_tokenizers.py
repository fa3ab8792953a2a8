"""Any tokenizer.json keeps the ids of Hugging Face's library, and each id's bytes are what it decodes to."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ganeum.data.bpe import BPE
from ganeum.data.files import Source
from ganeum.data.for_transformers import save_for_transformers
from ganeum.data.huggingface import HuggingFace
from ganeum.data.prepare import Preparation, prepare
from ganeum.data.tokenizer import load_tokenizer
from ganeum.errors import DataError

TEXTS = [
    "The gauge was a wizard's, 123 times. ",
    "가늠자와 가늠쇠\n\n  def x(): return 'naïve' 🙂 ",
    "aa bb ab ba ",
] * 20
SPECIALS = ["<pad>", "<s>", "</s>", "<|im_end|>"]


@lru_cache
def described(style: str) -> str:
    """Small tokenizers in the styles of known models, trained by the library itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    match style:
        case "qwen":  # NFC, its own split, byte-level
            made = Tokenizer(models.BPE())
            made.normalizer = normalizers.NFC()
            split = pre_tokenizers.Split(Regex(r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
            made.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
            made.decoder = decoders.ByteLevel()
            trainer = trainers.BpeTrainer(
                vocab_size=400, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
            )
        case "llama":  # SentencePiece's BPE: ▁ for a space, one in front of every text, bytes for what is unknown
            bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
            made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
            made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
            made.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
            )
            trainer = trainers.BpeTrainer(
                vocab_size=420, special_tokens=["<unk>", *SPECIALS, *bytes_], limit_alphabet=40, show_progress=False
            )
        case "metaspace":
            made = Tokenizer(models.Unigram())
            made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
            trainer = trainers.UnigramTrainer(
                vocab_size=200, special_tokens=["<unk>", *SPECIALS], unk_token="<unk>", show_progress=False
            )
        case "bert":
            made = Tokenizer(models.WordPiece(unk_token="<unk>"))
            made.normalizer = normalizers.BertNormalizer(lowercase=True)
            made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
            trainer = trainers.WordPieceTrainer(
                vocab_size=200, special_tokens=["<unk>", *SPECIALS], show_progress=False
            )
    made.train_from_iterator(TEXTS, trainer)
    if style == "llama":  # the bytes are tokens like others, not special ones
        content = json.loads(made.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["id"] < 5]
        made = Tokenizer.from_str(json.dumps(content))
    made.add_tokens([AddedToken("<think>", normalized=False)])
    return str(made.to_str())


def both(style: str) -> tuple[HuggingFace, Tokenizer]:
    theirs = Tokenizer.from_str(described(style))
    theirs.encode_special_tokens = True
    return HuggingFace(described(style), "</s>"), theirs


PIECES = st.sampled_from(
    ["The", " gauge", "가늠", " ", "  ", "\n", "naïve", "é", "e\u0301", "🙂", "123", "<think>", "</s>"]
)


@pytest.mark.parametrize("style", ["qwen", "llama", "metaspace", "bert"])
@given(parts=st.lists(PIECES, max_size=20))
def test_ids_are_the_librarys(style: str, parts: list[str]) -> None:
    """The same ids, none of them special, though the text spells </s> (which the library's unigram takes for one)."""
    ours, theirs = both(style)
    text = "".join(parts)
    if "</s>" not in text or style != "metaspace":
        assert theirs.encode(text, add_special_tokens=False).ids == ours.encode(text)
    assert ours.end_of_text not in ours.encode(text)


@pytest.mark.parametrize("style", ["qwen", "llama"])
@given(parts=st.lists(PIECES, min_size=1, max_size=20))
def test_bytes_are_those_of_the_normalised_text(style: str, parts: list[str]) -> None:
    """Decoding gives the text as the library normalises it, and the lengths of the ids add up to its UTF-8."""
    ours, theirs = both(style)
    text = "".join(parts)
    ids = ours.encode(text)
    expected = theirs.normalizer.normalize_str(text).replace("▁", " ") if "<think>" not in text else ours.decode(ids)
    assert expected == ours.decode(ids)
    assert len(ours.decode(ids).encode()) == int(ours.byte_lengths()[ids].sum())
    assert theirs.decode(ids) == ours.decode(ids).removeprefix(" " if style == "llama" else "")


@pytest.mark.parametrize(("style", "text"), [("metaspace", "The gauge was a wizard's"), ("bert", "the gauge was")])
def test_words_that_are_joined_have_their_spaces(style: str, text: str) -> None:
    """Metaspace's ▁ and the space between WordPiece's words are bytes of the token that they stand before."""
    ours, theirs = both(style)
    ids = ours.encode(text)
    assert " " + text == ours.decode(ids)
    assert text == theirs.decode(ids)


def test_text_is_prepared_and_sampled_elsewhere(tmp_path: Path) -> None:
    """A directory as on the hub: eos_token ends documents, and the run's tokenizer/ needs nothing else."""
    hub = tmp_path / "model"
    hub.mkdir()
    (hub / "tokenizer.json").write_text(described("qwen"))
    (hub / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<|im_end|>", "special": True}}))
    (tmp_path / "a.txt").write_text("The gauge\u0301. " * 100_000 + "x" * 30)
    meta = prepare(Preparation((Source(tmp_path / "a.txt"),), tmp_path / "out", tokenizer=str(hub))).meta
    theirs = Tokenizer.from_str(described("qwen"))
    ids = np.fromfile(tmp_path / "out" / "train.bin", "<u2").tolist()
    assert [*theirs.encode((tmp_path / "a.txt").read_text()).ids, theirs.token_to_id("<|im_end|>")] == ids
    assert "huggingface" == meta.tokenizer
    again = load_tokenizer(tmp_path / "out" / "tokenizer")
    assert (ids[-1], "<|im_end|>") == (again.end_of_text, again.decode(ids[-1:]))


def test_gpt2s_own_kind_is_encoded_the_fast_way(tmp_path: Path) -> None:
    """A byte-level BPE with GPT-2's split is our BPE; one with merges out of the ids' order, or another end, not."""
    bpe = BPE.train(TEXTS, 300)
    content = json.loads(bpe._description)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "bpe" == load_tokenizer(tmp_path / "tokenizer.json").kind
    assert "huggingface" == load_tokenizer(tmp_path / "tokenizer.json", "").kind
    content["model"]["merges"][3:5] = reversed(content["model"]["merges"][3:5])
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert "huggingface" == load_tokenizer(tmp_path / "tokenizer.json").kind


def test_an_end_that_nothing_names_is_asked_for(tmp_path: Path) -> None:
    """Without eos_token the special tokens are listed; --end-of-text takes one of them, or '' for none."""
    file = tmp_path / "tokenizer.json"
    file.write_text(described("qwen"))
    with pytest.raises(DataError) as error:
        load_tokenizer(file)
    assert str(error.value) == (
        f"DataError: nothing says which token ends a text in {file}\n"
        f"  where  {tmp_path}/tokenizer_config.json\n"
        "  why    the file is not there\n"
        "  try    --end-of-text TOKEN; the special tokens are <pad>, <s>, </s>, <|im_end|>\n"
        "         (--end-of-text '' where nothing is to stand between documents)"
    )
    assert 2 == load_tokenizer(file, "</s>").end_of_text
    assert load_tokenizer(file, "").end_of_text is None
    with pytest.raises(DataError) as error:
        load_tokenizer(file, "<eos>")
    assert str(error.value) == (
        "DataError: the vocabulary has no token '<eos>' to end a text with\n"
        "  try    --end-of-text with another; the special tokens are <pad>, <s>, </s>, <|im_end|>"
    )


def test_transformers_reads_what_is_exported(tmp_path: Path) -> None:
    """AutoTokenizer gives the same ids and the same end of text, though the file would set <s> before a text."""
    made = Tokenizer.from_str(described("qwen"))
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    made.enable_truncation(3)
    ours = HuggingFace(made.to_str(), "<|im_end|>")
    save_for_transformers(ours, tmp_path, block_size=32)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert theirs(TEXTS[1])["input_ids"] == ours.encode(TEXTS[1])
    assert ("<|im_end|>", ours.end_of_text) == (theirs.eos_token, theirs.eos_token_id)
    assert ours.encode(TEXTS[1]) == load_tokenizer(tmp_path).encode(TEXTS[1])


def test_what_the_library_cannot_read_is_damaged(tmp_path: Path) -> None:
    """A model of a type that it does not know is an error with its reason."""
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": {"type": "Magic"}}))
    with pytest.raises(DataError, match=r"is no tokenizer that can be read[\s\S]*tokenizers cannot read it"):
        load_tokenizer(tmp_path / "tokenizer.json", "")
