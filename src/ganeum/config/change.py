"""A config with some keys changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeum.config.schema import Config


def change(config: Config, settings: Mapping[str, Any]) -> Config:
    """`config` with dotted keys changed, ``{"train.lora.rank": 8}``, each value checked again."""
    tree = config.model_dump()
    for key, value in settings.items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[name] = value
    return Config.model_validate(tree)
