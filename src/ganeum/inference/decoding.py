"""How texts are written: the likeliest token, a draw, or beams; and each row's own random numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ganeum.errors import ConfigError, GaneumError, Several

MOST_BEAMS = 256  # far beyond what anybody searches with; a row of 100,000 takes all memory, and the system kills it


@dataclass(frozen=True)
class Decoding:
    """One way to write.

    Attributes:
        max_new_tokens: the most that a text may have; the token that ends it ends it before.
        num_beams: hypotheses kept for each row; the likeliest whole text is taken. 1: no search.
        temperature: logits are divided by it before a token is drawn; 0: always the likeliest.
        top_k, top_p: only among the k likeliest; only among the likeliest that hold this probability together.
        seed: of the draws.
    """

    max_new_tokens: int = 128
    num_beams: int = 1
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 1337

    def check(self) -> None:
        """Raises ConfigError, or Several, where settings contradict each other."""
        errors: list[GaneumError] = []
        if not math.isfinite(self.temperature):
            errors.append(ConfigError(f"a temperature of {self.temperature} is no number to divide by"))
        if self.num_beams > MOST_BEAMS:
            errors.append(
                ConfigError(
                    f"{self.num_beams:,} beams are more than {MOST_BEAMS}",
                    why="each is a text that is kept and written on, of every row",
                    suggestion="--num-beams 4",
                )
            )
        if self.num_beams > 1 and self.temperature > 0:
            errors.append(
                ConfigError(
                    f"{self.num_beams} beams and a temperature of {self.temperature:g} are two ways to write",
                    why="beams look for the likeliest text, a temperature draws one",
                    suggestion="--num-beams 1, or --temperature 0",
                )
            )
        for name, value in (("--top-k", self.top_k), ("--top-p", self.top_p)):
            if value is not None and self.temperature == 0:
                errors.append(
                    ConfigError(
                        f"{name} {value:g} says nothing where the likeliest token is always taken",
                        why="nothing is drawn at temperature 0",
                        suggestion="--temperature 1 beside it",
                    )
                )
        if errors:
            raise errors[0] if len(errors) == 1 else Several(errors)

    def noise(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """(B, max_new_tokens) numbers from 0 up to 1, by which the tokens of the rows with these numbers are drawn.

        They hang on the seed and the row alone (Philox, a generator that counts: Salmon et al. 2011, SC'11), so that a
        row's text is the same in whichever batch it is written.
        """
        return np.stack(
            [
                np.random.Generator(np.random.Philox(key=[self.seed, row])).random(self.max_new_tokens, np.float32)
                for row in rows
            ]
        )
