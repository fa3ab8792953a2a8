"""How one weight moves: AdamW, SGD, Adafactor and Muon as functions of weight, gradient and state.

Each rule takes a stack of k equally shaped weights (k, …) in fp32 and gives the new ones and the new state, all new
tensors: whoever calls it decides what of it is kept. That is how an update is skipped without a wait, how a weight is
rounded to bf16, and how state that lies elsewhere is fetched and put back (see optimizers.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

State = dict[str, Tensor]


@dataclass(frozen=True)
class Pace:
    """``rate``: the learning rate; ``decay``: the weight decay; ``updates``: () on the device, this one counted."""

    rate: float
    decay: float
    updates: Tensor


class Rule(Protocol):
    """One way to move weights."""

    def start(self, weight: Tensor) -> State:
        """The state before the first update; each tensor begins with the stack's k, or is as large as the stack."""

    def __call__(self, weight: Tensor, gradient: Tensor, state: State, pace: Pace) -> tuple[Tensor, State]:
        """The new weight, and the new state under the same names."""


@dataclass(frozen=True)
class AdamW:
    """Loshchilov & Hutter 2019, algorithm 2 (arXiv 1711.05101), as torch.optim.AdamW."""

    beta1: float
    beta2: float
    eps: float = 1e-8

    def start(self, weight: Tensor) -> State:
        return {"mean": torch.zeros_like(weight), "square": torch.zeros_like(weight)}

    def __call__(self, weight: Tensor, gradient: Tensor, state: State, pace: Pace) -> tuple[Tensor, State]:
        mean = state["mean"].lerp(gradient, 1 - self.beta1)
        square = (state["square"] * self.beta2).addcmul_(gradient, gradient, value=1 - self.beta2)
        correction = 1 - self.beta2**pace.updates  # the averages begin at zero
        size = (square / correction).sqrt_().add_(self.eps)
        step = mean / (1 - self.beta1**pace.updates)
        return (weight * (1 - pace.rate * pace.decay)).addcdiv_(step, size, value=-pace.rate), {
            "mean": mean,
            "square": square,
        }


@dataclass(frozen=True)
class SGD:
    """With momentum, as torch.optim.SGD: weight decay is part of the gradient."""

    momentum: float

    def start(self, weight: Tensor) -> State:
        return {"momentum": torch.zeros_like(weight)} if self.momentum else {}

    def __call__(self, weight: Tensor, gradient: Tensor, state: State, pace: Pace) -> tuple[Tensor, State]:
        step = gradient.add(weight, alpha=pace.decay)
        if not self.momentum:
            return weight.sub(step, alpha=pace.rate), {}
        momentum = (state["momentum"] * self.momentum).add_(step)
        return weight.sub(momentum, alpha=pace.rate), {"momentum": momentum}


