"""The catalogue of GPUs: a driver's name for a card → its figures, each with a source; unknown stays unknown.

A wrong peak is worse than none: an MFU against another card's peak misleads by a factor of two. So names are compared
as words and never as pieces of words (``A10`` is not ``A100``), a laptop's card is never taken for its desktop sister,
and cards that share a name (RTX 3080 of 10 and of 12 GB) are told apart by their memory or not at all.

The figures lie in ``gpus/*.toml``, their sources in ``gpus/sources.toml``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

# What a driver writes around a name: maker, brand, form of the board. Everything else tells cards apart.
FILLER = frozenset({"nvidia", "geforce", "tesla", "quadro", "gpu", "generation", "corporation"})
SERIES = frozenset({"rtx", "gtx"})  # what a person leaves out: 4090
SIZE = re.compile(r"\d+gb")
FILES = ("geforce", "workstation", "datacentre", "laptop", "apple")
FIGURES = ("sm_count", "boost_mhz", "memory_mib", "reserved_mib", "memory_bandwidth_gb_s", "power_w")
# What the driver keeps of a card's memory where nobody has written it down: the median of the eleven cards under
# Linux whose `reserved_mib` the catalogue has (408 to 609).
RESERVED_MIB = 480


@dataclass(frozen=True)
class Figure:
    """A number that lies between ``low`` and ``high``; they are equal where nobody doubts it.

    >>> str(Figure(80, 150, "a data sheet")), str(Figure(1008, 1008, "another"))
    ('115 ±30%', '1,008')
    """

    low: float
    high: float
    source: str

    @property
    def value(self) -> float:
        """The middle."""
        return (self.low + self.high) / 2

    @property
    def uncertainty(self) -> float:
        """± share of the middle."""
        return (self.high - self.low) / (self.high + self.low)

    def __str__(self) -> str:
        text = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return text + (f" ±{self.uncertainty:.0%}" if self.low < self.high else "")


@dataclass(frozen=True, eq=False)
class Gpu:
    """A card of the catalogue, of which there is one object each.

    Attributes:
        capability: NVIDIA's compute capability; None of Apple's.
        memory_gib: as on the box; several where one name stands for several sizes.
        figures: ``sm_count boost_mhz memory_mib reserved_mib memory_bandwidth_gb_s power_w``, those that are known.
        tflops: precision → dense peak in 10¹² FLOP per second, sums in fp32.
        full_rate: whether tensor cores are as fast with sums in fp32 as in fp16.
        matches: the words of each of its drivers' names.
    """

    name: str
    kind: Literal["cuda", "mps"]
    capability: tuple[int, int] | None
    memory_gib: tuple[float, ...]
    figures: Mapping[str, Figure]
    tflops: Mapping[str, Figure]
    full_rate: bool
    note: str
    matches: tuple[frozenset[str], ...] = field(repr=False)

    @property
    def peak_flops_per_second(self) -> dict[str, float | None]:
        """Precision → dense peak, FLOP per second; the middle where it is uncertain."""
        return {precision: round(figure.value * 1e12) for precision, figure in self.tflops.items()}

    @property
    def peak_uncertainty(self) -> float:
        """± share of its peaks."""
        return max((figure.uncertainty for figure in self.tflops.values()), default=0.0)

    @property
    def memory_bandwidth_gb_s(self) -> float:
        """10⁹ bytes per second."""
        return self.figures["memory_bandwidth_gb_s"].value

    @property
    def source(self) -> str:
        """Where its peaks are from."""
        return "; ".join(dict.fromkeys(figure.source for figure in self.tflops.values()))

    @property
    def laptop(self) -> bool:
        """Whether it is soldered into a laptop, which sets its power."""
        return any("laptop" in match for match in self.matches)

    @property
    def uncertain(self) -> bool:
        """Whether nobody vouches for one of the figures that a plan is made from."""
        return self.peak_uncertainty > 0 or self.figures["memory_bandwidth_gb_s"].uncertainty > 0

    def total_gib(self, size: float) -> float:
        """What the driver says there is, on the card with ``size`` GiB on its box; the least, where ECC can be set."""
        return self.figures["memory_mib"].low / 1024 if "memory_mib" in self.figures else size

    def free_gib(self, size: float) -> float:
        """What of it the driver leaves to programs: what torch calls the card's total capacity."""
        reserved = self.figures["reserved_mib"].value if "reserved_mib" in self.figures else RESERVED_MIB
        return self.total_gib(size) - reserved / 1024


