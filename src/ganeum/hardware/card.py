"""A card by its name alone, as it comes out of its box: the device that a run would have, on a machine without it."""

from __future__ import annotations

import difflib

from ganeum.errors import DeviceError
from ganeum.hardware import catalogue
from ganeum.hardware.device import Device
from ganeum.hardware.machine import CUDA_CONTEXT_GIB, nvidia


def card(name: str) -> Device:
    """The card of the catalogue that ``name`` means, all of its memory free but for what CUDA takes.

    Args:
        name: as a person calls it (``RTX 3080 12GB``, ``4090``) or as its driver does.

    Raises:
        DeviceError: no card of that name is known (with the nearest names), or several are.
    """
    known, words = catalogue.find(name), catalogue.words(name)
    sizes = [size for size in known.memory_gib if f"{size:.0f}gb" in words] or known.memory_gib if known else ()
    if known is None or len(sizes) > 1:
        every = [gpu.name for gpu in catalogue.gpus()]
        several = [f"{known.name} {size:.0f}GB" for size in sizes] if known else []
        several = several or [other for other in every if words <= catalogue.words(other)]
        raise DeviceError(
            f"{name} could be more than one card" if several else f"no GPU called {name} is known",
            where="gpu",
            suggestion=" or ".join(several or difflib.get_close_matches(name, every, n=3, cutoff=0.4)) or None,
        )
    return nvidia(known.name, sizes[0], sizes[0] - CUDA_CONTEXT_GIB, known.capability, 0)
