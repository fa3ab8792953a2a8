"""Tokenizers: text to ids and back, each id standing for known bytes, so that every byte of a text is accounted for."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ganeum.errors import DataError

Ids = npt.NDArray[np.uint32]
END_OF_TEXT = "<|endoftext|>"
_KIND_FILE = "ganeum.json"  # {"kind": …} and what that kind needs; vocabularies lie beside it
_MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")  # as SentencePiece's users name theirs


class Tokenizer(ABC):
    """What turns text into ids below ``vocab_size`` and back.

    The promise our own kinds keep, for any text that is valid Unicode: ``decode(encode(text)) == text``, and the byte
    lengths of its ids add up to ``len(text.encode())``. Text that looks like the end-of-text token is only text.
    huggingface and sentencepiece promise the same of the text as they normalise it.

    Attributes:
        kind: bpe, gpt2, bytes, characters, huggingface or sentencepiece.
        cuts: a text cut in front of white space that follows something else has the same tokens.
        token_bytes: the bytes of UTF-8 that each id stands for; a special token stands for none.
        end_of_text: the id that ends a document; None where the vocabulary has none (nanoGPT's characters).
        end_text: how that token is written.
    """

    kind: str
    cuts = True

    def __init__(self, token_bytes: Sequence[bytes], end_of_text: int | None, end_text: str = END_OF_TEXT) -> None:
        self.token_bytes, self.end_of_text, self.end_text = tuple(token_bytes), end_of_text, end_text

    @property
    def vocab_size(self) -> int:
        """How many ids there are."""
        return len(self.token_bytes)

    @abstractmethod
    def encode_array(self, text: str) -> Ids:
        """The ids of ``text`` (valid Unicode), shape (n_tokens,); no end-of-text token is added.

        Raises:
            DataError: a character that the vocabulary lacks (characters only; the others can say anything).
        """

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What ``ganeum.json`` says beside the kind."""

    def encode(self, text: str) -> list[int]:
        """As ``encode_array``; halves of surrogate pairs, which a shell may hand over, become U+FFFD."""
        ids: list[int] = self.encode_array(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")).tolist()
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``: U+FFFD where they end inside a character, ``end_text`` for the token that ends one.

        Raises:
            DataError: an id beyond the vocabulary.
        """
        parts = []
        for id in ids:
            if not 0 <= id < self.vocab_size:
                raise DataError(f"token {id} is beyond the vocabulary of {self.vocab_size:,} ({self.kind})")
            parts.append(self.end_text.encode() if id == self.end_of_text else self.token_bytes[id])
        return b"".join(parts).decode("utf-8", "replace")

    def byte_lengths(self) -> npt.NDArray[np.int32]:
        """How many bytes of UTF-8 each id stands for, shape (vocab_size,); 0 for special tokens."""
        return np.array([len(token) for token in self.token_bytes], np.int32)

    def save(self, directory: Path) -> None:
        """Write what ``load_tokenizer`` reads into ``directory``, made if it is not there."""
        directory.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"kind": self.kind, **self.settings()}, ensure_ascii=False, indent=2) + "\n"
        (directory / _KIND_FILE).write_text(text, encoding="utf-8")


class Bytes(Tokenizer):
    """Every byte of UTF-8 is a token; 256 ends a document."""

    kind = "bytes"

    def __init__(self) -> None:
        super().__init__([bytes([byte]) for byte in range(256)] + [b""], 256)

    def encode_array(self, text: str) -> Ids:
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint32)

    def settings(self) -> dict[str, object]:
        return {}


class Characters(Tokenizer):
    """Every character that occurs in the corpus is a token.

    Args:
        characters: those there are; a character's place is its id. ``prepare`` sorts them by code point, which gives
            the ids that nanoGPT's ``shakespeare_char`` gives.
        end_of_text: whether one more id ends a document (nanoGPT has none).
    """

    kind = "characters"

    def __init__(self, characters: str, *, end_of_text: bool = True) -> None:
        self.characters = characters
        tokens = [character.encode() for character in characters]
        super().__init__(tokens + [b""] * end_of_text, len(tokens) if end_of_text else None)
        codes = _code_points(characters)
        self._id_of = np.full(codes.max(initial=0) + 2, -1, np.int64)  # the last place stands for all beyond
        self._id_of[codes] = np.arange(len(codes))

    def encode_array(self, text: str) -> Ids:
        codes = _code_points(text)
        ids = self._id_of[np.minimum(codes, len(self._id_of) - 1)]
        if (unknown := np.flatnonzero(ids < 0)).size:
            place = int(unknown[0])
            raise DataError(
                f"the vocabulary of {len(self.characters):,} characters has no {text[place]!r}",
                where=f"character {place + 1:,} of the text",
                why="it never occurs in the corpus that the vocabulary was taken from",
                suggestion="other words, or data prepared with --tokenizer bytes or bpe, which can say anything",
            )
        return ids.astype(np.uint32)

    def settings(self) -> dict[str, object]:
        return {"characters": self.characters, "end_of_text": self.end_of_text is not None}


def _code_points(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def load_tokenizer(place: str | Path, end_of_text: str | None = None) -> Tokenizer:
    """The tokenizer that ``save`` wrote, or another library's.

    Args:
        place: a directory; or a ``tokenizer.json`` of Hugging Face's, or a ``.model`` of SentencePiece's.
        end_of_text: the token that ends a text, where neither ``save`` nor the library's files say it; empty: none.

    Raises:
        DataError: nothing is there, it is damaged, or of a kind that ganeum does not know.
        MissingExtra: SentencePiece is needed and not installed.
    """
    from ganeum.data.bpe import BPE
    from ganeum.data.huggingface import HuggingFace, read_huggingface
    from ganeum.data.pieces import MODEL, SentencePiece

    directory = Path(place)
    saved = (directory / _KIND_FILE).exists()
    file = directory / _KIND_FILE if saved else _of_another_library(directory)
    try:
        if not saved:
            if file.suffix == ".model":
                return SentencePiece(file.read_bytes(), end_of_text)
            return read_huggingface(file, end_of_text)
        settings = json.loads(file.read_bytes())
        match settings.get("kind"):
            case "bytes":
                return Bytes()
            case "characters":
                return Characters(str(settings["characters"]), end_of_text=bool(settings["end_of_text"]))
            case "bpe" | "gpt2" as kind:
                file = directory / "tokenizer.json"
                return BPE.load(file, kind=kind)
            case "huggingface":
                end, file = str(settings["end_of_text"]), directory / "tokenizer.json"
                return HuggingFace(file.read_text(encoding="utf-8"), end)
            case "sentencepiece":
                end, file = str(settings["end_of_text"]), directory / MODEL
                return SentencePiece(file.read_bytes(), end)
            case kind:
                raise DataError(
                    f"a tokenizer of kind {kind!r} is not known here",
                    where=str(directory / _KIND_FILE),
                    why="there are bpe, gpt2, bytes, characters, huggingface and sentencepiece",
                    suggestion="prepare the data again: ganeum prepare …",
                )
    except FileNotFoundError as error:
        raise DataError(
            f"there is no tokenizer in {directory}",
            where=str(error.filename),
            suggestion="ganeum prepare … writes one beside train.bin",
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if not saved:
            raise unreadable(file, error) from error
        raise DataError(
            f"the tokenizer in {directory} is damaged",
            where=str(file),
            why=_why(error),
            suggestion="prepare the data again: ganeum prepare … --overwrite",
        ) from error


def unreadable(file: Path, error: Exception) -> DataError:
    """The error for a file of another library's that is none of its tokenizers, or not all of one."""
    return DataError(
        f"{file} is no tokenizer that can be read",
        where=str(file.absolute()),
        why=_why(error),
        suggestion="fetch it again, or name another: a tokenizer.json, a SentencePiece .model, or a directory with one",
    )


def _of_another_library(place: Path) -> Path:
    """The file itself, or the one in a directory: Hugging Face's before SentencePiece's."""
    there = [place / name for name in ("tokenizer.json", *_MODELS) if (place / name).is_file()]
    return place if place.is_file() else there[0] if there else place / "tokenizer.json"


def _why(error: Exception) -> str:
    match error:
        case json.JSONDecodeError(doc=""):
            return "it is empty"
        case json.JSONDecodeError() | UnicodeDecodeError():
            return f"it is not JSON: {error}"
        case KeyError():
            return f"it is JSON, but {error} is missing in it"
        case ValueError():  # our own
            return str(error)
        case _:
            return "it is JSON, but not what a tokenizer writes"
