"""Updates that a number format swallows: weights in 16 bits, whose neighbours lie further apart than an update goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ganeum.doctor.finding import Finding

HALF = (torch.bfloat16, torch.float16)
LOOKED_AT = 65_536  # numbers of each parameter
LOST = 0.5  # of the single changes, from here on told
ENOUGH = 3  # updates


class Rounding:
    """Counts, update by update, numbers in 16 bits that were to change and did not.

    Only of torch's own optimizers: others may round at random, or carry on what an update was too small for. And only
    at the full learning rate: what a warm-up begins with is small on purpose.
    """

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        self.updates = self.due = self.moved = 0
        self._mine = {id(p) for p in parameters.values() if p.dtype in HALF}
        self._pending: list[tuple[nn.Parameter, Tensor, Tensor]] = []

    @torch.no_grad()
    def before(self, optimizer: torch.optim.Optimizer) -> None:
        """An update is to come."""
        self._pending = []
        if not self._mine or not type(optimizer).__module__.startswith("torch.optim"):
            return
        default = optimizer.defaults.get("lr")
        for group in optimizer.param_groups:
            full = max(float(one or 0.0) for one in (group.get("initial_lr"), group.get("max_lr"), default))
            if not 0 < rate_of(group) >= full:
                continue
            for p in group["params"]:
                if id(p) in self._mine and p.grad is not None and not p.grad.is_sparse:
                    due = p.grad.flatten()[:LOOKED_AT] != 0
                    self._pending.append((p, p.flatten()[:LOOKED_AT].clone(), due))

    @torch.no_grad()
    def after(self) -> None:
        """It is done."""
        self.updates += bool(self._pending)
        for p, was, due in self._pending:
            self.due += int(due.sum())
            self.moved += int(((p.flatten()[:LOOKED_AT] != was) & due).sum())
        self._pending = []

    def look(self) -> Iterator[Finding]:
        """What came of it."""
        lost = self.due - self.moved
        if self.updates < ENOUGH or not lost > LOST * self.due:
            return
        yield Finding(
            cause="pure_half",
            title=f"{lost / self.due:.0%} of what updates were to change is lost in rounding: weights have 16 bits",
            evidence=(
                f"{lost:,} of {self.due:,} numbers that have a gradient were the same behind an update, in "
                f"{self.updates} updates",
                "numbers in bf16 lie 1/256 to 1/128 of their size apart, in fp16 1/2048 to 1/1024: an update of less "
                "than half of that changes nothing, however often it comes",
            ),
            change="weights in fp32 and autocast to bf16; or an optimizer that keeps copies in fp32",
            sure="measured",
            size=lost / self.due,
            unit="share of the changes",
        )


def rate_of(group: Mapping[str, Any]) -> float:
    """The learning rate of some of an optimizer's parameters; 1 where it finds one itself (Adafactor says None)."""
    rate = group.get("lr")
    return 1.0 if rate is None else float(rate)
