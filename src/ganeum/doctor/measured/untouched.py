"""A step that changes nothing: its loss and its gradient, to compare what somebody's training learns in two ways."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ganeum.doctor.measured.training import Training
from ganeum.train import randomness


@dataclass(frozen=True)
class Outcome:
    """``loss`` and ``norm`` of the gradient at the update; None where the step gave none."""

    loss: float | None
    norm: float | None

    def like(self, other: Outcome, tolerance: float = 1e-3) -> bool:
        """Whether both are the same within rounding; what one does not tell is not compared, but something must be."""
        pairs = [(self.loss, other.loss), (self.norm, other.norm)]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        return bool(known) and all(abs(a - b) <= tolerance * max(abs(a), abs(b), 1e-6) for a, b in known)


def entry(training: Training) -> tuple[Any, str]:
    """Where a step enters the model: an object, and the name of its function."""
    taking = getattr(training, "taking", None)
    return (training.model, "forward") if taking is None else (taking, "hidden")


def around_entry(training: Training, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[], None]:
    """Puts ``make(function)`` in its place → what takes it out again."""
    owner, name = entry(training)
    own, before = name in vars(owner), getattr(owner, name)
    setattr(owner, name, make(before))

    def undo() -> None:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)

    return undo


def updaters(training: Training) -> list[Any]:
    """What moves the weights: the training's optimizer, or those that hold weights of its model."""
    if (taking := getattr(training, "taking", None)) is not None:
        return [taking.optimizer]
    if training.optimizer is not None:
        return [bare(training.optimizer)]
    weights = {id(parameter) for parameter in training.model.parameters()}
    return [
        found
        for found in _living(torch.optim.Optimizer)
        if bare(found) is found
        and any(id(parameter) in weights for group in found.param_groups for parameter in group["params"])
    ]


def bare(optimizer: Any) -> Any:
    """What Accelerate or Fabric have put an optimizer of theirs around."""
    while isinstance(inner := getattr(optimizer, "optimizer", None), torch.optim.Optimizer):
        optimizer = inner
    return optimizer


@contextmanager
def without_update(training: Training, seen: list[float]) -> Iterator[None]:
    """Inside, a step updates no weight and no schedule; the gradient's norm at each update is noted in ``seen``.
    Gradients, buffers and random states are afterwards as they were."""
    model, optimizers = training.model, updaters(training)
    schedules = [one for one in _living(torch.optim.lr_scheduler.LRScheduler) if one.optimizer in optimizers]
    gradients = [(p, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    random, mode = randomness.state(), model.training

    def noted(*_inputs: Any, **_named: Any) -> None:
        found = [p.grad.detach() for p in model.parameters() if p.grad is not None]
        seen.append(torch.nn.utils.get_total_norm(found).item() if found else 0.0)

    for one in optimizers:
        vars(one)["step"] = noted
    for one in schedules:
        vars(one)["step"] = lambda *_inputs, **_named: None
    try:
        yield
    finally:
        for one in (*optimizers, *schedules):
            vars(one).pop("step", None)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for scaler in _living(torch.amp.GradScaler):
            scaler._per_optimizer_states.clear()
        model.train(mode)
        randomness.restore(random)


def outcome(training: Training, batch: Any) -> Outcome:
    """Of a step on a batch, which leaves everything as it was."""
    seen: list[float] = []
    with without_update(training, seen):
        loss = training.step(batch)
    value = loss.detach().float().mean().item() if isinstance(loss, Tensor) else loss
    return Outcome(float(value) if isinstance(value, (int, float)) else None, seen[-1] if seen else None)


def _living(kind: type) -> list[Any]:
    """Every object of a class, or of one made from it."""
    return [found for found in gc.get_objects() if issubclass(type(found), kind)]
