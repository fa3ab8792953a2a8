"""A full disk is an error that says how much is needed, and never leaves half a file behind that looks whole."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ganeum import units
from ganeum.errors import RunError


def is_full(error: BaseException) -> bool:
    """Whether an error means that nothing more can be written: no space, or no quota left.

    Libraries written in Rust and C++ (safetensors, torch) lose the number and keep the text.
    """
    while True:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error) or "os error 28" in str(error):
            return True
        following = error.__cause__ or error.__context__
        if following is None:
            return False
        error = following


def full(directory: Path, needed_bytes: int | None, kept: str) -> RunError:
    """The error for a full disk.

    Args:
        needed_bytes: what one checkpoint takes; None where that is not known.
        kept: what is safe, for the reader's peace of mind.
    """
    needed = "" if needed_bytes is None else f"a checkpoint needs {units.size(needed_bytes)}, "
    return RunError(
        f"the disk is full: {needed}{units.size(_free(directory))} are free",
        where=str(directory),
        why=f"nothing more can be written; {kept}",
        suggestion="free some space (old runs: `ganeum runs`), then give the same command again: it goes on from there",
    )


@contextmanager
def space_for(directory: Path, needed_bytes: int, kept: str) -> Iterator[None]:
    """Around writing: refuses before it begins where the space is not there, and turns a full disk into `full`."""
    if _free(directory) < needed_bytes:
        raise full(directory, needed_bytes, kept)
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise full(directory, needed_bytes, kept) from error
        raise


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free


class HashedFile:
    """A file being written by torch.save: hashed on the way, and a failure kept until it can be told.

    torch's writer turns an exception out of `write` into an unrelated one ("unexpected pos 64 vs 0"), so that a full
    disk could not be recognised; here writing goes on into nothing and `finish` raises the real one.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash = file, hashlib.sha256()
        self._failure: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        size = memoryview(data).nbytes
        if self._failure is None:
            try:
                self._file.write(data)
                self._hash.update(data)
            except OSError as error:
                self._failure = error
        return size

    def flush(self) -> None:
        """torch.save asks for it; `finish` does it."""

    def finish(self) -> str:
        """Everything on the disk → its sha256; raises the OSError that stopped the writing."""
        if self._failure is not None:
            raise self._failure
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._hash.hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """A file's content reaches the disk (a directory's names: `record.flush_directory`)."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
