"""The cache of tokenised examples: made once, whole or not at all, under a key of everything that shaped it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ganeum.data.examples import jobs
from ganeum.data.examples.encoding import Encoder
from ganeum.data.examples.jobs import Recipe
from ganeum.data.examples.sources import digests
from ganeum.data.examples.store import META, Store, Writer
from ganeum.data.files import TextFile
from ganeum.data.workers import in_order
from ganeum.errors import DataError
from ganeum.hardware import cache_directory
from ganeum.record.files import flush_directory
from ganeum.units import duration, things

FORMAT = 1  # of the files in a cache: another one is another key
_BYTES_WORTH_A_WORKER = 4 * 2**20
_TOLD_EVERY_S = 10.0
Say = Callable[[str], None]


def stored(
    files: Sequence[TextFile],
    recipe: Recipe,
    encoder: Encoder,
    tokenizer: list[object],
    say: Say,
    workers: int | None = None,
) -> Store:
    """The examples of ``files`` as tokens: from the cache, or tokenised into it first.

    Whatever shaped the tokens is in the key: the content of the files, the tokenizer and what it sets around a text,
    lengths, prefix, columns. A changed length is another key, so nobody deletes anything by hand. Of processes that
    want the same one builds and the others wait. A build lies beside its place until it is whole, so one that is killed
    leaves nothing that is taken for it; the next one clears it away.

    Args:
        tokenizer: what tells the tokenizer from any other.
        say: takes a line for the reader.
        workers: processes; None: one a core, fewer for little. The result does not depend on it.

    Raises:
        DataError: rows that cannot be read, or a cache that cannot be written.
    """
    made_of = {
        "format": FORMAT,
        "tokenizer": tokenizer,
        "recipe": asdict(recipe),
        "files": [[file.form, digest] for file, digest in zip(files, digests(files), strict=True)],
    }
    place = _root() / hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]
    if (place / META).is_file():
        return Store(place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with _held(place, say):
            if not (place / META).is_file():
                _build(place, files, recipe, encoder, made_of, say, workers)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DataError(
            "the examples cannot be kept as tokens" + (": the disk is full" if full else ""),
            where=str(error.filename or place),
            why=error.strerror,
            suggestion="free some space, or GANEUM_CACHE=a directory on another disk; nothing was left behind",
        ) from error
    return Store(place)


def _root() -> Path:
    return cache_directory() / "examples"


@contextmanager
def _held(place: Path, say: Say) -> Iterator[None]:
    """With the lock on a key, waited for; whoever dies loses it."""
    lock = FileLock(place.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        say("Another process makes tokens of the same examples; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _clear(directory: Path) -> None:
    """Removes what killed processes were making, of whatever key: nobody may ever ask for that one again."""
    for growing in directory.glob("*.growing"):
        with suppress(Timeout), FileLock(growing.with_suffix(".lock")).acquire(timeout=0):
            shutil.rmtree(growing, ignore_errors=True)


def _build(
    place: Path,
    files: Sequence[TextFile],
    recipe: Recipe,
    encoder: Encoder,
    made_of: dict[str, Any],
    say: Say,
    workers: int | None,
) -> None:
    growing = place.with_suffix(".growing")
    shutil.rmtree(growing, ignore_errors=True)  # of a process that was killed: the lock is ours
    _clear(place.parent)
    growing.mkdir()
    size = sum(file.dataset.data.nbytes if file.dataset is not None else file.path.stat().st_size for file in files)
    many = min(workers or cores(), 1 + size // _BYTES_WORTH_A_WORKER)
    began = told = time.monotonic()
    try:
        limits = {"source": recipe.max_source, "target": recipe.max_target}
        writer = Writer(growing, limits, "uint16" if recipe.typecode == "H" else "uint32")
        for made in in_order(
            jobs.encode,
            jobs.tasks_of(files, recipe.fields),
            many,
            initialize=jobs.start,
            arguments=(recipe, encoder, many == 1),
            fewer="taskset -c 0 in front of the same command: one process, on one core",
        ):
            writer.write(made)
            if (now := time.monotonic()) - told > _TOLD_EVERY_S:
                told = now
                say(f"{things(writer.examples, 'example')} are tokens, {writer.examples / (now - began):,.0f} a second")
        meta = writer.close(made_of)
        growing.rename(place)
        flush_directory(place.parent)
    finally:
        with suppress(OSError):
            shutil.rmtree(growing)
    tokens = sum(side.tokens for side in meta.sides.values())
    say(
        f"{things(meta.examples, 'example')} became {tokens:,} tokens in {duration(time.monotonic() - began)}, "
        f"kept in {place}"
    )


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
