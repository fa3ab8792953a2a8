"""What a plan knows of examples before they are opened: how long rows are, and how many there are of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ganeum.config.schema import Config
from ganeum.data.examples.known import known


@dataclass(frozen=True)
class Rows:
    """Rows of a run's examples.

    Attributes:
        source, target: tokens of the largest row there can be, for which memory is planned; ``source`` is 0 where there
            is no encoder.
        usual_source, usual_target: of a row as it usually is, its padding included, by which time is planned.
        told: what was told of these examples when they were last opened; empty: they never were.
    """

    source: int
    target: int
    usual_source: float
    usual_target: float
    told: Mapping[str, Any]

    @property
    def usual(self) -> float:
        """Both."""
        return self.usual_source + self.usual_target

    @property
    def tokens(self) -> int | None:
        """Of all examples to train with, padding not counted; None: not known."""
        tokens: int | None = self.told.get("tokens")
        return tokens

    @property
    def held_out(self) -> int | None:
        """Tokens that are validated on; None: not known."""
        told = self.told
        if not told.get("examples"):
            return None
        return int(told["tokens"] / told["examples"] * told.get("val_examples", 0))

    def sequences(self, config: Config) -> int:
        """Examples of a step: ``train.batch_size``, or as many as ``train.batch_tokens`` come to."""
        tokens = config.train.batch_tokens
        if tokens is None:
            return config.train.batch_size
        examples = self.told.get("examples")
        each = self.told["tokens"] / examples if examples else self.source + self.target
        return max(1, round(tokens / each))

    def steps_per_epoch(self, config: Config) -> int | None:
        """Every example once (``data.examples.epochs``); None: how many there are is not known."""
        examples: int | None = self.told.get("examples")
        if not examples:
            return None
        if config.train.batch_tokens is None:
            return math.ceil(examples / config.train.batch_size)
        tokens: int = self.told["tokens"]
        return min(examples, max(1, round(tokens / config.train.batch_tokens)))


def rows_of(config: Config, *, encoder_decoder: bool, told: Mapping[str, Any] | None = None) -> Rows:
    """By what is told of the examples, now or when they were last opened, else as long as the config lets them
    become."""
    data, told = config.data, {**(known(config) or {}), **(told or {})}
    pairs = encoder_decoder or told.get("kind", data.kind) == "pairs"
    source, target = (data.max_length, data.max_target_length) if pairs else (0, data.max_length)
    if not encoder_decoder:
        source, target = 0, source + target
    if not told:
        return Rows(source, target, source, target, {})
    if largest := told.get("largest_row"):
        source, target = (min(most, largest[side]) for most, side in ((source, "source"), (target, "target")))
    return Rows(source, target, *_usual(told, source, target), told)


def _usual(told: Mapping[str, Any], source: int, target: int) -> tuple[float, float]:
    """An example's share of all tokens and of the padding, however many share a row; of fixed rows all of one."""
    if told["batching"] == "fixed":
        return source, target
    each = told["tokens"] / told["examples"] / (1 - told.get("padding", {}).get("share", 0.0))
    if not source:
        return 0, min(target, each)
    read, written = (told["texts"][side]["tokens"] for side in ("sources", "targets"))
    return min(source, each * read / (read + written)), min(target, each * written / (read + written))
