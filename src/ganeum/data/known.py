"""The corpora that have a name: TinyStories, this machine's Python standard library, nanoGPT's Shakespeare."""

from __future__ import annotations

import hashlib
import sysconfig
import urllib.request
from pathlib import Path

from ganeum.data.files import Source
from ganeum.errors import DataError
from ganeum.hardware import cache_directory

TINYSTORIES = "roneneldan/TinyStories"  # Eldan and Li, arXiv 2305.07759; the V2 files hold GPT-4's stories only
TINYSTORIES_TRAIN, TINYSTORIES_VAL = "TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"
TINYSTORIES_SEPARATOR = "<|endoftext|>"
SHAKESPEARE = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"  # nanoGPT's
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def tinystories(local: Path | None = None) -> list[Source]:
    """TinyStories' own training and validation files, downloaded once into the hub's cache (2.2 GB).

    Args:
        local: a directory that holds both files, or one file in the same format (stories between
            ``<|endoftext|>``), which the hash then divides; nothing is downloaded.

    Raises:
        DataError: the hub cannot be reached and the files are not in its cache.
    """
    if local is not None:
        if local.is_dir() and not (local / TINYSTORIES_TRAIN).is_file():
            raise DataError(
                f"{local} does not hold TinyStories",
                where=str(local / TINYSTORIES_TRAIN),
                suggestion=f"--source FILE, or a directory with {TINYSTORIES_TRAIN} and {TINYSTORIES_VAL}",
            )
        if not local.is_dir():
            return [Source(local)]
        train, val = local / TINYSTORIES_TRAIN, local / TINYSTORIES_VAL
        return [Source(train, "train"), Source(val, "val")] if val.is_file() else [Source(train)]
    return [Source(_download(TINYSTORIES_TRAIN), "train"), Source(_download(TINYSTORIES_VAL), "val")]


def _download(name: str) -> Path:
    from huggingface_hub import constants, hf_hub_download

    try:
        return Path(hf_hub_download(TINYSTORIES, name, repo_type="dataset"))
    except Exception as error:  # the hub's own errors, the network's, the proxy's
        cause: BaseException = error
        while (deeper := cause.__cause__ or cause.__context__) is not None:
            cause = deeper  # the first one says what happened: no such host, refused, 404
        text = " ".join(str(cause).split())
        raise DataError(
            "TinyStories cannot be fetched from the Hugging Face hub",
            where=f"{constants.ENDPOINT}/datasets/{TINYSTORIES}, {name}",
            why=f"{type(cause).__name__}: {text if len(text) <= 160 else text[:160] + '…'}",
            suggestion="--source FILE with stories between <|endoftext|> (that file from another machine, say),\n"
            "or HF_ENDPOINT set to a mirror, or `ganeum prepare pystdlib`, which needs no network",
        ) from error


def pystdlib() -> list[Source]:
    """The ``.py`` files of the running Python's standard library, without installed packages."""
    root = Path(sysconfig.get_path("stdlib"))
    return [Source(root, patterns=("*.py",), without=frozenset({"site-packages", "dist-packages", "__pycache__"}))]


def shakespeare_char(local: Path | None = None) -> list[Source]:
    """nanoGPT's data/shakespeare_char: of one text the first nine tenths of the characters, and the last.

    The text and its two parts are kept in ganeum's cache.

    Args:
        local: the text; None: it is downloaded once, from where nanoGPT has it.

    Raises:
        DataError: it cannot be had.
    """
    kept = cache_directory() / "shakespeare_char"
    kept.mkdir(parents=True, exist_ok=True)
    try:
        text = (local or _fetched(kept / "input.txt")).read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{local} cannot be read", where=str(local), why=str(error)) from error
    cut = int(len(text) * 0.9)
    parts = {"train": text[:cut].encode(), "val": text[cut:].encode()}
    for name, content in parts.items():
        path = kept / f"{name}.txt"
        if not path.exists() or path.read_bytes() != content:  # an untouched file is an unchanged source
            path.write_bytes(content)
    return [Source(kept / "train.txt", "train"), Source(kept / "val.txt", "val")]


def _fetched(path: Path) -> Path:
    if path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == _SHAKESPEARE_SHA256:
        return path
    try:
        with urllib.request.urlopen(SHAKESPEARE, timeout=30) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != _SHAKESPEARE_SHA256:
            raise ValueError(f"what came, {len(content):,} bytes, is another text than nanoGPT's 1,115,394")
    except (OSError, ValueError) as error:
        raise DataError(
            "Shakespeare cannot be fetched",
            where=SHAKESPEARE,
            why=f"{type(error).__name__}: {error}",
            suggestion="--input FILE with that text, from another machine or from nanoGPT's data/shakespeare_char",
        ) from error
    path.write_bytes(content)
    return path
