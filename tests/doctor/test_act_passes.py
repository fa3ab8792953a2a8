"""Forward passes that teach nothing: which of them are, and what is remembered where they are taken away."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from tiny_training import Sound, apart, losses
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch.nn import functional

from ganeum.doctor.measured import acts, facts
from ganeum.doctor.measured.acts.remembered import remembered

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")


@pytest.mark.parametrize(("learnt", "expected"), [(False, 1.0), (True, 0.0)])
def test_a_second_pass_on_the_same_inputs_counts_unless_it_is_learnt_from(learnt: bool, expected: float) -> None:
    """A loss that is computed once more to be looked at is an extra pass; a second one that is added is not."""

    def twice() -> float:
        training = Sound().build()

        def step(batch: Any) -> Any:
            losses = [
                functional.cross_entropy(training.model(batch["input_ids"]).flatten(0, 1), batch["labels"].flatten())
                for _ in range(2)
            ]
            (sum(losses) if learnt else losses[0]).backward()  # type: ignore[union-attr]
            training.optimizer.step()  # type: ignore[union-attr]
            training.optimizer.zero_grad()  # type: ignore[union-attr]

        training.step = step
        return float(facts.of(training)["extra_forwards"])

    assert apart(twice) == pytest.approx(expected)


@pytest.mark.parametrize("mean_over", ["halves", "whole"])
def test_a_pass_through_which_no_gradient_comes_back_is_found_and_taken_away(mean_over: str) -> None:
    """Two halves are learnt from, then a third pass on all rows, with its graph, is only looked at: it is gone, and the
    losses are the same; where all three are learnt from none is."""

    def trained() -> tuple[float, list[float], list[float], int]:
        def build() -> Any:
            training = Sound().build()

            def loss_of(batch: Any) -> Any:
                logits = training.model(batch["input_ids"])
                return functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())

            def step(batch: Any) -> Any:
                parts = [loss_of({name: rows[part::2] for name, rows in batch.items()}) for part in range(2)]
                whole = loss_of(batch)
                (sum(parts) / 2 + (whole if mean_over == "whole" else 0 * float(whole))).backward()
                training.optimizer.step()  # type: ignore[union-attr]
                training.optimizer.zero_grad()  # type: ignore[union-attr]
                return parts[0].detach()

            training.step = step
            return training

        found, before, after = build(), build(), build()
        extra = facts.of(found)["extra_forwards"]
        inner = after.model.forward
        after.model.forward = lambda *inputs, **named: entered.append(1) or inner(*inputs, **named)
        entered: list[int] = []
        changed = acts.no_extra_forwards(after)
        as_it_is, without = losses(before, 6), losses(changed, 6)
        return extra, as_it_is, without, len(entered)

    extra, as_it_is, without, entered = apart(trained)
    assert extra == (1.0 if mean_over == "halves" else 0.0)
    assert without == pytest.approx(as_it_is)
    assert entered == (2 * 3 + 1 * 3 + 3 * 2 if mean_over == "halves" else 18)  # two steps to learn from, one to keep


def test_what_follows_from_a_remembered_tensor_is_remembered() -> None:
    """Whatever the other tensors hold now; what is learnt through one of them is computed."""
    kept = remembered({"logits": torch.tensor([1.0, 2.0])})["logits"]
    assert float((kept * torch.tensor([1.0, 1.0])).sum()) == 3.0
    assert float((kept * torch.tensor([5.0, 5.0])).sum()) == 3.0
    assert float((kept * torch.tensor([5.0, 5.0, 5.0])[:, None]).sum()) == 45.0  # of another shape
    assert kept[:1].tolist() == [1.0]
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    total = (kept * weight).sum()
    total.backward()  # type: ignore[no-untyped-call]
    assert float(total.detach()) == 11.0
    assert weight.grad is not None
    assert weight.grad.tolist() == [1.0, 2.0]
