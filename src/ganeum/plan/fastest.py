"""The fastest way to run a config that fits: how many sequences at once, and what is computed again for room."""

from __future__ import annotations

from typing import Any

from ganeum import units
from ganeum.config.change import change
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import micro_batch

LEVELS = ("none", "selective", "whole")  # of checkpointing, the cheapest first
Choice = dict[str, Any]


def choose(config: Config, device: Device) -> tuple[dict[str, Any], list[Choice]]:
    """What ``train.activation_checkpointing`` and ``train.micro_batch_size`` become where they are ``auto``.

    ``batch_size`` stays as it is: it is what the model learns with.

    Args:
        config: with ``model.vocab_size`` resolved.

    Returns:
        Dotted keys and their values, and the choices ``{key, value, reason}`` for plan.json; nothing for what is set.
    """
    train = config.train
    settings: dict[str, Any] = {}
    choices: list[Choice] = []

    def take(key: str, value: Any, reason: str) -> None:
        settings[key] = value
        choices.append({"key": key, "value": value, "reason": reason})

    if train.activation_checkpointing == "auto":
        take("train.activation_checkpointing", *_checkpointing(config, device))
    if train.micro_batch_size == "auto":
        take("train.micro_batch_size", *micro_batch.choose(change(config, settings), device))
    return settings, choices


def _checkpointing(config: Config, device: Device) -> tuple[str, str]:
    """The level that costs least of those with which anything fits; with none of them, the one that needs least."""
    least = 1 if config.train.micro_batch_size == "auto" else config.train.micro_batch_size
    without = ""
    for level in LEVELS:
        needed = micro_batch.needed(change(config, {"train.activation_checkpointing": level}), device, least)
        if micro_batch.fits(needed, device):
            return level, without or f"it fits without computing anything twice: about {units.gib(needed.total)}"
        without = without or f"without it {units.things(least, 'sequence')} at once would need {units.gib(needed.total)}"
    return LEVELS[-1], f"{without}; nothing that is computed twice makes it fit"
