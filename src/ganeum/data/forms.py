"""What a file holds, told by its name: text or rows, compressed or not; and its bytes as a stream, decompressed."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO, Literal, cast

from ganeum.errors import DataError, MissingExtra

Form = Literal["text", "lines", "list", "table", "columns", "dataset"]
"""How the documents of a file are found.

text: the file, or what stands between separators. Rows are documents in all the others. lines: a JSON object a line.
list: one JSON list of objects. table: CSV or TSV. columns: Parquet or Arrow. dataset: a split that ``datasets`` opened.
"""

_FORMS: dict[str, Form] = {
    ".jsonl": "lines",
    ".ndjson": "lines",
    ".csv": "table",
    ".tsv": "table",
    ".parquet": "columns",
    ".arrow": "columns",
}
COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_JSON_PROBE_BYTES = 64 * 1024


def bare_name(path: Path) -> str:
    """The file's name without the ending that says how it is compressed."""
    return path.name.removesuffix(path.suffix) if path.suffix.lower() in COMPRESSED else path.name


def form_of(path: Path, column: str) -> Form:
    """What the file holds.

    ``.json`` is looked into: a list of objects (or of nothing), or lines that are objects of which the first has the
    column, are rows; anything else (a settings file) is text.
    """
    ending = Path(bare_name(path)).suffix.lower()
    if ending == ".json":
        return _form_of_json(head(path, _JSON_PROBE_BYTES), column)
    return _FORMS.get(ending, "text")


def _form_of_json(start: bytes, column: str) -> Form:
    start = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"[") and start[1:].lstrip().startswith((b"{", b"]")):
        return "list"
    line, _, rest = start.partition(b"\n")
    if not line.startswith(b"{") or (not rest and len(start) == _JSON_PROBE_BYTES):
        return "text"
    try:
        first = json.loads(line)
    except ValueError:
        return "text"
    return "lines" if column in first else "text"


def head(path: Path, size: int) -> bytes:
    """The first ``size`` bytes, decompressed; raises DataError where they cannot be read."""
    with opened(path) as (stream, _):
        return stream.read(size)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """The file's bytes, decompressed as they are read; and the file itself, whose place tells how far reading is.

    Raises:
        DataError: whatever goes wrong while it is read, with its name.
        MissingExtra: ``.zst`` without the package zstandard.
    """
    try:
        with path.open("rb") as raw:
            match path.suffix.lower():
                case ".gz":
                    yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)), raw
                case ".bz2":
                    yield cast(BinaryIO, bz2.BZ2File(raw)), raw
                case ".xz":
                    yield cast(BinaryIO, lzma.LZMAFile(raw)), raw  # noqa: SIM115
                case ".zst":
                    yield _zstd(path, raw), raw
                case _:
                    yield raw, raw
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # gzip's and bz2's way to say that it is none
            raise _damaged(path, error) from error
        raise DataError(f"{path} cannot be read", where=str(path.absolute()), why=error.strerror) from error


def _zstd(path: Path, raw: BinaryIO) -> BinaryIO:
    if find_spec("zstandard") is None:
        raise MissingExtra(
            f"{path} is compressed with zstd, and the package zstandard is not installed",
            suggestion='pip install "ganeum[zstd]"',
        )
    return cast(BinaryIO, io.BufferedReader(_Zstd(path, raw), 2**17))


class _Zstd(io.RawIOBase):
    """zstandard's reader, all frames of the file; it takes a file cut short for its end, so that is looked for here."""

    def __init__(self, path: Path, raw: BinaryIO) -> None:
        import zstandard

        self._path, self._raw, self._error = path, raw, zstandard.ZstdError
        self._new = zstandard.ZstdDecompressor(max_window_size=2**31).decompressobj
        self._frame, self._inside = self._new(), False
        self._rest, self._ready = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready:
            if not self._rest and not (read := self._raw.read(2**16)):
                if self._inside:
                    raise _damaged(self._path, EOFError("the file ends inside a frame"))
                return 0
            data, self._rest = self._rest or read, b""
            try:
                self._ready, self._inside = memoryview(self._frame.decompress(data)), True
            except self._error as error:
                raise _damaged(self._path, error) from error
            if self._frame.eof:
                self._rest, self._frame, self._inside = self._frame.unused_data, self._new(), False
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be decompressed",
        where=str(path.absolute()),
        why=f"{type(error).__name__}: {error}",
        suggestion="fetch or compress it again; what it was made from can be prepared as it is",
    )
