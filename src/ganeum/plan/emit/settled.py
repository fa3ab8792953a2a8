"""A config with what its plan chose written into it, and the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeum.config.change import change
from ganeum.config.keys import keys
from ganeum.config.schema import Config

LEFT = {"model.vocab_size", "train.compile"}


def settled(config: Config, plan: Mapping[str, Any] | None) -> tuple[Config, dict[str, str]]:
    """``config`` with the ``choices`` of its plan as values, and each chosen key's reason; without a plan as it is.

    ``model.vocab_size`` stays ``auto``: it is the data's to say, and until that is there the plan's is a guess.
    ``train.compile`` does: training asks the same rule, and knows what its machine lacks.
    """
    chosen = [choice for choice in plan["choices"] if choice["key"] in keys().keys() - LEFT] if plan else []
    return (
        change(config, {choice["key"]: choice["value"] for choice in chosen}),
        {choice["key"]: choice["reason"] for choice in chosen},
    )
