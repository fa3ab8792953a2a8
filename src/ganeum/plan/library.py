"""`ganeum.plan(…)`: the closed-form plan of a config, for this machine or for a card of the catalogue."""

from __future__ import annotations

import sys
from typing import Any

from ganeum.config.given import Given, taken
from ganeum.hardware.card import card
from ganeum.hardware.machine import look
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
        device=look(wanted.device) if gpu is None else card(gpu),
        tokens=tokens or (size.tokens if size else None),
        vocab_size=size.vocab_size if size else None,
    )