def words(name: str) -> frozenset[str]:
    """The words that tell a card from others: ``NVIDIA A100-SXM4-40GB`` → ``{a100, sxm4, 40gb}``; ``4070ti`` is two."""
    spaced = name.lower().replace("-", " ").replace("_", " ").replace("mobile", "laptop")
    spaced = re.sub(r"(\d+)\s*(gb|gib)\b", r" \1gb", spaced)
    spaced = re.sub(r"\b(rtx|gtx)(?=\d)", r"\1 ", spaced)
    spaced = re.sub(r"(?<=\d)(ti|super)\b", r" \1", spaced)
    spaced = re.sub(r"\b(\d{4})m\b", r"\1 laptop", spaced)
    return frozenset(spaced.split()) - FILLER


def _figure(row: Mapping[str, Any], key: str, value: float | list[float]) -> Figure:
    low, high = value if isinstance(value, list) else (value, value)
    return Figure(float(low), float(high), _source(row["source"].get(key, row["source"]["all"])))


def _source(names: str) -> str:
    """``wikipedia techpowerup/x`` → what the two names stand for."""
    texts = []
    for name in names.split():
        key, _, rest = name.partition("/")
        texts.append(_sources()[key].replace("{}", rest))
    return "; ".join(texts)


def _gpu(row: Mapping[str, Any]) -> Gpu:
    sizes = row["memory_gib"] if isinstance(row["memory_gib"], list) else [row["memory_gib"]]
    major, _, minor = str(row.get("capability", "")).partition(".")
    return Gpu(
        name=row["name"],
        kind=row.get("kind", "cuda"),
        capability=(int(major), int(minor)) if major else None,
        memory_gib=tuple(float(size) for size in sizes),
        figures={key: _figure(row, key, row[key]) for key in FIGURES if key in row},
        tflops={precision: _figure(row, "tflops", value) for precision, value in row["tflops"].items()},
        full_rate=row.get("full_rate_tensor_cores", False),
        note=row.get("note", ""),
        matches=tuple(words(name) for name in row["matches"]),
    )


def _read(name: str) -> dict[str, Any]:
    # Imported here: on a machine without a GPU a plan asks for no card.
    from importlib.resources import files

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads((files("ganeum.hardware") / "gpus" / f"{name}.toml").read_text(encoding="utf-8"))


@cache
def _sources() -> dict[str, str]:
    return _read("sources")


@cache
def gpus() -> tuple[Gpu, ...]:
    """Every card of the catalogue."""
    return tuple(_gpu(row) for name in FILES for row in _read(name)["gpu"])


def find(name: str, memory_gib: float | None = None) -> Gpu | None:
    """The card that the driver calls ``name``, or None when it is not known or could be two.

    Args:
        name: NVML's name (``NVIDIA GeForce RTX 3080``), or what a person types (``rtx 3080 12gb``).
        memory_gib: what the driver says it has, which is a little less than what is on the box; tells apart cards that
            share a name. A card whose memory fits no entry of that name is another card.
    """
    found = [gpu for gpu, _ in candidates(name, memory_gib)]
    return found[0] if len(found) == 1 else None


def candidates(name: str, memory_gib: float | None = None) -> list[tuple[Gpu, float]]:
    """Every card that ``name`` could mean, with the size of its memory in GiB; as :func:`find`, which see."""
    wanted = words(name)
    # A size in the name is a fact like memory_gib, unless the card's own name carries it (A100-SXM4-40GB).
    cards = [gpu for gpu in gpus() if any(match in (wanted, _sizeless(wanted)) for match in gpu.matches)]
    return _of_size(cards, wanted, memory_gib)


def containing(name: str) -> list[tuple[Gpu, float]]:
    """Every card whose name holds all the words of ``name`` and more (``V100`` → PCIe and SXM2), with its size."""
    wanted = words(name)
    cards = [gpu for gpu in gpus() if any(_sizeless(wanted) <= match for match in gpu.matches)]
    return _of_size(cards, wanted, None) if _sizeless(wanted) else []


def _sizeless(wanted: frozenset[str]) -> frozenset[str]:
    return frozenset(word for word in wanted if not SIZE.fullmatch(word))


def _of_size(cards: list[Gpu], wanted: frozenset[str], memory_gib: float | None) -> list[tuple[Gpu, float]]:
    """Those with that memory, as the driver or the name says it."""
    sizes = wanted - _sizeless(wanted)
    if memory_gib is None and sizes:
        memory_gib = float(next(iter(sizes)).removesuffix("gb"))
    return [
        (gpu, size)
        for gpu in cards
        for size in gpu.memory_gib
        if memory_gib is None or 0.9 * size <= memory_gib <= 1.02 * size
    ]
