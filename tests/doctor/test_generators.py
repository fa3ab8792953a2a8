"""Batches with random generators of their own come in the same order again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch

from ganeum.doctor.measured import generators


class Shuffled:
    """Numbers of four generators, kept in four places."""

    def __init__(self) -> None:
        self.draw = random.Random(1)
        self.torch = {"deep": [torch.Generator().manual_seed(1)]}
        numpy, old = np.random.default_rng(1), np.random.RandomState(1)
        self.numpy = lambda: numpy.random()
        self.old = partial(old.uniform, 0.0, 1.0)

    def __iter__(self) -> Iterator[list[float]]:
        for _ in range(3):
            own = torch.rand((), generator=self.torch["deep"][0]).item()
            yield [self.draw.random(), own, self.numpy(), self.old()]


def test_every_generator_that_batches_reach_is_set_back() -> None:
    """Two epochs differ; set back, the first comes again."""
    batches = Shuffled()
    back = generators.kept(batches)
    first, second = list(batches), list(batches)
    for one in back:
        one()
    assert all(a != b for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    assert list(batches) == first


def test_a_generator_beside_many_rows_is_found() -> None:
    """The nearest objects are looked at first; a long list does not hide what lies beside it."""
    rows = [[index] for index in range(50_000)]
    loader = {"rows": rows, "inner": {"draw": random.Random(2)}}
    (back,) = generators.kept(loader)
    value = loader["inner"]["draw"].random()  # type: ignore[index]
    back()
    assert loader["inner"]["draw"].random() == value  # type: ignore[index]
