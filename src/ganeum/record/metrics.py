"""The metrics file: one JSON object a line, only ever appended to, whole again after any death of its writer."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from ganeum.record.files import finite, flush_directory, write_atomic


def read_metrics(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a metrics file, in order; none if there is no file. A torn line is left out."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline is empty, or torn
            if (entry := _entry(line)) is not None:
                yield entry


def newest(path: Path, names: Collection[str]) -> dict[str, Any]:
    """The last value that is not null of each of `names`; the file is read from its end, only as far as needed."""
    found: dict[str, Any] = {}
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for line in reversed(lines):
        entry = _entry(line)
        if entry is not None:
            found.update({name: entry[name] for name in names if name not in found and entry.get(name) is not None})
        if len(found) == len(names):
            break
    return found


class MetricsLog:
    """Appends to a metrics file after `after_step`, the step of the checkpoint that training goes on from.

    At opening, a torn last line and lines beyond `after_step` are dropped, in one rename: those steps come again.
    """

    def __init__(self, path: Path, after_step: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = b"".join(_line(entry) for entry in read_metrics(path) if entry.get("step", 0) <= after_step)
        if not path.exists() or path.read_bytes() != kept:
            write_atomic(path, kept)
        self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0))
        flush_directory(path.parent)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one line by one system call; NaN and infinities become null.

        Raises:
            OSError: a full disk; the part that was written is taken back, so that the file stays whole.
        """
        line, size = _line(entry), os.fstat(self._handle).st_size
        written = os.write(self._handle, line)
        if written != len(line):
            os.ftruncate(self._handle, size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def flush(self) -> None:
        """Make the lines so far survive a power cut; call it before a checkpoint is given its name."""
        os.fsync(self._handle)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(finite(dict(entry)), allow_nan=False).encode("ascii") + b"\n"


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:  # damaged in the middle of the file: the other lines are still good
        return None
    return entry if isinstance(entry, dict) else None
