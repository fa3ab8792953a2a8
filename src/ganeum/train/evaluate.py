"""Evaluation: the same validation windows every time, in nats per token and bits per byte."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ganeum.config import Config
from ganeum.data.batches import validation_windows
from ganeum.data.corpus import Corpus
from ganeum.step.optimizer_step import OptimizerStep


@dataclass(frozen=True)
class Evaluation:
    """``val_loss``: nats per token. ``val_bpb``: bits per byte of text, None where nothing says how long a token is."""

    val_loss: float
    val_bpb: float | None


@dataclass(frozen=True)
class ValidationSet:
    """Windows x → y, both (N, T) int64 on the CPU; ``bytes`` of text that their targets stand for, where known."""

    x: Tensor
    y: Tensor
    bytes: int | None

    @property
    def tokens(self) -> int:
        """Targets: every one counts the same."""
        return self.y.numel()

    def first(self, sequences: int) -> ValidationSet:
        """A part of it, to see how long one takes."""
        return ValidationSet(self.x[:sequences], self.y[:sequences], None)

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
            for x, y in zip(self.x.split(batch_size), self.y.split(batch_size), strict=True):
                total += step.token_nats(x, y).sum(dtype=torch.float32).double().cpu()
        finally:
            step.model.train(training)
        nats = total.item()
        return Evaluation(nats / self.tokens, nats / math.log(2) / self.bytes if self.bytes else None)


def validation_set(corpus: Corpus, config: Config) -> ValidationSet | None:
    """The fixed windows of val.bin; None where there is no val.bin."""
    if corpus.val is None:
        return None
    x, y = validation_windows(corpus.val, config.model.block_size, config.train.eval_tokens)
    if corpus.tokenizer is None:
        return ValidationSet(x, y, None)
    byte_lengths = torch.from_numpy(corpus.tokenizer.byte_lengths()).long()  # (V,)
    return ValidationSet(x, y, int(byte_lengths[y].sum()))
