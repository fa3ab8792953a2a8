"""The corpora that have a name: TinyStories from the Hugging Face hub, this machine's Python standard library."""

from __future__ import annotations

import sysconfig
from pathlib import Path

from ganeum.data.files import Source
from ganeum.errors import DataError

TINYSTORIES = "roneneldan/TinyStories"  # Eldan and Li, arXiv 2305.07759; the V2 files hold GPT-4's stories only
TINYSTORIES_TRAIN, TINYSTORIES_VAL = "TinyStoriesV2-GPT4-train.txt", "TinyStoriesV2-GPT4-valid.txt"
TINYSTORIES_SEPARATOR = "<|endoftext|>"


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
