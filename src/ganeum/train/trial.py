"""The run's first steps on a throw-away model, before step 0: do they fit, and how long do they take?

The run's own model is built afterwards, from its seed, so this changes no weight, random number or order of it, and
there is never room needed for two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.data.batch import Batch, Whole
from ganeum.models.kernels import mode_kept
from ganeum.train import out_of_memory
from ganeum.train.evaluate import ValidationSet
from ganeum.train.material import Material
from ganeum.train.out_of_memory import Full, Part
from ganeum.train.start import start

T = TypeVar("T")
BALLAST_MIB = 64  # held besides, so that what goes through leaves room for holes and for the run's own needs


class Trial:
    """Takes the run's first steps, at learning rate 0. ``part``: what it is at, for when memory runs out there."""

    def __init__(self, config: Config, material: Material) -> None:
        self.config, self.material = config, material
        self.micro_batch_size, self.eval_batch_size = sizes(config)
        self.validation: ValidationSet | None = None
        self.part: Part = "start"
        self._taken = 0

    def begin(self) -> Trial:
        """Builds the model → itself."""
        config = self.config
        self.step = start(config)
        self._ballast = [torch.empty(2**20, dtype=torch.uint8, device=self.step.device) for _ in range(BALLAST_MIB)]
        self.validation = self.material.validation(config)
        self._batches = self.material.batches(config)
        return self

    def update(self, whole: Whole | None = None) -> None:
        """The next step, waited for; on its own batch unless another is given."""
        self.part = "step"
        whole = whole or self._batches.whole(self._taken)
        self.step(self._micro_batches(whole), targets=whole.targets, step=self._taken, learning_rate=0.0).loss.item()
        self._taken += 1

    def evaluate(self, sequences: int) -> ValidationSet:
        """An evaluation on the first so many sequences → those; there must be a validation set."""
        assert self.validation is not None
        self.part = "evaluation"
        few = self.validation.first(sequences)
        few.evaluate(self.step, self.eval_batch_size)
        return few

    def _micro_batches(self, whole: Whole) -> Iterator[Batch]:
        yield from whole.micro_batches(self.micro_batch_size)
        self.part = "update"  # one more is asked for, so the last backward pass is over


def sizes(config: Config) -> tuple[int, int]:
    """Sequences at once in training and in evaluation, both resolved."""
    size, eval_size = config.train.micro_batch_size, config.train.eval_batch_size
    assert size != "auto", "resolved before"
    assert eval_size != "auto", "resolved before"
    return size, eval_size


@mode_kept()
def tried(config: Config, material: Material, work: Callable[[Trial], T]) -> T | Full:
    """What ``work`` makes of a trial that has begun; where memory runs out, :class:`Full` says in which part.

    Args:
        config: every key but lengths and intervals resolved.
    """
    result = _attempted(config, material, work)
    out_of_memory.release()  # only here nothing holds the model any more
    if torch.device(config.device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(config.device)
    return result


def _attempted(config: Config, material: Material, work: Callable[[Trial], T]) -> T | Full:
    trial = Trial(config, material)
    return out_of_memory.attempt(lambda: work(trial.begin()), lambda: trial.part)


def fits(config: Config, material: Material) -> Full | None:
    """Whether the fullest moments fit: None, or where they do not.

    Two updates of at most two micro-batches, so that the last one's forward pass finds the gradients of another and
    the optimizer's state in place, on the longest batch there is; then an evaluation at its own size. It runs
    uncompiled, which takes more memory rather than less.
    """
    size, _ = sizes(config)
    longest = material.longest(config).first(2 * size)

    def fullest(trial: Trial) -> None:
        trial.update(longest)
        trial.update(longest)
        if trial.validation is not None:
            trial.evaluate(trial.eval_batch_size)

    return tried(change(config, {"train.compile": False}), material, fullest)
