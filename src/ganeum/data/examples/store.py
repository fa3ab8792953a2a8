"""Tokenised examples on the disk: ids one behind the other and where each example ends, as memory maps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ganeum.data.examples.jobs import Encoded, Side
from ganeum.errors import DataError
from ganeum.record.files import write_json

META = "meta.json"
SIDES = ("source", "target")
Ids = npt.NDArray[np.unsignedinteger]
Lengths = npt.NDArray[np.int32]
PERCENTILES = (50, 90, 99)


class Told(BaseModel):
    """What is to be told of one side, before anything was cut. All are tokens with those around a text."""

    model_config = ConfigDict(frozen=True)

    limit: int = Field(description="tokens at most; longer ones were cut")
    cut: int = Field(description="how many were")
    longest: int = Field(description="the longest before it was cut, tokens")
    percentiles: dict[str, int] = Field(description="of the lengths before cutting: 50, 90 and 99 of 100 are no longer")
    tokens: int = Field(description="tokens kept, all together")
    lost: int = Field(description="tokens cut off, all together")


class Meta(BaseModel):
    """What is known of a cache: ``meta.json``, written last."""

    model_config = ConfigDict(frozen=True)

    examples: int
    rows: int
    empty: int
    short: int
    replaced: int
    repeated: int = Field(description="examples whose source (or text) has been there before")
    largest_id: int
    dtype: str
    sides: dict[str, Told]
    made_of: dict[str, Any] = Field(description="everything that the key of the cache is the hash of")


class Writer:
    """Fills a directory, task by task; memory does not grow with the examples but for their hashes' file.

    Args:
        directory: empty.
        limits: tokens at most, of either side.
    """

    def __init__(self, directory: Path, limits: dict[str, int], dtype: str) -> None:
        self.directory, self.dtype = directory, dtype
        self._sides = {side: _SideWriter(directory, side, limits[side]) for side in SIDES}
        self._digests = (directory / "digests.bin").open("wb")
        self.examples = self.rows = self.empty = self.short = self.replaced = self.largest_id = 0

    def write(self, made: Encoded) -> None:
        """The next examples."""
        for side, writer in self._sides.items():
            self.largest_id = max(self.largest_id, writer.write(getattr(made, side)))
        self._digests.write(np.asarray(made.digests).astype("<u8").tobytes())
        self.examples += len(made.digests)
        for name in ("rows", "empty", "short", "replaced"):
            setattr(self, name, getattr(self, name) + getattr(made, name))

    def close(self, made_of: dict[str, Any]) -> Meta:
        """Everything on the disk, ``meta.json`` last."""
        for file in (self._digests, *(file for writer in self._sides.values() for file in writer.files)):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        digests = np.sort(np.fromfile(self.directory / "digests.bin", "<u8"))
        meta = Meta(
            examples=self.examples,
            rows=self.rows,
            empty=self.empty,
            short=self.short,
            replaced=self.replaced,
            repeated=int((digests[1:] == digests[:-1]).sum()),
            largest_id=self.largest_id,
            dtype=self.dtype,
            sides={side: writer.told() for side, writer in self._sides.items()},
            made_of=made_of,
        )
        write_json(self.directory / META, meta.model_dump())
        return meta


class _SideWriter:
    """Ids and ends of one side, and a histogram of how long its texts were before cutting."""

    def __init__(self, directory: Path, side: str, limit: int) -> None:
        self._ids = (directory / f"{side}.bin").open("wb")
        self._ends = (directory / f"{side}.ends.bin").open("wb")
        self._limit, self._written = limit, 0
        self._histogram = np.zeros(0, np.int64)
        self.files = (self._ids, self._ends)

    def write(self, side: Side) -> int:
        """→ the largest id among them."""
        ends = self._written + np.cumsum(np.asarray(side.lengths), dtype=np.int64)
        if len(ends):
            self._written = int(ends[-1])
            self._ends.write(ends.astype("<i8").tobytes())
            counts = np.bincount(np.asarray(side.uncut))
            if len(counts) > len(self._histogram):
                self._histogram = np.pad(self._histogram, (0, len(counts) - len(self._histogram)))
            self._histogram[: len(counts)] += counts
        ids = np.asarray(side.ids)
        self._ids.write(ids.astype(ids.dtype.newbyteorder("<")).tobytes())
        return int(ids.max(initial=0))

    def told(self) -> Told:
        total = self._histogram.cumsum()
        lengths = np.arange(len(self._histogram))
        count = int(total[-1]) if len(total) else 0
        return Told(
            limit=self._limit,
            cut=int(self._histogram[self._limit + 1 :].sum()),
            longest=len(self._histogram) - 1 if count else 0,
            percentiles={str(p): int(np.searchsorted(total, p / 100 * count)) if count else 0 for p in PERCENTILES},
            tokens=self._written,
            lost=int((self._histogram * lengths).sum()) - self._written,
        )


class Store:
    """What ``Writer`` wrote: examples by their number, read where they lie.

    Raises:
        DataError: it is damaged.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self.meta = Meta.model_validate_json((directory / META).read_bytes())
            dtype = np.dtype(self.meta.dtype).newbyteorder("<")
            self._ids = {side: self._map(f"{side}.bin", dtype, self.meta.sides[side].tokens) for side in SIDES}
            self._ends = {side: self._map(f"{side}.ends.bin", "<i8", self.meta.examples) for side in SIDES}
            self.digests = self._map("digests.bin", "<u8", self.meta.examples)
        except (OSError, ValidationError, KeyError, TypeError) as error:
            raise self._damaged(str(error)) from error

    def __len__(self) -> int:
        return self.meta.examples

    def ids(self, side: str, number: int) -> Ids:
        """Of one example, (length,)."""
        ends = self._ends[side]
        start = int(ends[number - 1]) if number else 0
        found: Ids = self._ids[side][start : int(ends[number])]
        return found

    def lengths(self, side: str) -> Lengths:
        """Of every example, (examples,)."""
        return np.diff(self._ends[side], prepend=np.int64(0)).astype(np.int32)

    def _map(self, name: str, dtype: npt.DTypeLike, count: int) -> npt.NDArray[Any]:
        path, item = self.directory / name, np.dtype(dtype).itemsize
        if path.stat().st_size != count * item:
            raise self._damaged(f"{name} has {path.stat().st_size:,} bytes, and {META} says {count * item:,}")
        return np.memmap(path, dtype, mode="r") if count else np.zeros(0, dtype)

    def _damaged(self, why: str) -> DataError:
        return DataError(
            "the cache of tokenised examples is damaged",
            where=str(self.directory),
            why=why,
            suggestion="delete that directory: it is made again from the examples",
        )
