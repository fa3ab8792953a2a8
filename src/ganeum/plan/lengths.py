"""How long a run is: windows, steps, epochs and tokens, and how often each token is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ganeum.config.schema import Config
from ganeum.data.windows import Windows


@dataclass(frozen=True)
class Lengths:
    """The sizes of a run. ``None`` stands for what the data or the speed must say first.

    Attributes:
        tokens: tokens to train with: in ``train.bin``, or of all examples, padding not counted.
        windows: places a sequence can start at in one epoch (``stride`` apart; ``block_size`` apart for random order,
            where an epoch is as many sequences as cover the tokens once); None of examples.
        steps_per_epoch: full batches an epoch; of examples as many as hold each once.
        steps: optimizer steps in all; 0 with ``eval_only``.
        tokens_per_step: ``batch_size · block_size``; of examples ``batch_tokens``, or what a step has on average, or as
            much as it can have while nobody counted.
        tokens_seen: ``steps · tokens_per_step``, each repetition counted.
        epochs: ``steps / steps_per_epoch``.
        repeats_per_token: how often a token of the corpus is trained on, on average: ``tokens_seen / tokens``.
    """

    tokens: int | None
    windows: int | None
    steps_per_epoch: int | None
    steps: int | None
    tokens_per_step: int
    tokens_seen: int | None
    epochs: float | None
    repeats_per_token: float | None


def stride_of(config: Config) -> int:
    """Tokens between the starts of neighbouring windows."""
    stride = config.data.stride
    return config.model.block_size if config.data.order == "random" or stride == "auto" else stride


def lengths(
    config: Config, tokens: int | None, *, steps_per_epoch: int | None = None, step_s: float | None = None
) -> Lengths:
    """The lengths of ``config`` on a corpus of ``tokens`` tokens.

    Args:
        tokens: as :class:`Lengths` has them; None while the data is not prepared.
        steps_per_epoch: of examples, whose lengths alone do not say it.
        step_s: seconds of an optimizer step, as measured; ``train.hours`` becomes steps only with it.
    """
    train, tokens_per_step = config.train, config.train.batch_size * config.model.block_size
    windows = None
    if config.model.source is not None:
        tokens_per_step = _of_examples(config, tokens, steps_per_epoch)
    elif tokens is not None:
        places = Windows(tokens, config.model.block_size, stride_of(config))
        windows, steps_per_epoch = places.count, places.steps_per_epoch(train.batch_size)

    steps: int | None = None
    if train.eval_only:
        steps = 0
    elif train.max_iters is not None:
        steps = train.max_iters
    elif train.tokens is not None:
        steps = math.ceil(train.tokens / tokens_per_step)
    elif train.epochs is not None and steps_per_epoch is not None:
        steps = math.ceil(train.epochs * steps_per_epoch)
    elif train.hours is not None and step_s is not None:
        steps = max(1, int(train.hours * 3600 / step_s))

    tokens_seen = None if steps is None else steps * tokens_per_step
    return Lengths(
        tokens=tokens,
        windows=windows,
        steps_per_epoch=steps_per_epoch,
        steps=steps,
        tokens_per_step=tokens_per_step,
        tokens_seen=tokens_seen,
        epochs=steps / steps_per_epoch if steps is not None and steps_per_epoch else None,
        repeats_per_token=tokens_seen / tokens if tokens_seen is not None and tokens else None,
    )


def _of_examples(config: Config, tokens: int | None, steps_per_epoch: int | None) -> int:
    """Tokens of a step."""
    if config.train.batch_tokens is not None:
        return config.train.batch_tokens
    if tokens is not None and steps_per_epoch:
        return max(1, round(tokens / steps_per_epoch))
    pairs = config.data.kind != "texts"
    return config.train.batch_size * (config.data.max_length + pairs * config.data.max_target_length)
