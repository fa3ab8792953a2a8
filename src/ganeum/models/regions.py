"""Compiling a model of transformers block by block: what lies around the blocks (masks, caches, the head that is set
aside) is Python that a compiler need not follow, and blocks of one shape share one graph.

Sizes are unknown to the graphs, so that rows of any length and number go through the same ones: a stack of N blocks has
two, one for its first block where that is unlike the others. Which graph is taken depends on no step before, so a run
that is resumed computes the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

GRAPHS = 64  # of one function: first and other blocks, training and evaluation, a single row or token


class Regions:
    """The blocks of a model, compiled; ``in_place()`` is the time in which they run so."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
        self.compiled: list[tuple[nn.Module, Callable[..., Any]]] = [
            (block, torch.compile(block.forward, dynamic=True)) for block in blocks
        ]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        before = [vars(block).get("forward") for block, _ in self.compiled]
        for block, compiled in self.compiled:
            block.forward = compiled
        try:
            yield
        finally:
            for (block, _), own in zip(self.compiled, before, strict=True):
                if own is None:
                    del block.forward  # the class's own is there again
                else:
                    block.forward = own
