"""Evaluation: the same held-out targets every time, in nats per token and bits per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ganeum.data.batch import Whole
from ganeum.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class Evaluation:
    """``val_loss``: nats per token. ``val_bpb``: bits per byte of text, None where nothing says how long a token is."""

    val_loss: float
    val_bpb: float | None


@dataclass(frozen=True)
class ValidationSet:
    """What is held out, on the CPU; ``bytes`` of text that its targets stand for, where known."""

    whole: Whole
    bytes: int | None

    @property
    def tokens(self) -> int:
        """Targets: every one counts the same."""
        return self.whole.targets

    def first(self, sequences: int) -> ValidationSet:
        """A part of it, to see how long one takes."""
        return ValidationSet(self.whole.first(sequences), None)

    def evaluate(self, step: OptimizerStep, batch_size: int) -> Evaluation:
        """The mean over every target, with dropout off, as the model stands.

        Bits per byte = nats of all targets / ln 2 / bytes of exactly these targets: it does not depend on how text
        is cut into tokens, so models with different tokenizers can be compared (and with gzip).

        Args:
            batch_size: sequences at once; the result does not depend on it beyond rounding.
        """
        training = step.model.training
        step.model.eval()
        total = torch.zeros((), dtype=torch.float64)
        try:
            for batch in self.whole.micro_batches(batch_size):
                total += step.token_nats(batch).sum(dtype=torch.float32).double().cpu()
        finally:
            step.model.train(training)
        nats = total.item()
        return Evaluation(nats / self.tokens, nats / math.log(2) / self.bytes if self.bytes else None)
