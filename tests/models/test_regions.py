"""Adopted models compiled block by block: the same numbers, and few graphs for many shapes."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from tiny_models import PAIRS, made, pair_batch

from ganeum.config.schema import Train
from ganeum.data.batch import Batch
from ganeum.models import checkpointing
from ganeum.models.adopted import Adopted
from ganeum.step.optimizer_step import OptimizerStep

LENGTHS = [((5, 9, 3), (4, 3, 6)), ((7, 2), (8, 5)), ((11, 4, 6, 2), (3, 3, 2, 7)), ((12, 6, 7), (9, 2, 2))]


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """Those that torch.compile makes, which run as they are: compiling them takes a minute and changes none of this."""
    made: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> torch.fx.GraphModule:
        made.append(graph)
        return graph

    torch.compiler.reset()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    return made


def batches() -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    of = [[torch.randint(2, 60, (n,), generator=generator) for n in side] for both in LENGTHS for side in both]
    return [pair_batch(of[n], of[n + 1], 0) for n in range(0, len(of), 2)]


@pytest.mark.parametrize("mode", ["none", "whole"])
@pytest.mark.slow
def test_a_compiled_step_is_the_same_step(mode: checkpointing.Mode, graphs: list[torch.fx.GraphModule]) -> None:
    """Losses and norms over four shapes, and two graphs for each of two stacks however many shapes come."""
    model = made(PAIRS["t5"])
    steps = []
    for compiled in (False, True):
        network = Adopted(copy.deepcopy(model))
        checkpointing.apply(network.blocks, mode)
        own = [vars(block).get("forward") for block in network.blocks]
        steps.append(OptimizerStep(network, Train(learning_rate=0.01), "cpu", compiled=compiled))
    for n, batch in enumerate(batches()):
        plain, compiled = (step([batch], targets=batch.counted, step=n, learning_rate=0.01) for step in steps)
        torch.testing.assert_close(compiled.loss, plain.loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(compiled.grad_norm, plain.grad_norm, rtol=1e-4, atol=1e-6)
        if mode == "none":
            assert len(graphs) == 4
    assert graphs
    assert [vars(block).get("forward") for block in network.blocks] == own
