"""`ganeum.plan(…)`: the closed-form plan of a config, for this machine or for a card of the catalogue."""

from __future__ import annotations

import difflib
import sys
from typing import Any

from ganeum.config.given import Given, taken
from ganeum.errors import DeviceError
from ganeum.hardware import catalogue
from ganeum.hardware.device import Device
from ganeum.hardware.machine import CUDA_CONTEXT_GIB, look, nvidia
from ganeum.plan import closed_form
from ganeum.plan.corpus import size_of


def plan(
    config: Given,
    *overrides: str,
    section: str | None = None,
    gpu: str | None = None,
    tokens: int | None = None,
) -> dict[str, Any]:
    """What a run needs, as plan.json holds it; nothing is trained, nothing is written, torch is not loaded.

    What Hugging Face's names came to, if there are any, is said on standard error.

    Args:
        config: a YAML file, the same as a dictionary, or a config that was loaded.
        overrides: keys as on the command line: `"max_iters=100"`.
        section: the one config to take of a file that holds several.
        gpu: a card of the catalogue, as a person calls it (`"RTX 3080 12GB"`); None: this machine's device.
        tokens: tokens in the data, where it is not prepared yet.

    Raises:
        GaneumError: the config cannot be a run, or the card is not known.
    """
    wanted = taken(config, overrides, section=section, say=lambda text: print(text + "\n", file=sys.stderr))
    size = size_of(wanted.data.directory)
    return closed_form.plan(
        wanted,
        device=look(wanted.device) if gpu is None else _card(gpu),
        tokens=tokens or (size.tokens if size else None),
        vocab_size=size.vocab_size if size else None,
    )


def _card(name: str) -> Device:
    """A card as it comes out of its box, all of its memory free but for what CUDA takes."""
    card, words = catalogue.find(name), catalogue.words(name)
    sizes = [size for size in card.memory_gib if f"{size:.0f}gb" in words] or card.memory_gib if card else ()
    if card is None or len(sizes) > 1:
        every = [gpu.name for gpu in catalogue.gpus()]
        several = [f"{card.name} {size:.0f}GB" for size in sizes] if card else []
        several = several or [other for other in every if words <= catalogue.words(other)]
        raise DeviceError(
            f"{name} could be more than one card" if several else f"no GPU called {name} is known",
            where="gpu",
            suggestion=" or ".join(several or difflib.get_close_matches(name, every, n=3, cutoff=0.4)) or None,
        )
    memory_gib = sizes[0]
    return nvidia(card.name, memory_gib, memory_gib - CUDA_CONTEXT_GIB, card.capability, 0)
