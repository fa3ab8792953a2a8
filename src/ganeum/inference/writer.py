"""What writes: a GPT of ours or one of Hugging Face's models, behind one door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ganeum.inference.decoding import Decoding
from ganeum.plan.memory import Memory

Noise = npt.NDArray[np.float32]
Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Prompts:
    """What prompts are made of.

    Attributes:
        prefix: in front of every text.
        longest: the most tokens of a prompt; None: as the model and its tokenizer say.
        columns: what the model was trained to read, where that is known.
    """

    prefix: str = ""
    longest: int | None = None
    columns: tuple[str, ...] = ()


class Writer(Protocol):
    """A model with its tokenizer, ready to write.

    Attributes:
        name: what to call it.
        identity: what makes it this one: where it lies, its weights' digest, what its prompts are made with.
        prompts: what they are made of, ``longest`` a number; what is longer is cut, and counted in ``cut``.
    """

    name: str
    identity: dict[str, Any]
    prompts: Prompts
    cut: int

    @property
    def longest(self) -> int:
        """The most tokens that a prompt has."""
        ...

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens that the model reads for each text, at least one."""
        ...

    def write(self, prompts: Sequence[Sequence[int]], noise: Noise | None, decoding: Decoding) -> list[list[int]]:
        """The new tokens of each, without the one that ends a text, all at once.

        Args:
            noise: (B, max_new_tokens), what tokens are drawn by; None: nothing is drawn.
        """
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of new tokens."""
        ...

    def needed(self, size: int, prompt: int, decoding: Decoding) -> Memory | None:
        """What ``size`` prompts of so many tokens take at once, by the plan; None: the model's parts are not known."""
        ...
