"""The directory that ``prepare`` fills: complete files take their places at the end, or nothing changes."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ganeum.data.corpus import PREPARING
from ganeum.data.meta import META, PRODUCTS, Meta
from ganeum.data.tokenizer import load_tokenizer
from ganeum.errors import DataError
from ganeum.record.files import flush_directory
from ganeum.record.status import Status


@contextmanager
def temporary(out: Path) -> Iterator[Path]:
    """An empty directory inside ``out``, gone afterwards unless its files have only partly taken their places.

    So is ``out`` where it was made for this and nothing came of it. What a killed process left is
    removed first.

    Raises:
        DataError: another process is filling ``out``, it cannot be written, or the disk is full.
    """
    directory = out / PREPARING
    status = directory / "status.json"
    made: list[Path] = []
    try:
        made = [path for path in (out, *out.parents) if not path.exists()]
        if (writer := Status.read(status)) and writer.is_alive():
            raise DataError(
                f"another `ganeum prepare` is filling {out}",
                where=str(status),
                why=f"process {writer.pid} is at work there",
                suggestion="wait for it, or choose another --out",
            )
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        try:
            Status.of_this_process("running").write(status)
            yield directory
        finally:
            if (out / META).exists() or not (directory / META).exists():  # else its files are half in place: a mark
                shutil.rmtree(directory, ignore_errors=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DataError(
            f"{out} cannot be filled" + (": the disk is full" if full else ""),
            where=str(error.filename or directory),
            why=error.strerror,
            suggestion="free some space, or --out on another disk; nothing was left behind"
            if full
            else "another --out",
        ) from error
    finally:
        with suppress(OSError):  # the first that is not empty ends it
            for path in made:
                path.rmdir()


def take_place(directory: Path, out: Path) -> None:
    """Rename what is in ``directory`` into ``out``. ``meta.json`` goes first and comes last.

    Whoever looks in between finds no ``meta.json`` but the temporary directory, and so knows (``open_corpus``).
    """
    (out / META).unlink(missing_ok=True)
    flush_directory(out)
    for name in PRODUCTS:
        old, new = out / name, directory / name
        if old.is_dir():
            shutil.rmtree(old)
        if new.exists():
            new.replace(old)
        else:
            old.unlink(missing_ok=True)
    flush_directory(out)


def refuse_or_reuse(out: Path, fingerprint: str) -> Meta | None:
    """What ``out`` holds, if it was made from the same input in the same way; None: it may be filled.

    Raises:
        DataError: it holds something else.
    """
    meta = Meta.read(out)
    if meta is None:
        there = [name for name in PRODUCTS if (out / name).exists()]
        if not there or (out / PREPARING).exists():
            return None
        raise _occupied(out, there[0], "it was not made by `ganeum prepare`: there is no meta.json")
    if meta.fingerprint == fingerprint:
        sizes = {"train.bin": meta.train, "val.bin": meta.val}
        item = 2 if meta.dtype == "uint16" else 4
        complete = all(
            part is None or ((out / name).is_file() and (out / name).stat().st_size == part.tokens * item)
            for name, part in sizes.items()
        )
        return meta if complete and _has_tokenizer(out, meta) else None
    held = f"{meta.train.tokens:,} tokens ({meta.tokenizer}, vocabulary {meta.vocab_size:,}) of {meta.sources[0].path}"
    raise _occupied(out, META, f"it holds {held}, prepared from other files or with other options")


def _has_tokenizer(out: Path, meta: Meta) -> bool:
    try:
        return load_tokenizer(out / "tokenizer").vocab_size == meta.vocab_size
    except DataError:
        return False


def _occupied(out: Path, name: str, why: str) -> DataError:
    return DataError(
        f"{out} already holds other data",
        where=str(out / name),
        why=why,
        suggestion="another --out, or --overwrite to replace it",
    )
