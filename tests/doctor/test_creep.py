"""Memory that seems to grow: a cache that fills, batches that become longer, and what never ends."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ganeum.doctor.measured import creep, inside
from ganeum.doctor.measured.training import Training
from ganeum.doctor.memory import observed
from ganeum.doctor.memory.holder import Held

MIB = 2**20
STEPS = 40


def training(rows: Callable[[int], int]) -> Training:
    """Batch n has so many rows."""
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def step(batch: Tensor) -> Tensor:
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return Training(model, [torch.ones(rows(n), 4) for n in range(400)], step, optimizer)


@pytest.mark.parametrize(
    ("held", "rows", "alarms", "steps"),
    [
        (lambda n: n, lambda n: 8, 1, STEPS * creep.FURTHER),  # it never ends
        (lambda n: min(n, 2 * STEPS), lambda n: 8, 0, STEPS * creep.FURTHER),
        (lambda n: n, lambda n: 8 + n, 0, 0),
        (lambda n: 0, lambda n: 8, 0, STEPS),
    ],
    ids=["leak", "cache", "longer batches", "honest"],
)
def test_only_what_goes_on_growing_is_an_alarm(
    held: Callable[[int], int], rows: Callable[[int], int], alarms: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mebibyte with each step, as the system would count it: forever, until a cache is full, with longer batches."""
    looks: list[int] = []

    def counted(_: Held) -> int:
        looks.append(1)
        return (100 + held(len(looks))) * MIB

    monkeypatch.setattr(Held, "bytes", counted)
    seen = creep.watch(training(rows), steps=STEPS, seconds=20)
    assert len(seen["held"]) == steps
    assert [one.cause for one in observed.findings(seen)] == ["memory_growth"] * alarms


def test_only_what_python_does_by_itself_is_a_pause() -> None:
    """Cycles that are looked for since there are many objects; not a gc.collect() of the training's own."""
    gc.collect()
    with inside._collecting() as asked:
        gc.collect()
    with inside._collecting() as itself:
        kept = [[n] for n in range(3 * gc.get_threshold()[0])]
    assert len(kept) > 0
    assert asked == [0.0]
    assert sum(itself) > 0
