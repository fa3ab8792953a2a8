"""What a step needs of a network, whoever wrote it: hidden states, and the layer that turns them into logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Output(NamedTuple):
    """From hidden states to logits: ``hidden · weightᵀ + bias``, and of these ``cap · tanh(… / cap)`` where it has a
    cap. Without a ``weight`` (P, C) what ``hidden`` gives are logits already."""

    weight: Tensor | None
    bias: Tensor | None = None
    cap: float | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """(…, C) → (…, P), all at once."""
        if self.weight is None:
            return hidden
        logits = nn.functional.linear(hidden, self.weight, self.bias)
        return logits if self.cap is None else self.cap * (logits / self.cap).tanh()


class Network(nn.Module):
    """A GPT of ours, or one of Hugging Face's models behind the same door.

    Attributes:
        config: what it was built from.
        vocab_size: V, the ids there are.
        blocks: the layers, which activation checkpointing works on.
        head: the layer that is applied to hidden states; ``output()`` says what comes of them.
        hidden: a batch's ``inputs``, by name → (B, T, C), what ``head`` is applied to: one row for each target.
    """

    config: Any
    vocab_size: int
    blocks: Any  # nn.Module knows attributes only as tensors or modules
    head: Any
    hidden: Callable[..., Tensor]

    def output(self) -> Output:
        """What the loss makes logits with; P ≥ V rows."""
        return Output(self.head.weight)

    def compiled(self) -> Callable[..., Tensor]:
        """``hidden``, compiled by torch as it is called."""
        return torch.compile(self.hidden)

    def one_sequence(self) -> dict[str, Tensor]:
        """Inputs of ``hidden`` on the CPU, to see which kernels it runs: what they say does not matter."""
        raise NotImplementedError
