"""The network that a config of ours is about: our GPT, or the model of `model.source`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from ganeum.config.schema import Config
from ganeum.plan.architecture import known, ours
from ganeum.plan.architecture.parts import Architecture

# transformers 5 ties these whatever config.json says, and unties what it loads where the weights differ.
TIED_WHERE_DRAWN = frozenset(("t5", "mt5", "umt5"))


def of(config: Config, vocab_size: int | None = None) -> Architecture:
    """The parts of what ``config`` trains; of somebody else's model its config.json alone is read.

    Args:
        vocab_size: of a GPT of ours; None: ``model.vocab_size``, which is then a number.

    Raises:
        ConfigError: there is no such model, or its parts are not known.
    """
    model = config.model
    if model.source is None:
        return ours.architecture(model, vocab_size)
    found = _source(model.source, _state(model.source))
    dropout = found.dropout if model.dropout is None else model.dropout
    drawn = model.fresh or Path(model.source).is_file()
    tied = found.tied or (drawn and found.family in TIED_WHERE_DRAWN)
    return replace(found, implementation="adopted", dropout=dropout, tied=tied)


@lru_cache(maxsize=8)  # asked many times in a plan, and a name on the hub is asked for over the network
def _source(name: str, state: tuple[str, int] | None) -> Architecture:
    return known.find(name, roughly=True)


def _state(name: str) -> tuple[str, int] | None:
    """Which file it is, and when it was written; None of a name on the hub."""
    path = Path(name).expanduser()
    for file in (path / "config.json", path):
        with suppress(OSError):
            return str(file.resolve(strict=True)), file.stat().st_mtime_ns
    return None
