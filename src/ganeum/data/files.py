"""Which files a corpus is made of: a deterministic, lazy walk over what the user named."""

from __future__ import annotations

import codecs
import fnmatch
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ganeum.data import saved
from ganeum.data.forms import Form, form_of, head
from ganeum.data.meta import META, PRODUCTS, Meta
from ganeum.errors import DataError

_BINARY_PROBE_BYTES = 8192
PartName = Literal["split", "train", "val"]


@dataclass(frozen=True)
class Source:
    """A file or directory to read.

    Attributes:
        path: it.
        part: train or val: its documents belong there; split: the hash decides, document by document.
        patterns: shell patterns, of which a file's name (or its path below ``path``, for a pattern with ``/``) must
            match one; empty: any file.
        without: names of directories that are not entered.
        dataset: a ``datasets.Dataset`` that is read instead; ``path`` is then only its name.
    """

    path: Path
    part: PartName = "split"
    patterns: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    dataset: Any = None


@dataclass(frozen=True)
class TextFile:
    """A file to read: ``name`` is its path below its source, with ``/``, the same on every machine.

    ``repeat``: how many earlier sources have a file of that name. ``form``: how its documents are found. ``dataset``:
    what is read instead of a file.
    """

    path: Path
    name: str
    part: PartName
    repeat: int = 0
    form: Form = "text"
    dataset: Any = None

    @property
    def key(self) -> str:
        """What the hashes know it by: no other file of the walk has the same."""
        return f"{self.name}\0{self.repeat}" if self.repeat else self.name


@dataclass
class Walk:
    """The files of some sources, in the order of their names; every iteration walks anew and holds none of them.

    Hidden files and directories are passed over, unless named by the user, and so is what is not text: files with a
    zero byte in their first 8 KiB (git's rule), and what an earlier ``prepare`` wrote. A directory that symbolic links
    lead to again is entered once, and of one that ``datasets`` saved only its rows are read.

    Args:
        sources: what to read, in this order.
        excluded: resolved paths that are passed over: what ``prepare`` itself writes.
        column: that holds the text of a row.
        as_text: every file is text as it stands, also one that holds rows.
    """

    sources: Sequence[Source]
    excluded: Collection[Path] = ()
    column: str = "text"
    as_text: bool = False
    _prepared: list[Path] = field(default_factory=list, init=False)

    def __iter__(self) -> Iterator[TextFile]:
        for _, file in self._all():
            if not _is_binary(file):
                yield file

    def survey(self) -> Survey:
        """Sizes, what was passed over, and a fingerprint, at the cost of a look into each file."""
        found = Survey([(0, 0)] * len(self.sources))
        fingerprint = hashlib.sha256()
        for place, file in self._all():
            size, version = _size_and_version(file)
            line = f"{file.part}\0{file.name}\0{size}\0{version}\n"
            fingerprint.update(line.encode("utf-8", "surrogateescape"))
            if _is_binary(file):
                found.skipped += 1
                if len(found.skipped_names) < 5:
                    way = f" (UTF-16: {iconv(file.path)})" if _is_utf16(file.path) else ""
                    found.skipped_names.append(shown(file.path) + way)
            else:
                files, before = found.sizes[place]
                found.sizes[place] = files + 1, before + size
        found.prepared = [shown(directory) for directory in self._prepared]
        found.fingerprint = fingerprint.hexdigest()
        return found

    def _all(self) -> Iterator[tuple[int, TextFile]]:
        """Every file with its source's place. Only earlier sources count for ``repeat``: new ones move no document."""
        names, directories = Counter[str](), list[Path]()
        for place, source in enumerate(self.sources):
            for file in self._candidates(source):
                earlier = names[file.name] + sum((directory / file.name).is_file() for directory in directories)
                yield place, replace(file, repeat=earlier) if earlier else file
            if source.path.is_dir():
                directories.append(source.path)
            else:
                names[source.path.name] += 1

    def _candidates(self, source: Source) -> Iterator[TextFile]:
        path = source.path
        if source.dataset is not None:
            yield TextFile(path, str(path), source.part, form="dataset", dataset=source.dataset)
            return
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass  # said below
        except OSError as error:
            raise _unreadable(path, error) from error
        if path.is_dir():
            yield from self._below(source, path, "", set())
        elif path.is_file():
            yield self._file(path, path.name, source)
        else:
            raise DataError(
                f"{path} is neither a file nor a directory" if path.exists() else f"{path} does not exist",
                where=str(path.absolute()),
                suggestion="name text files, directories of them, tinystories or pystdlib",
            )

    def _below(self, source: Source, directory: Path, prefix: str, entered: set[tuple[int, int]]) -> Iterator[TextFile]:
        there = directory.stat()
        if (there.st_dev, there.st_ino) in entered:
            return
        entered.add((there.st_dev, there.st_ino))
        try:
            with os.scandir(directory) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
            if not self.as_text:
                names = saved.only_rows(directory, names)
        except OSError as error:
            raise _unreadable(directory, error) from error
        if META in names and _is_prepared(directory):
            names = [name for name in names if name not in PRODUCTS]
            if (directory / META).resolve() not in self.excluded and directory not in self._prepared:
                self._prepared.append(directory)
        for name in names:
            path, below = directory / name, prefix + name
            if path.is_dir():
                if name not in source.without and path.resolve() not in self.excluded:
                    yield from self._below(source, path, below + "/", entered)
            elif path.is_file() and _matches(below, source.patterns) and path.resolve() not in self.excluded:
                yield self._file(path, below, source)

    def _file(self, path: Path, name: str, source: Source) -> TextFile:
        return TextFile(path, name, source.part, form="text" if self.as_text else form_of(path, self.column))


@dataclass
class Survey:
    """What a walk found. ``sizes``: (files, bytes) of each source; ``skipped``: files that are not text; ``prepared``:
    directories with the files of an earlier preparation, which were passed over."""

    sizes: list[tuple[int, int]]
    skipped: int = 0
    skipped_names: list[str] = field(default_factory=list)
    prepared: list[str] = field(default_factory=list)
    fingerprint: str = ""

    @property
    def files(self) -> int:
        """Text files in all."""
        return sum(files for files, _ in self.sizes)

    @property
    def bytes(self) -> int:
        """Their size together."""
        return sum(size for _, size in self.sizes)


def shown(path: Path | str) -> str:
    """A path that can be printed and stored whatever its bytes: those that are not UTF-8 as ``\\xe9``."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(
        fnmatch.fnmatchcase(name if "/" in pattern else name.rpartition("/")[2], pattern) for pattern in patterns
    )


def _is_prepared(directory: Path) -> bool:
    try:
        return Meta.read(directory) is not None
    except DataError:
        return False  # another program's meta.json


def iconv(path: Path) -> str:
    """The command that makes a file UTF-8, with the encoding where the file says it."""
    return f"iconv -f {'utf-16' if _is_utf16(path) else '…'} -t utf-8"


def _is_utf16(path: Path) -> bool:
    return head(path, 2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _is_binary(file: TextFile) -> bool:
    return file.form not in ("columns", "dataset") and b"\0" in head(file.path, _BINARY_PROBE_BYTES)


def _size_and_version(file: TextFile) -> tuple[int, object]:
    if file.dataset is not None:
        return file.dataset.data.nbytes, file.dataset._fingerprint
    there = file.path.stat()
    return there.st_size, there.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read", where=str(path.absolute()), why=error.strerror)
