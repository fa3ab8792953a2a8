"""An optimizer that a framework has put something around is the one inside."""

from __future__ import annotations

from typing import Any

import torch
from honest import Plain, adamw, windows
from torch import Tensor

from ganeum.doctor.measured.parts import Parts
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import updaters


class Around(torch.optim.Optimizer):
    """As Accelerate does it: of an optimizer's class, and never initialised as one."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.optimizer = inner

    param_groups: Any = property(lambda self: self.optimizer.param_groups)

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


def test_what_is_inside_is_watched_and_changed() -> None:
    """Its time is found, and it is the one that remedies are done to."""
    model = Plain()
    inner = adamw(model)
    outer = Around(inner)

    def step(batch: tuple[Tensor, Tensor]) -> None:
        model(*batch)[1].backward()
        outer.step()
        outer.zero_grad()

    batches = windows(1)
    training = Training(model, batches, step, outer)
    assert updaters(training) == [inner]
    with Parts(training, lambda: None) as parts:
        step(batches[0])
    assert parts.of(1.0)["optimizer"] > 0
    assert updaters(Training(model, batches, step)) == [inner]
