"""A closure that computes again what its step has computed is seen, and taken away; others are left."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_training import Sound, apart, loss_of
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch import Tensor

from ganeum.doctor.measured import acts, closures, facts, remedies
from ganeum.doctor.measured.training import Training

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")


class Sharp(torch.optim.SGD):
    """Foret et al. 2020: the gradient that counts is the one a small way up, which the closure computes."""

    def step(self, closure: Any = None) -> Any:
        held = [p for group in self.param_groups for p in group["params"]]
        moves = [1e-2 * p.grad for p in held]
        for p, move in zip(held, moves, strict=True):
            p.data.add_(move)
        self.zero_grad()
        with torch.enable_grad():
            loss = closure()
        for p, move in zip(held, moves, strict=True):
            p.data.sub_(move)
        super().step()
        return loss


def closing(optimizer: Callable[[Any], Any] | None = None, before: bool = True) -> Training:
    """Every step hands its optimizer a closure; ``before``: after it has called it itself."""
    training = (Sound() if optimizer is None else Sound(optimizer=optimizer)).build()
    model, updates = training.model, training.optimizer
    assert updates is not None

    def step(batch: dict[str, Tensor]) -> Tensor:
        def closure() -> Tensor:
            updates.zero_grad()
            loss = loss_of(model(batch["input_ids"], attention_mask=batch["attention_mask"]), batch["labels"])
            loss.backward()
            return loss

        if before:
            closure()
        return updates.step(closure)  # type: ignore

    training.step = step
    return training


HONEST: dict[str, Callable[[], Training]] = {
    "the closure alone": lambda: closing(before=False),
    "asked several times": lambda: closing(lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3)),
    "sharpness-aware": lambda: closing(lambda p: Sharp(p, lr=0.1)),
    "no closure": lambda: Sound().build(),
}


def test_a_closure_that_computes_again_has_its_remedy() -> None:
    """And its share of a step, which is about half."""

    def look() -> tuple[list[str | None], float]:
        found = facts.of(closing())
        return [one.act for one in remedies.of_training(found)], found["closure_again_share"]

    chosen, share = apart(look)
    assert "closure_once" in chosen
    assert 0.05 < share < 0.95


@pytest.mark.parametrize("name", HONEST)
def test_one_that_has_to_be_asked_is_left(name: str) -> None:
    """Its gradients are not there yet."""

    def look() -> float:
        training = HONEST[name]()
        return closures.again_share(training, training.batches, lambda: None)

    assert apart(look) == 0.0


def test_without_it_the_same_is_learnt() -> None:
    """Bit for bit, with one forward pass in a step; two in the first."""

    def trained(change: Callable[[Training], Training]) -> tuple[list[Tensor], int]:
        training = change(closing())
        for batch in list(training.batches)[:4]:
            training.step(batch)
        return [p.detach() for p in training.model.parameters()], training.model.blocks[0].calls  # type: ignore

    as_it_is, twice = apart(lambda: trained(lambda training: training))
    without, once = apart(lambda: trained(acts.closure_once))
    assert (twice, once) == (8, 5)
    assert all(map(torch.equal, as_it_is, without))
