"""Byte-level BPE with GPT-2's split into words, trained here by ``tokenizers`` or GPT-2's own; ``tiktoken`` encodes.

One file describes it, ``tokenizer.json`` in Hugging Face's format. Trained with ``tokenizers`` and encoded with
``tiktoken`` the ids are the same (tests/data/test_bpe.py), and ``tiktoken`` takes a quarter of the time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from ganeum.data.tokenizer import END_OF_TEXT, Ids, Tokenizer
from ganeum.data.words import Words
from ganeum.errors import DataError

if TYPE_CHECKING:
    import tokenizers

# GPT-2's (openai/gpt-2, src/encoder.py), possessive where nothing can be given back. No alternative goes on from a
# character that is not white space to one that is: text may be cut there and encoded in pieces (data/blocks.py).
WORDS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"

_ANY_RUN = re.compile(r"\S{1000}|\s{1000}")  # the quick look that nearly every text gets away with
_ENDLESS = re.compile(r"[^\W\d_]{1000,}|\d{1000,}|(?:[^\w\s]|_){1000,}|\s{1000,}")


class BPE(Tokenizer):
    """Byte pairs merged in the order of their ids.

    Args:
        description: the content of ``tokenizer.json``.
        kind: bpe or gpt2.

    Raises:
        ValueError: not a byte-level BPE that splits words as GPT-2 does.
    """

    def __init__(self, description: str, kind: str = "bpe") -> None:
        import tiktoken

        self.kind, self._description = kind, description
        content = json.loads(description)
        specials = {token["id"]: token["content"] for token in content["added_tokens"]}
        if not _splits_as_gpt2(content):
            raise ValueError("no byte-level BPE with GPT-2's split into words")
        ranks = {bytes_of(token): id for token, id in content["model"]["vocab"].items() if id not in specials}
        tokens = {id: token for token, id in ranks.items()} | dict.fromkeys(specials, b"")
        if sorted(tokens) != list(range(len(tokens))) or not all(bytes([byte]) in ranks for byte in range(256)):
            raise ValueError("ids are missing")
        ends = [id for id, text in specials.items() if text == END_OF_TEXT]
        super().__init__([tokens[id] for id in range(len(tokens))], ends[0] if ends else None)
        encoding = tiktoken.Encoding(kind, pat_str=WORDS, mergeable_ranks=ranks, special_tokens={})
        self._words = Words(encoding.encode_ordinary)

    def encode_array(self, text: str) -> Ids:
        return self._words.encode(text)

    def settings(self) -> dict[str, object]:
        return {}

    def save(self, directory: Path) -> None:
        super().save(directory)
        (directory / "tokenizer.json").write_text(self._description, encoding="utf-8")

    @classmethod
    def load(cls, path: Path, kind: str) -> BPE:
        """From a ``tokenizer.json``; raises FileNotFoundError, or ValueError or KeyError when it is damaged."""
        return cls(path.read_text(encoding="utf-8"), kind)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> BPE:
        """Merges learnt from ``texts``, which are read once and not kept.

        The same texts give the same merges on any number of threads. Fewer than ``vocab_size`` ids come out when no
        pair is left that occurs twice.

        Args:
            texts: pieces of documents.
            vocab_size: ids wanted, with the 256 bytes and the end-of-text token among them.

        Raises:
            DataError: ``vocab_size`` has no room for them.
        """
        refuse_small(vocab_size)
        from tokenizers import pre_tokenizers, trainers

        bpe = _empty()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        _interruptibly(bpe, map(_without_endless_words, _portions(texts)), trainer)
        return cls(bpe.to_str())

    @classmethod
    def from_ranks(cls, ranks: Mapping[bytes, int], kind: str) -> BPE:
        """From tiktoken's form of a vocabulary: bytes → id in the order of merging; the end-of-text id follows."""
        from tokenizers import AddedToken, models

        text_of = {token: "".join(_LETTER[byte] for byte in token) for token in ranks}
        merges = [
            (text_of[left], text_of[right])
            for token, rank in sorted(ranks.items(), key=lambda item: item[1])
            if len(token) > 1
            for left, right in [_last_merge(token, rank, ranks)]
        ]
        bpe = _empty(models.BPE(vocab={text_of[token]: id for token, id in ranks.items()}, merges=merges))
        bpe.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
        return cls(bpe.to_str(), kind)


def refuse_small(vocab_size: int) -> None:
    """Raises DataError where the ids that are always there leave no room."""
    if vocab_size < 257:
        raise DataError(
            f"a BPE vocabulary of {vocab_size} is too small",
            why="the 256 bytes and the end-of-text token are always in it: 257",
            suggestion="--vocab-size 257 or more, or --tokenizer bytes",
        )


def _portions(texts: Iterable[str]) -> Iterator[str]:
    """The texts in portions of 64 Ki characters: ``tokenizers`` gathers 256 at a time before it works on them."""
    for text in texts:
        for start in range(0, len(text), 2**16):
            yield text[start : start + 2**16]


def _interruptibly(bpe: tokenizers.Tokenizer, texts: Iterator[str], trainer: Any) -> None:
    """Train in a second thread: Ctrl-C reaches only the first one, which would be inside the library until the end."""
    stopped = Event()

    def until_stopped() -> Iterator[str]:
        for text in texts:
            if stopped.is_set():
                raise InterruptedError
            yield text

    with ThreadPoolExecutor(1) as other:
        training = other.submit(bpe.train_from_iterator, until_stopped(), trainer)
        try:
            training.result()
        except BaseException:
            stopped.set()
            raise


def _without_endless_words(text: str) -> str:
    """The text less runs of a thousand letters, digits, marks or spaces (a dump, a ruler): no words are learnt there.

    ``tokenizers`` takes time that grows with the square of a word's length: minutes for 400,000 times ``x``.
    """
    return _ENDLESS.sub("", text) if _ANY_RUN.search(text) else text


def _empty(model: Any = None) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer as HuggingFace
    from tokenizers import decoders, models, pre_tokenizers

    bpe = HuggingFace(model or models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    return bpe


def _splits_as_gpt2(content: dict[str, Any]) -> bool:
    words = content["pre_tokenizer"] or {}
    return (
        content["model"]["type"] == "BPE"
        and content["normalizer"] is None
        and (words.get("type"), words.get("use_regex"), words.get("add_prefix_space")) == ("ByteLevel", True, False)
    )


def _last_merge(token: bytes, rank: int, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that ``token`` was merged from: what is left of it when every earlier merge has been made."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(left + right, rank) for left, right in pairwise(parts)]
        first = min(range(len(joined)), key=joined.__getitem__)
        if joined[first] >= rank:
            break
        parts[first : first + 2] = [parts[first] + parts[first + 1]]
    if len(parts) != 2:
        raise ValueError(f"{token!r} (id {rank}) cannot be reached by merges of earlier tokens")
    return parts[0], parts[1]


SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]  # bytes that have a shape in Latin-1
BYTES = [*SHOWN, *(byte for byte in range(256) if byte not in SHOWN)]  # the order of GPT-2's first 256 ids
# GPT-2's printable letter for each byte: itself where it has a shape, else the next free one from 256 on.
_LETTER = {byte: chr(byte) if i < len(SHOWN) else chr(256 + i - len(SHOWN)) for i, byte in enumerate(BYTES)}
_BYTE = {letter: byte for byte, letter in _LETTER.items()}


def bytes_of(token: str) -> bytes:
    """The bytes that a token's printable letters stand for; raises KeyError for any other letter."""
    return bytes(_BYTE[letter] for letter in token)
