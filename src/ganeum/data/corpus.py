"""A prepared corpus: the tokens as memory maps, checked so that no damage surfaces later as an index error."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ganeum.data.gpt2 import gpt2_if_cached
from ganeum.data.meta import META, Meta, Part
from ganeum.data.nanogpt import read_meta
from ganeum.data.tokenizer import Tokenizer, load_tokenizer
from ganeum.errors import DataError
from ganeum.hardware import cache_directory

GPT2_VOCAB_SIZE = 50_257
PREPARING = ".preparing"  # prepare's temporary directory, inside the one it fills
_SCAN_TOKENS = 16 * 2**20
_END_BYTES = 2**20

Tokens = npt.NDArray[Any]  # uint16 or uint32, usually a memory map


@dataclass(frozen=True)
class Corpus:
    """What training reads.

    Attributes:
        train: (n_tokens,) memory map, uint16 or uint32.
        val: the same of the held-out text; None where there is none.
        meta: what ``prepare`` wrote; None for nanoGPT's files.
        vocab_size: every id is below it (checked).
        tokenizer: None where nothing says what the ids stand for.
    """

    train: Tokens
    val: Tokens | None
    meta: Meta | None
    vocab_size: int
    tokenizer: Tokenizer | None


def open_corpus(directory: str | Path, block_size: int | None = None) -> Corpus:
    """The corpus in ``directory``: ganeum's (``meta.json``) or nanoGPT's (uint16 files, with or without ``meta.pkl``).

    Without either, GPT-2's vocabulary is assumed, as nanoGPT does. Every token is checked against the vocabulary once;
    the result is remembered in ganeum's cache as long as the file's size and time stay the same.

    Args:
        directory: holds ``train.bin`` and, unless there is one document only, ``val.bin``.
        block_size: tokens in a window, where it is known already: a shorter corpus is then refused here.

    Raises:
        DataError: nothing there, empty, shorter than one window, damaged, not fitting its ``meta.json``, or a token
            beyond the vocabulary.
    """
    directory = Path(directory)
    meta = Meta.read(directory)
    if meta is None:
        _refuse_absent(directory)
    train = _map(directory / "train.bin", meta, meta.train if meta else None)
    val_there = meta.val is not None if meta else (directory / "val.bin").exists()
    val = _map(directory / "val.bin", meta, meta.val if meta else None) if val_there else None

    tokenizer: Tokenizer | None = None
    if meta:
        tokenizer, vocab_size = load_tokenizer(directory / "tokenizer"), meta.vocab_size
        if tokenizer.vocab_size != vocab_size:
            raise _damaged(
                directory / "tokenizer",
                f"its vocabulary has {tokenizer.vocab_size:,} tokens, but {META} says {vocab_size:,}",
                "the files come from different preparations",
            )
    elif (directory / "meta.pkl").exists():
        vocab_size, tokenizer = read_meta(directory / "meta.pkl")
    else:
        vocab_size, tokenizer = GPT2_VOCAB_SIZE, gpt2_if_cached()
    for tokens in (train, val):
        if tokens is not None:
            _refuse_short(tokens, block_size)
            _refuse_beyond(tokens, vocab_size, assumed=meta is None and not (directory / "meta.pkl").exists())
    return Corpus(train, val, meta, vocab_size, tokenizer)


def identity(corpus: Corpus) -> dict[str, str]:
    """What tells these tokens from others, of each file: its SHA-256, or without ``meta.json`` its size and that of its
    first and last MiB."""
    if corpus.meta is not None:
        parts = {"train": corpus.meta.train, "val": corpus.meta.val}
        return {name: part.sha256 for name, part in parts.items() if part is not None}
    files = {"train": corpus.train, "val": corpus.val}
    return {name: _ends(tokens) for name, tokens in files.items() if tokens is not None}


def _ends(tokens: Tokens) -> str:
    count = _END_BYTES // tokens.dtype.itemsize
    ends = hashlib.sha256(tokens[:count].tobytes() + tokens[-count:].tobytes())
    return f"{tokens.nbytes} bytes, {ends.hexdigest()}"


def _refuse_absent(directory: Path) -> None:
    if (directory / PREPARING).exists():
        raise DataError(
            f"the data in {directory} is not complete",
            where=str(directory / PREPARING),
            why="`ganeum prepare` is at work there, or was interrupted",
            suggestion="wait for it, or run the same `ganeum prepare` again",
        )
    if (directory / "train.bin").exists():
        return
    script = directory / "prepare.py"
    raise DataError(
        f"there is no data in {directory}",
        where=str(directory / "train.bin"),
        why=None if directory.exists() else "the directory does not exist",
        suggestion=f"python {script}" if script.exists() else f"ganeum prepare PATH… --out {directory}",
    )


def _map(path: Path, meta: Meta | None, part: Part | None) -> Tokens:
    dtype = np.dtype(meta.numpy_dtype if meta else "<u2")
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise _damaged(path, f"{path.name} is missing", f"{META} beside it says there is one") from error
    if size == 0:
        raise DataError(
            f"{path.name} is empty",
            where=str(path),
            why="there is no token to learn from",
            suggestion="prepare the data again from a text that is not empty: ganeum prepare …",
        )
    expected = size // dtype.itemsize if part is None else part.tokens
    if size != expected * dtype.itemsize:
        says = f"{META} says {expected:,} tokens of {dtype.name}" if part else f"tokens are {dtype.name}"
        raise _damaged(
            path, f"{path.name} has {size:,} bytes, which does not fit", f"{says}: {expected * dtype.itemsize:,} bytes"
        )
    return np.memmap(path, dtype=dtype, mode="r")


def _damaged(path: Path, what: str, why: str) -> DataError:
    return DataError(what, where=str(path), why=why, suggestion="prepare the data again: ganeum prepare … --overwrite")


def _refuse_short(tokens: Tokens, block_size: int | None) -> None:
    if block_size is not None and len(tokens) <= block_size:
        raise too_short(tokens, block_size)


def too_short(tokens: Tokens, block_size: int) -> DataError:
    """The error for a corpus that has not even one window."""
    held_out = (name := file_of(tokens)) is not None and Path(name).name == "val.bin"
    return DataError(
        f"{len(tokens):,} tokens are fewer than one window of model.block_size {block_size:,}",
        where=name,
        why=f"a window is {block_size:,} inputs and one more token as the last target",
        suggestion="more text"
        + (" held out (--val-share, --val)" if held_out else "")
        + (f", or model.block_size: {len(tokens) - 1} at most" if len(tokens) > 1 else ""),
    )


def file_of(tokens: Tokens) -> str | None:
    """The file behind a memory map; None for tokens that only lie in memory."""
    filename = getattr(tokens, "filename", None)
    return None if filename is None else str(filename)


def _refuse_beyond(tokens: Tokens, vocab_size: int, *, assumed: bool) -> None:
    if vocab_size > np.iinfo(tokens.dtype).max:
        return
    mark, state = _mark_of(tokens, vocab_size)
    if mark is not None and mark.exists() and mark.read_text() == state:
        return
    for start in range(0, len(tokens), _SCAN_TOKENS):
        chunk = np.asarray(tokens[start : start + _SCAN_TOKENS])
        if chunk.max() >= vocab_size:
            place = start + int(np.argmax(chunk >= vocab_size))
            raise DataError(
                f"token {place:,} is {tokens[place]}, beyond the vocabulary of {vocab_size:,}",
                where=file_of(tokens),
                why="there is no meta.json or meta.pkl, so GPT-2's vocabulary is assumed"
                if assumed
                else "the file is damaged, or belongs to another tokenizer",
                suggestion="prepare the data again: ganeum prepare …",
            )
    if mark is not None:
        try:
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(state)
        except OSError:
            pass  # a cache that cannot be written costs the next start this scan, nothing else


def _mark_of(tokens: Tokens, vocab_size: int) -> tuple[Path | None, str]:
    """Where it is remembered that a file was scanned, and what must be written there for that to hold still."""
    name = file_of(tokens)
    if name is None:
        return None, ""
    path = Path(name).resolve()
    there = path.stat()
    state = json.dumps([str(path), there.st_size, there.st_mtime_ns, vocab_size])
    return cache_directory() / "scanned" / hashlib.sha256(str(path).encode()).hexdigest()[:32], state
