"""What a step needs of a network, whoever wrote it: hidden states, and the layer that turns them into logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Network(nn.Module):
    """A GPT of ours, or one of Hugging Face's models behind the same door.

    Attributes:
        config: what it was built from.
        vocab_size: V, the ids there are.
        blocks: the layers, which activation checkpointing works on.
        head: applied to hidden states, without a bias; its ``weight`` is (P, C), P ≥ V.
        hidden: a batch's ``inputs``, by name → (B, T, C), what ``head`` is applied to: one row for each target.
    """

    config: Any
    vocab_size: int
    blocks: Any  # nn.Module knows attributes only as tensors or modules
    head: Any
    hidden: Callable[..., Tensor]

    def one_sequence(self) -> dict[str, Tensor]:
        """Inputs of ``hidden`` on the CPU, to see which kernels it runs: what they say does not matter."""
        raise NotImplementedError