@dataclass(frozen=True)
class Adafactor:
    """Shazeer & Stern 2018 (arXiv 1804.04235), as torch.optim.Adafactor: a matrix's squares are kept as the means of
    its rows and columns. The learning rate is relative to the size of the weight, and at most 1/√updates."""

    decay_power: float = -0.8
    least: float = torch.finfo(torch.float32).eps  # of a square's root
    least_size: float = 1e-3  # of a weight
    clip: float = 1.0  # of an update's root mean square

    def start(self, weight: Tensor) -> State:
        if weight.dim() == 2:  # a stack of vectors
            return {"square": torch.zeros_like(weight)}
        return {"rows": torch.zeros_like(weight[..., :1]), "columns": torch.zeros_like(weight[..., :1, :])}

    def __call__(self, weight: Tensor, gradient: Tensor, state: State, pace: Pace) -> tuple[Tensor, State]:
        share, square = pace.updates**self.decay_power, gradient.square()
        if "square" in state:
            new = {"square": torch.lerp(state["square"], square, share)}
            step = gradient * self._inverse_root(new["square"].clone())
        else:
            new = {
                "rows": torch.lerp(state["rows"], square.mean(-1, keepdim=True), share),  # (k, A, 1)
                "columns": torch.lerp(state["columns"], square.mean(-2, keepdim=True), share),  # (k, 1, B)
            }
            step = gradient * self._inverse_root(self._estimate(new["rows"], new))
        rate = self._rate(_root_mean_square(weight), _root_mean_square(step), pace)
        return weight * (1 - pace.rate * pace.decay) - step * rate, new

    def by_rows(
        self, parts: Sequence[Callable[[], tuple[Tensor, Tensor]]], state: State, pace: Pace
    ) -> tuple[Iterator[Tensor], State]:
        """The same of one matrix, some of its rows at a time, in three passes: the means of the squares first, from
        them the sizes of weight and step, then the new weight. Sums over all rows are added up in another order.

        Args:
            parts: each gives weight and gradient (1, n, B) of the next rows when it is called.

        Returns:
            The new weight's rows, computed as they are asked for, part by part; and the new state.
        """
        share, rows, columns = pace.updates**self.decay_power, [], torch.zeros_like(state["columns"])
        for part in parts:
            square = part()[1].square()
            rows.append(square.mean(-1, keepdim=True))
            columns += square.sum(-2, keepdim=True)
        lengths = [len(means[0]) for means in rows]
        new = {
            "rows": torch.lerp(state["rows"], torch.cat(rows, dim=1), share),
            "columns": torch.lerp(state["columns"], columns / sum(lengths), share),
        }
        sums, numbers = columns.new_zeros(2), sum(lengths) * columns.size(-1)
        for part, means in zip(parts, torch.split(new["rows"], lengths, dim=1), strict=True):
            weight, gradient = part()
            step = gradient * self._inverse_root(self._estimate(means, new))
            sums += torch.stack((weight.square().sum(), step.square().sum()))
        size, longest = (sums / numbers).sqrt()
        rate = self._rate(size, longest, pace)

        def moved() -> Iterator[Tensor]:
            for part, means in zip(parts, torch.split(new["rows"], lengths, dim=1), strict=True):
                weight, gradient = part()
                step = gradient * self._inverse_root(self._estimate(means, new))
                yield weight * (1 - pace.rate * pace.decay) - step * rate

        return moved(), new

    def _estimate(self, rows: Tensor, state: State) -> Tensor:
        """The squares of some rows, from the means of all."""
        return rows @ state["columns"] / state["rows"].mean(-2, keepdim=True).clamp_min(self.least)

    def _inverse_root(self, square: Tensor) -> Tensor:
        return square.clamp_min_(self.least**2).rsqrt_()

    def _rate(self, size: Tensor, longest: Tensor, pace: Pace) -> Tensor:
        """What a step is multiplied by: root mean squares of the weight and of the step."""
        rate = pace.updates.rsqrt().clamp_max(pace.rate)
        return size.clamp_min(self.least_size) * rate / (longest / self.clip).clamp_min(1.0)


@dataclass(frozen=True)
class Muon:
    """Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/), as torch.optim.Muon: the mean of the gradients
    of a matrix (A, B), looked ahead by one update (Nesterov), made orthogonal; and times 0.2 √max(A, B), which gives it
    the size of AdamW's updates, so that one learning rate serves both (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    """

    momentum: float
    dtype: torch.dtype  # of the matrix products

    def start(self, weight: Tensor) -> State:
        return {"momentum": torch.zeros_like(weight)}

    def __call__(self, weight: Tensor, gradient: Tensor, state: State, pace: Pace) -> tuple[Tensor, State]:
        momentum = state["momentum"].lerp(gradient, 1 - self.momentum)
        step = orthogonal(gradient.lerp(momentum, self.momentum).to(self.dtype)).to(weight.dtype)
        size = 0.2 * math.sqrt(max(weight.shape[-2:]))
        return (weight * (1 - pace.rate * pace.decay)).sub_(step, alpha=pace.rate * size), {"momentum": momentum}


def orthogonal(matrices: Tensor) -> Tensor:
    """(k, A, B) → U Vᵀ of each matrix's U S Vᵀ, roughly: five Newton–Schulz steps bring every singular value to between
    0.7 and 1.2, with the coefficients of Jordan et al., whose slope at zero is the largest."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.mT if tall else matrices  # (k, short, long)
    x = x / torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(5):
        gram = x @ x.mT  # (k, short, short)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _root_mean_square(stack: Tensor) -> Tensor:
    """(k, …) → one value for each of the k, with as many dimensions as the stack."""
    return stack.square().mean(dim=tuple(range(1, stack.dim())), keepdim=True).sqrt_()
