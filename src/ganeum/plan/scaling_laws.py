"""How low a loss a model of N parameters reaches after D tokens: three published laws, and what repeated text is worth.

All three have the form of Hoffmann et al. 2022 (arXiv 2203.15556, eq. 2), fitted to trainings that each saw their text
once and ended with their learning rate decayed: L(N, D) = E + A / N^α + B / D^β. N counts every parameter, embeddings
too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

REPEATED_DATA, EXCESS_PARAMETERS = 15.387756, 5.309743  # R_D* and R_N*: Muennighoff et al. 2023, appendix A
OTHER_TEXT = 0.4  # nats: by as much published trainings that no law was fitted to lie outside the three (docs, tests)
FITTED_PARAMETERS = (40e6, 16e9)  # Hoffmann et al. 2022: "70 million to over 16 billion", 44M in their figure 4
REPEATS = 40  # of a token; beyond, nothing is gained: Muennighoff et al. 2023, section 1
FITTED_TOKENS = (1e9, 500e9)  # theirs begin at 5B, and hold to 0.4 down to 1B; at 128M all three are 0.7 nats too high

LIKE_THEIRS = (16_000, 130_000)  # tokens in a vocabulary: theirs have 32,000 and 50,000; others say more or less each


@dataclass(frozen=True)
class Law:
    """One set of coefficients. ``E``: what no model gets below; the rest falls with parameters and with tokens."""

    name: str
    source: str
    E: float
    A: float
    B: float
    alpha: float
    beta: float

    def loss(self, n_params: float, tokens: float) -> float:
        """Nats a token."""
        return self.E + self.A * math.pow(n_params, -self.alpha) + self.B * math.pow(tokens, -self.beta)

    @property
    def G(self) -> float:
        """(α A / β B)^(1 / (α + β)): Hoffmann et al. 2022, eq. 4."""
        return math.pow(self.alpha * self.A / (self.beta * self.B), 1 / (self.alpha + self.beta))

    def optimum(self, flops: float) -> tuple[float, float]:
        """Parameters and tokens with the lowest loss for so much arithmetic, taken as 6 N D (eq. 4 there)."""
        n_params = self.G * math.pow(flops / 6, self.beta / (self.alpha + self.beta))
        return n_params, flops / 6 / n_params

    def parameters_for(self, tokens: float) -> float:
        """The model for which so many tokens are the optimum: :meth:`optimum` the other way round."""
        return self.G * math.pow(self.G * tokens, self.beta / self.alpha)

    def tokens_for(self, n_params: float) -> float:
        """The tokens that are the optimum for a model."""
        return math.pow(n_params / self.G, self.alpha / self.beta) / self.G


HOFFMANN = Law(
    "Hoffmann et al. 2022",
    "arXiv 2203.15556, approach 3: MassiveText, 32k tokens; E, α, β unrounded, as in table 1 of arXiv 2404.10102",
    1.6934,
    406.4,
    410.7,
    0.3392,
    0.2849,
)
BESIROGLU = Law(
    "Besiroglu et al. 2024",
    "arXiv 2404.10102: the same trainings fitted again, with standard errors 0.03, 125, 1293, 0.02, 0.02",
    1.8172,
    482.01,
    2085.43,
    0.3478,
    0.3658,
)
MUENNIGHOFF = Law(
    "Muennighoff et al. 2023",
    "arXiv 2305.16264, appendix A: C4, GPT-2's 50k; published as logarithms",
    math.exp(0.6254804),
    math.exp(6.255414),
    math.exp(7.3049974),
    0.3526596,
    0.3526596,
)
LAWS = (HOFFMANN, BESIROGLU, MUENNIGHOFF)


class Loss(NamedTuple):
    """Nats a token of held-out web text."""

    low: float
    expected: float
    high: float


def effective(law: Law, n_params: float, tokens: float, unique_tokens: float) -> tuple[float, float]:
    """What a model and its tokens are worth where there are only so many different tokens.

    Muennighoff et al. 2023, eq. 5 and 6: a token's worth falls with each time it is seen again, and so does that of
    parameters beyond those that the different tokens are the optimum for:

        D' = U_D + U_D R_D* (1 − exp(−R_D / R_D*))    U_D = min(unique, D),       R_D = D / U_D − 1
        N' = U_N + U_N R_N* (1 − exp(−R_N / R_N*))    U_N = min(N_opt(U_D), N),   R_N = N / U_N − 1

    It never turns: a loss that rises because a model learns its text by heart is not in it.
    """
    data = min(unique_tokens, tokens)
    model = min(law.parameters_for(data), n_params)
    return _worth(model, n_params, EXCESS_PARAMETERS), _worth(data, tokens, REPEATED_DATA)


def _worth(unique: float, every: float, star: float) -> float:
    return unique * (1 + star * (1 - math.exp(-(every / unique - 1) / star)))


def loss(n_params: float, tokens: float, unique_tokens: float | None = None) -> Loss:
    """The loss to expect of ``n_params`` parameters trained on ``tokens`` tokens, nats a token of held-out web text.

    ``expected`` is the mean of the three laws; ``low`` and ``high`` are the lowest and the highest of them, 0.4 further
    on. That 0.4 is most of the range: the laws' own error bars and their disagreement are near 0.05 where they were
    fitted, but another text, another vocabulary and another recipe move a loss by more.

    Args:
        n_params: all parameters, a tied output layer once.
        tokens: those seen, each repetition counted.
        unique_tokens: different ones; None: as many as are seen.
    """
    found = []
    for law in LAWS:
        worth = (n_params, tokens) if unique_tokens is None else effective(law, n_params, tokens, unique_tokens)
        found.append(law.loss(*worth))
    return Loss(min(found) - OTHER_TEXT, sum(found) / len(found), max(found) + OTHER_TEXT)


def parameters_for(tokens: float) -> float:
    """The model for which so many tokens are the optimum: the laws' geometric mean."""
    return math.prod(law.parameters_for(tokens) for law in LAWS) ** (1 / len(LAWS))


def tokens_for(n_params: float) -> float:
    """The tokens that are the optimum for a model: the laws' geometric mean."""
    return math.prod(law.tokens_for(n_params) for law in LAWS) ** (1 / len(LAWS))


def extrapolated(
    n_params: float, tokens: float, unique_tokens: float | None = None, vocab_size: int | None = None
) -> str:
    """Why the laws say little about such a training, in words; empty where they were fitted."""
    if vocab_size is not None and not LIKE_THEIRS[0] <= vocab_size <= LIKE_THEIRS[1]:
        return f"they are of vocabularies of 32,000 and 50,000, this one has {vocab_size:,}"
    if unique_tokens is not None and repeated_too_often(tokens, unique_tokens):
        often = f"{tokens / unique_tokens:,.0f} times"
        return f"each token is seen {often}, and beyond {REPEATS} times repeating adds nothing"
    for number, unit, (least, most) in (
        (n_params, "parameters", FITTED_PARAMETERS),
        (tokens, "tokens", FITTED_TOKENS),
    ):
        if number < least:
            return f"they were fitted from {_short(least)} {unit} on, this is {_short(number)}"
        if number > most:
            return f"they were fitted up to {_short(most)} {unit}, this is {_short(number)}"
    return ""


def repeated_too_often(tokens: float, unique_tokens: float | None) -> bool:
    """Whether the last repetitions teach nothing any more."""
    return unique_tokens is not None and tokens > REPEATS * unique_tokens


def _short(number: float) -> str:
    from ganeum import units

    return units.count(round(number))
