"""What a step needs of a network, whoever wrote it: hidden states, and the layer that turns them into logits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from torch import Tensor, nn


class Head(Protocol):
    """A linear layer without bias; ``weight`` (P, C), P ≥ vocab_size."""

    weight: nn.Parameter


class Network(Protocol):
    """A GPT of ours, or one of Hugging Face's models behind the same door.

    ``blocks``: the layers, which activation checkpointing works on. It is an ``nn.Module`` besides.
    """

    vocab_size: int
    head: Any
    blocks: Iterable[nn.Module]

    def hidden(self, **inputs: Tensor) -> Tensor:
        """What the batch's ``inputs`` are → (B, T, C), what ``head`` is applied to: one row for each target."""
        ...
