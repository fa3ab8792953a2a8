"""Weights in bf16 are right on average, and learn where nearest rounding stands still."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.config.schema import Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.models.gpt import GPT
from ganeum.step import rounding
from ganeum.step.optimizer_step import OptimizerStep


def test_the_mean_is_the_number() -> None:
    """100,000 roundings of each of six numbers: their mean is within five standard errors of it."""
    torch.manual_seed(0)
    for value in (1.0 + 2.0**-9, 1.001, -3.3, 1e-3, 7e8, -1e-30):
        rounded = rounding.stochastic(torch.full((100_000,), value)).double()
        gap = (rounded.max() - rounded.min()).item()
        assert gap > 0, "two neighbours are drawn"
        assert abs(rounded.mean().item() - torch.tensor(value).double().item()) < 5 * gap / 2 / 100_000**0.5


def test_only_the_two_neighbours_are_drawn() -> None:
    """1.001 lies between 1 and 1 + 2⁻⁷ = 1.0078125; both signs."""
    torch.manual_seed(0)
    assert set(rounding.stochastic(torch.full((1_000,), 1.001)).tolist()) == {1.0, 1.0078125}
    assert set(rounding.stochastic(torch.full((1_000,), -1.001)).tolist()) == {-1.0, -1.0078125}


def test_a_bf16_number_stays() -> None:
    """Every finite bf16 number, all 2^16 patterns of bits, is rounded to itself."""
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    every = every[every.isfinite()]
    assert torch.equal(rounding.stochastic(every.float()), every)


def train(weights: Any, optimizer: Any, rate: float = 3e-3) -> float:
    """The loss after sixty steps on one batch, everything else in bf16."""
    torch.manual_seed(0)
    model = GPT(Model(n_layer=2, n_head=2, n_embd=64, block_size=16, vocab_size=70))
    if weights == "bf16":
        rounding.to_bf16(model)
    step = OptimizerStep(model, Train(batch_size=8, weights=weights, optimizer=optimizer), "cpu", precision="bf16")
    tokens = torch.randint(70, (8, 17), generator=torch.Generator().manual_seed(0))
    pair = WindowBatch(tokens[:, :-1], tokens[:, 1:])
    for n in range(60):
        loss = step.on(pair, step=n, learning_rate=rate).loss.item()
    return loss


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_learns_what_fp32_weights_learn(optimizer: Any) -> None:
    """From ln 70 = 4.25 to below 1: as far as with fp32 weights, within 5 % of the way."""
    plain, rounded = train("fp32", optimizer), train("bf16", optimizer)
    assert plain < 1.0
    assert abs(rounded - plain) < 0.05 * (4.25 - plain)


def test_rounded_to_nearest_it_would_stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a rate of 5e-6, a four-thousandth of the weights' size, sixty steps gain as much as with fp32 weights, within
    5 %; rounded to nearest, less than a fifth of that."""
    rate, first = 5e-6, train("fp32", "adamw", rate=1e-12)
    plain, rounded = first - train("fp32", "adamw", rate), first - train("bf16", "adamw", rate)

    def nearest(x: Tensor) -> Tensor:
        return x.to(torch.bfloat16)

    monkeypatch.setattr(rounding, "stochastic", nearest)
    stuck = first - train("bf16", "adamw", rate)
    assert rounded == pytest.approx(plain, rel=0.05)
    assert stuck < plain / 5
