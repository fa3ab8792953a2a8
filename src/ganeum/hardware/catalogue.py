"""The catalogue of GPUs: a driver's name for a card → its dense peaks, each with a source; unknown stays unknown.

A wrong peak is worse than none: an MFU against another card's peak misleads by a factor of two. So names are compared
as words and never as pieces of words (``A10`` is not ``A100``), a laptop's card is never taken for its desktop sister,
and cards that share a name (RTX 3080 of 10 and of 12 GB) are told apart by their memory or not at all.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What a driver writes around a name: maker, brand, form of the board. Everything else tells cards apart.
FILLER = frozenset({"nvidia", "geforce", "tesla", "quadro", "gpu", "generation", "corporation"})
SIZE = re.compile(r"\d+gb")


@dataclass(frozen=True)
class Gpu:
    """A card of the catalogue: dense peaks in FLOP per second by precision, memory in GiB, bandwidth in 10⁹ B/s."""

    name: str
    capability: tuple[int, int]
    memory_gib: tuple[float, ...]
    memory_bandwidth_gb_s: float
    peak_flops_per_second: dict[str, float]
    source: str
    note: str


def words(name: str) -> frozenset[str]:
    """The words that tell a card from others: ``NVIDIA A100-SXM4-40GB`` → ``{a100, sxm4, 40gb}``."""
    spaced = re.sub(r"(\d+)\s*(gb|gib)\b", r"\1gb", name.lower().replace("-", " ").replace("_", " "))
    return frozenset(spaced.split()) - FILLER


@dataclass(frozen=True)
class _Entry:
    gpu: Gpu
    matches: tuple[frozenset[str], ...]


def _entry(row: dict[str, Any]) -> _Entry:
    major, minor = str(row["capability"]).split(".")
    return _Entry(
        gpu=Gpu(
            name=row["name"],
            capability=(int(major), int(minor)),
            memory_gib=tuple(float(size) for size in row["memory_gib"]),
            memory_bandwidth_gb_s=float(row["memory_bandwidth_gb_s"]),
            peak_flops_per_second={key: round(value * 1e12) for key, value in row["tflops"].items()},
            source=row["source"],
            note=row.get("note", ""),
        ),
        matches=tuple(words(name) for name in row["matches"]),
    )


@cache
def _entries() -> tuple[_Entry, ...]:
    text = (files("ganeum.hardware") / "gpus.toml").read_text(encoding="utf-8")
    return tuple(_entry(row) for row in tomllib.loads(text)["gpu"])


def gpus() -> tuple[Gpu, ...]:
    """Every card of the catalogue."""
    return tuple(entry.gpu for entry in _entries())


def find(name: str, memory_gib: float | None = None) -> Gpu | None:
    """The card that the driver calls ``name``, or None when it is not known or could be two.

    Args:
        name: NVML's name (``NVIDIA GeForce RTX 3080``), or what a person types (``rtx 3080 12gb``).
        memory_gib: what the driver says it has, which is a little less than what is on the box; tells apart cards that
            share a name. A card whose memory fits no entry of that name is another card.
    """
    wanted = words(name)
    sizes = {word for word in wanted if SIZE.fullmatch(word)}
    # A size in the name is a fact like memory_gib, unless the card's own name carries it (A100-SXM4-40GB).
    found = [e.gpu for e in _entries() if any(wanted == match or wanted - sizes == match for match in e.matches)]
    if memory_gib is None and sizes:
        memory_gib = float(next(iter(sizes)).removesuffix("gb"))
    if memory_gib is not None:
        found = [gpu for gpu in found if any(0.9 * size <= memory_gib <= 1.02 * size for size in gpu.memory_gib)]
    return found[0] if len(found) == 1 else None
