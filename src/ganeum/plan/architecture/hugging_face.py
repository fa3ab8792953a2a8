"""From a config.json to a model's parts, by its ``model_type``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ganeum.errors import ConfigError
from ganeum.plan.architecture import decoders, encoder_decoder
from ganeum.plan.architecture.akin import akin
from ganeum.plan.architecture.keys import Keys
from ganeum.plan.architecture.parts import Architecture

FAMILIES: dict[str, Callable[[Keys], Architecture]] = {
    "codegen": decoders.codegen,
    "gpt2": decoders.gpt2,
    "gpt_bigcode": decoders.gpt_bigcode,
    "llama": decoders.llama,
    "mistral": decoders.mistral,
    "mpt": decoders.mpt,
    "mt5": encoder_decoder.mt5,
    "phi": decoders.phi,
    "qwen2": decoders.qwen2,
    "qwen3": decoders.qwen3,
    "replit_lm": decoders.replit,
    "t5": encoder_decoder.t5,
    "umt5": encoder_decoder.umt5,
}


def from_config_json(config: Mapping[str, Any], *, name: str, source: str = "", roughly: bool = False) -> Architecture:
    """The parts of the model that transformers builds from ``config``.

    Args:
        config: what config.json holds; keys that it leaves out have transformers' defaults.
        name: the model's, as a person knows it.
        source: where the config was read.
        roughly: a type that is not known here is counted as the known one that is most like it, and says so.

    Raises:
        ConfigError: its ``model_type`` is none of ``FAMILIES`` (nor like any), or a value is impossible.
    """
    family = config.get("model_type")
    if not isinstance(family, str):
        said = "is missing" if family is None else f"is {family!r}, no word in quotation marks"
        raise ConfigError(
            f"the config of {name} does not say what kind of model it is",
            where=source or None,
            why=f"model_type {said}",
            suggestion=f'"model_type": one of {", ".join(FAMILIES)}',
        )
    if roughly and family not in FAMILIES and (like := akin(config)):
        kind = like["model_type"]
        note = f"models of type {family} are not known part by part: counted as a {kind} of its sizes, about right"
        return replace(FAMILIES[kind](Keys(like, name, source)), family=family, note=note)
    if family not in FAMILIES:
        alike = [known for known in FAMILIES if _bare(known) == _bare(family)]  # mamba is no llama, mixtral no mistral
        raise ConfigError(
            f"{name} is a model of type {family}, whose parts are not known here",
            where=source or None,
            why=f"counted are {', '.join(FAMILIES)}",
            suggestion=f'"model_type": "{alike[0]}"' if alike else None,
        )
    return FAMILIES[family](Keys(config, name, source))


def _bare(name: str) -> str:
    """As it is heard: ``GPT-2`` is ``gpt2``."""
    return re.sub(r"[\W_]", "", name).lower()
