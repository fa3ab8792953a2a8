"""A card by its name alone, as it comes out of its box: the device that a run would have, on a machine without it."""

from __future__ import annotations

import difflib
import re

from ganeum.errors import DeviceError
from ganeum.hardware import catalogue
from ganeum.hardware.catalogue import RESERVED_MIB, Gpu
from ganeum.hardware.device import OWNERS, Device
from ganeum.hardware.machine import CUDA_CONTEXT_GIB, apple_share, nvidia

MOST_NAMES = 6  # that an error lists
GIVEN = "24GB, bf16 165 TFLOPS, bandwidth 1008 GB/s"
NUMBER = r"\d+(?:\.\d+)?"
FACT = re.compile(
    rf"(?:memory\s*)?(?P<memory>{NUMBER})\s*GI?B"
    rf"|(?P<precision>fp32|tf32|fp16|bf16)\s*(?P<tflops>{NUMBER})\s*TFLOPS?(?:/s)?"
    rf"|bandwidth\s*(?P<bandwidth>{NUMBER})\s*(?P<unit>[GT])B/s"
    rf"|power\s*(?P<power>{NUMBER})\s*W",
    re.IGNORECASE,
)


def card(name: str) -> Device:
    """The card that ``name`` means, all of its memory free but for what the driver and CUDA take.

    Args:
        name: as a person calls it (``RTX 3080 12GB``, ``4090``) or as its driver does; or a card that the catalogue
            does not have, with what is known of it behind a colon (:func:`given`).

    Raises:
        DeviceError: no card of that name is known (with the nearest names), several are, or a fact about it is none.
    """
    if ":" in name:
        return given(name)
    found = _meant(name)
    if len(found) != 1:
        raise _unknown(name, found)
    ((known, size),) = found
    return as_device(known, size)


def cards(name: str) -> list[Gpu]:
    """Every card that ``name`` could mean, to be looked at: ``V100`` is four, ``3080`` two.

    Raises:
        DeviceError: no card has such a name; with the nearest ones.
    """
    found = _meant(name) or catalogue.containing(name)
    if not found:
        raise _unknown(name, found)
    return list(dict.fromkeys(gpu for gpu, _ in found))


def as_device(known: Gpu, size: float) -> Device:
    """A card of the catalogue with ``size`` GiB on its box."""
    if known.kind == "mps":
        return apple_share(known.name, size, size)
    assert known.capability is not None
    total = known.total_gib(size)
    return nvidia(known.name, total, known.free_gib(size) - CUDA_CONTEXT_GIB, known.capability, 0, known=known)


def given(text: str) -> Device:
    """A card by what its owner says of it: ``My Card: 24GB, bf16 165 TFLOPS, bandwidth 1008 GB/s``.

    Facts: ``24GB`` (needed), ``bf16 165 TFLOPS`` for each precision (dense, sums in fp32), ``bandwidth 1008 GB/s``,
    ``power 450 W``. A precision without a rate has no peak, and no time is predicted for it.

    Raises:
        DeviceError: a fact that is none of these, or no memory.
    """
    name, _, facts = text.partition(":")
    name = name.strip() or "My Card"
    memory = bandwidth = power = None
    peaks: dict[str, float | None] = {}
    for fact in (part.strip() for part in facts.split(",")):
        match = FACT.fullmatch(fact)
        if match is None:
            raise DeviceError(
                f"{fact!r} says nothing about a GPU that ganeum understands" if fact else "a fact is missing",
                where=f"gpu, {text}",
                why="a card of your own is its name, a colon, its memory and as many of its rates as are known",
                suggestion=f"{name}: {GIVEN}",
            )
        if match["memory"]:
            memory = float(match["memory"])
        elif match["precision"]:
            peaks[match["precision"].lower()] = float(match["tflops"]) * 1e12
        elif match["bandwidth"]:
            bandwidth = float(match["bandwidth"]) * (1000 if match["unit"].upper() == "T" else 1)
        else:
            power = float(match["power"])
    if not memory:
        raise DeviceError(f"{name} has no memory", where=f"gpu, {text}", suggestion=f"{name}: {GIVEN}")
    return Device(
        name=name,
        kind="cuda",
        memory_gib=memory,
        usable_gib=max(0.0, memory - RESERVED_MIB / 1024 - CUDA_CONTEXT_GIB),
        peak_flops_per_second=peaks,
        source=OWNERS,
        # The oldest NVIDIA that multiplies so (where nothing is told, today's): it decides precision and kernels.
        capability=(8, 0) if "bf16" in peaks or not peaks else (7, 0) if "fp16" in peaks else (6, 0),
        memory_bandwidth_gb_s=bandwidth,
        power_w=power,
    )


def _meant(name: str) -> list[tuple[Gpu, float]]:
    """Cards of that name; where a person left RTX or GTX out (``4090``), those that have it."""
    found = catalogue.candidates(name)
    for series in sorted(catalogue.SERIES) if re.search(r"\d", name) else ():
        found = found or catalogue.candidates(f"{series} {name}")
    return found


def _unknown(name: str, found: list[tuple[Gpu, float]]) -> DeviceError:
    """What to say of a name that is no card's or several cards'."""
    wider = found or [(gpu, size) for gpu, size in catalogue.containing(name) if not gpu.laptop]
    sized, names = [_with_size(gpu, size) for gpu, size in wider], [gpu.name for gpu, _ in wider]
    for meant in (sized, list(dict.fromkeys(names))):
        if 1 < len(meant) <= MOST_NAMES:
            return DeviceError(f"{name} could be more than one card", where="gpu", suggestion=" or ".join(meant))
    return DeviceError(
        f"no GPU called {name} is known" if name.strip() else "no GPU is named",
        where="gpu",
        why="a card with a name like it may be half as fast, so none is taken for it; ganeum gpus lists those known",
        suggestion=" or ".join([*_nearest(name), f'with its own figures "NAME: {GIVEN}"']),
    )


def _nearest(name: str) -> list[str]:
    """Cards whose names hold all of its words, or look like it."""
    bare = re.sub(rf"{NUMBER}\s*gi?b\b", "", name.casefold()).strip()  # 4090 48GB: what there is of a 4090
    for cards in (catalogue.containing(name), _meant(bare)):
        if 0 < len(cards) <= MOST_NAMES:
            return [_with_size(gpu, size) for gpu, size in cards]
    brief = {re.sub(r"^(geforce|tesla|quadro) ", "", gpu.name.casefold()): gpu.name for gpu in catalogue.gpus()}
    wanted = f"rtx {bare}" if re.match(r"\d", bare) else bare
    return [brief[word] for word in difflib.get_close_matches(wanted, brief, n=3, cutoff=0.6)]


def _with_size(gpu: Gpu, size: float) -> str:
    text = f"{size:.0f}GB"
    return gpu.name if text in gpu.name or len(gpu.memory_gib) == 1 else f"{gpu.name} {text}"
