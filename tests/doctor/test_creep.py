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
        (lambda looks, _: looks, lambda n: 8, 1, STEPS * creep.FURTHER),  # it never ends
        (lambda looks, _: min(looks, 2 * STEPS), lambda n: 8, 0, STEPS * creep.FURTHER),
        (lambda _, shapes: shapes, lambda n: 8 + n, 0, STEPS * creep.FURTHER),
        (lambda _, shapes: shapes, lambda n: 400 - n * 7 % 400, 0, STEPS * creep.FURTHER),
        (lambda looks, shapes: looks + shapes, lambda n: 8 + n, 1, STEPS * creep.FURTHER),
        (lambda looks, _: 0, lambda n: 8, 0, STEPS),
    ],
    ids=["leak", "cache", "longer batches", "new shapes", "leak among new shapes", "honest"],
)
def test_only_what_goes_on_growing_is_an_alarm(
    held: Callable[[int, int], int],
    rows: Callable[[int], int],
    alarms: int,
    steps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A mebibyte with each step, as the system would count it: forever, until a cache is full, for each shape that was
    not there before, as a library keeps code for it."""
    looks: list[int] = []
    shapes: set[int] = set()
    one = training(rows)
    inner = one.step

    def step(batch: Tensor) -> Tensor:
        shapes.add(len(batch))
        return inner(batch)

    def counted(_: Held) -> int:
        looks.append(1)
        return (100 + held(len(looks), len(shapes))) * MIB

    one.step = step
    monkeypatch.setattr(Held, "bytes", counted)
    seen = creep.watch(one, steps=STEPS, seconds=20)
    assert len(seen["held"]) == steps
    assert [found.cause for found in observed.findings(seen)] == ["memory_growth"] * alarms


def test_batches_are_taken_again_in_their_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shuffled ones as well: each round has the batches of the first, and no others."""
    seen: list[int] = []
    one = training(lambda n: 8)
    inner = one.step
    loader = torch.utils.data.DataLoader(
        [torch.full((4,), float(n)) for n in range(400)],  # type: ignore[arg-type]
        shuffle=True,
        generator=torch.Generator().manual_seed(3),
    )

    def step(batch: Tensor) -> Tensor:
        seen.append(int(batch[0, 0]))
        return inner(batch)

    one.batches, one.step = loader, step
    monkeypatch.setattr(Held, "bytes", lambda _: (100 + len(seen)) * MIB)
    creep.watch(one, steps=STEPS, seconds=20)
    rounds = [seen[creep.WATCHED :][place : place + STEPS] for place in range(0, (1 + creep.FURTHER) * STEPS, STEPS)]
    assert rounds == [rounds[0]] * (1 + creep.FURTHER)
    assert len(set(rounds[0])) == STEPS


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
