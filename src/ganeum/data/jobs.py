"""What a worker does with a task: count what is there, or turn it into tokens."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ganeum.data.blocks import Block, Document, Tally, documents, held_out_share
from ganeum.data.rows import TEXT_COLUMN, Column
from ganeum.data.tokenizer import Tokenizer, load_tokenizer
from ganeum.errors import DataError


@dataclass(frozen=True)
class Rules:
    """How text is read and divided.

    Attributes:
        separator: what stands between documents in a file; None: a file is a document.
        seed, threshold: a document is held out whose hash lies below the threshold (sources that say so aside).
        strict: bytes that are not UTF-8 are an error, not replaced.
        column: where the text of a row is.
    """

    separator: bytes | None
    seed: int
    threshold: float
    strict: bool
    column: Column = TEXT_COLUMN

    def documents(self, task: list[Block], tally: Tally | None = None) -> Iterator[Document]:
        """The documents, or parts of one, that a task holds; rows are counted into ``tally``."""
        for block in task:
            yield from documents(block, self.separator, self.column, tally)

    def part_of(self, document: Document) -> Literal["train", "val"]:
        """Where the document belongs."""
        if document.file.part != "split":
            return document.file.part
        return "val" if held_out_share(self.seed, document.file, document.number) < self.threshold else "train"

    def text_of(self, document: Document) -> tuple[str, int]:
        """The text, and how many bytes were replaced by U+FFFD.

        Raises:
            DataError: ``strict``, and there is a byte that is not UTF-8.
        """
        try:
            return document.data.decode("utf-8"), 0
        except UnicodeDecodeError as error:
            if self.strict:
                raise _not_utf8(document, error) from error
        replaced = _Replacing()
        codecs.register_error("ganeum.replace", replaced)
        return document.data.decode("utf-8", "ganeum.replace"), replaced.bytes


class _Replacing:
    """Python's ``replace``, counting the bytes it replaces."""

    def __init__(self) -> None:
        self.bytes = 0

    def __call__(self, error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeDecodeError)
        self.bytes += error.end - error.start
        return "\N{REPLACEMENT CHARACTER}", error.end


def _not_utf8(document: Document, error: UnicodeDecodeError) -> DataError:
    place = document.offset + error.start
    row = document.file.form != "text"
    return DataError(
        f"byte {error.start if row else place:,} is not UTF-8: 0x{document.data[error.start]:02x}",
        where=f"{document.file.path}, {f'text of row {document.number + 1}' if row else f'offset {place}'}",
        why=f"{error.reason}; --strict refuses what it cannot read exactly",
        suggestion="convert the file (iconv -f … -t utf-8), or leave --strict out: such bytes become U+FFFD",
    )


@dataclass
class Counted:
    """What is in a task. Hashes are of the documents that the hash divides: (smallest, largest), None without any.

    ``text_bytes``: after decompression.
    """

    read_bytes: int = 0
    text_bytes: int = 0
    documents: int = 0
    undecided: int = 0
    held_out: int = 0
    hashes: tuple[float, float] | None = None
    characters: frozenset[str] = frozenset()


@dataclass
class Encoded:
    """A task's tokens, and what they stand for."""

    read_bytes: int = 0
    tally: Tally = field(default_factory=Tally)
    replaced: dict[Path, int] = field(default_factory=dict)  # bytes, by file
    ids: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    documents: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    held_out: list[str] = field(default_factory=list)


_rules: Rules
_characters: bool
_tokenizer: Tokenizer
_dtype: npt.DTypeLike


def start_counting(rules: Rules, characters: bool) -> None:
    """Before ``count``: whether the characters that occur are wanted."""
    global _rules, _characters
    _rules, _characters = rules, characters


def count(task: list[Block]) -> Counted:
    """What is in a task; with ``strict`` also the place where bytes that are not UTF-8 are found."""
    found = Counted(sum(block.read for block in task), sum(len(block.data) for block in task))
    seen: set[str] = set()
    for document in _rules.documents(task):
        if _characters or _rules.strict:
            text, _ = _rules.text_of(document)
            if _characters:
                seen.update(text)
        if not document.opens:
            continue
        found.documents += 1
        if document.file.part == "split":
            value = held_out_share(_rules.seed, document.file, document.number)
            low, high = found.hashes or (value, value)
            found.hashes = min(low, value), max(high, value)
            found.undecided += 1
        found.held_out += _rules.part_of(document) == "val"
    found.characters = frozenset(seen)
    return found


def start_encoding(rules: Rules, tokenizer: Path, dtype: npt.DTypeLike) -> None:
    """Before ``encode``: loads the tokenizer."""
    global _rules, _tokenizer, _dtype
    _rules, _tokenizer, _dtype = rules, load_tokenizer(tokenizer), dtype


def encode(task: list[Block]) -> Encoded:
    """A task's tokens by part, each document followed by the end-of-text token where the tokenizer has one."""
    made = Encoded(read_bytes=sum(block.read for block in task))
    ids: dict[str, list[npt.NDArray[Any]]] = {"train": [], "val": []}
    end = [] if _tokenizer.end_of_text is None else [np.array([_tokenizer.end_of_text], _dtype)]
    for document in _rules.documents(task, made.tally):
        part = _rules.part_of(document)
        text, replaced = _rules.text_of(document)
        ids[part].append(_tokenizer.encode_array(text).astype(_dtype))
        if replaced:
            made.replaced[document.file.path] = made.replaced.get(document.file.path, 0) + replaced
        made.bytes[part] += len(text.encode()) if replaced else len(document.data)
        if document.opens:
            made.documents[part] += 1
            if part == "val":
                made.held_out.append(str(document.file.path.absolute()) if document.file.repeat else document.file.name)
        if document.closes:
            ids[part] += end
    made.ids = {part: np.concatenate(arrays) for part, arrays in ids.items() if arrays}
    return made
