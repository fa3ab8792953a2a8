"""`ganeum.plan(…)`: the closed-form plan of a config or of a model by its name, for this machine or for a card."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from os import fspath
from typing import Any

from ganeum.config import Config
from ganeum.config.given import Given, taken
from ganeum.hardware.card import card
from ganeum.hardware.machine import look
from ganeum.plan.question import use
from ganeum.plan.question.subject import Model, Run, config_file


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
        config: a YAML file, the same as a dictionary, or a config that was loaded; or a model of Hugging Face's by its
            name, its directory or its config.json.
        overrides: keys as on the command line: `"max_iters=100"`; of a model by its name, how it is to be run:
            `"length=512"`, `"purpose=inference"`.
        section: the one config to take of a file that holds several.
        gpu: a card of the catalogue, as a person calls it (`"RTX 3080 12GB"`); None: this machine's device.
        tokens: tokens in the data, where it is not prepared yet.

    Raises:
        GaneumError: the config cannot be a run, or the card or the model is not known.
    """
    if not isinstance(config, (Config, Mapping)):
        if (file := config_file(config)) is None:
            from ganeum.plan.architecture import find

            return Model(find(fspath(config)), use.read(overrides)).plan(look() if gpu is None else card(gpu))
        config = file
    wanted = taken(config, overrides, section=section, say=lambda text: print(text + "\n", file=sys.stderr))
    return Run.of(wanted, tokens).plan(look(wanted.device) if gpu is None else card(gpu))
