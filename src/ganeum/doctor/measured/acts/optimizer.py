"""The optimizer: fused, over lists, letting gradients go, and only of weights that somebody updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ganeum.doctor.measured.acts.applicable import NotApplicable
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import updaters
from ganeum.doctor.measured.watch import replace as put_in

HAVE_FUSED = (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD, torch.optim.Adagrad)
PROOF_STEPS = 3


def fused(training: Training) -> Training:
    """torch's fused implementation with the same hyper-parameters; in place of an optimizer that somebody wrote, after
    both moved the same weights alike."""
    optimizer = _one(training)
    if type(optimizer) in HAVE_FUSED:
        if all(group.get("fused") for group in optimizer.param_groups):
            raise NotApplicable("it is fused already")
        for group in optimizer.param_groups:
            if group.get("differentiable") or any(not p.is_floating_point() for p in group["params"]):
                raise NotApplicable("torch has no fused form of it for these weights")
            group["fused"], group["foreach"] = True, False
        optimizer.defaults["fused"], optimizer.defaults["foreach"] = True, False
        optimizer._step_supports_amp_scaling = True  # type: ignore[attr-defined]
        _steps_on_their_device(optimizer)
        return training
    for kind in (torch.optim.AdamW, torch.optim.Adam, torch.optim.SGD):
        if (other := _instead(optimizer, kind)) is not None:
            vars(optimizer)["step"] = other.step
            return training
    raise NotApplicable(f"{type(optimizer).__name__} moves weights as none of torch's fused optimizers does")


def foreach(training: Training) -> Training:
    """The implementation over lists of tensors."""
    optimizer = _one(training)
    if type(optimizer) not in HAVE_FUSED or any(
        group.get("foreach") or group.get("fused") for group in optimizer.param_groups
    ):
        raise NotApplicable("it is not one of torch's, or works so already")
    for group in optimizer.param_groups:
        group["foreach"] = True
    return training


def set_to_none(training: Training) -> Training:
    """Gradients are let go, not filled with zeros."""

    def letting_go(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(self: Any, set_to_none: bool = True) -> Any:
            return function(self, set_to_none=True)

        return call

    put_in("torch.optim.optimizer:Optimizer.zero_grad", letting_go)
    put_in("torch.nn.modules.module:Module.zero_grad", letting_go)
    return training


def only_learnt(training: Training) -> Training:
    """No gradient for weights that no optimizer updates."""
    spare = not_updated(training)
    if not spare:
        raise NotApplicable("every weight with a gradient is updated")
    for parameter in spare:
        parameter.requires_grad_(False)
        parameter.grad = None
    return training


def not_updated(training: Training) -> list[Tensor]:
    """Weights that get a gradient and are in no optimizer; none where no optimizer is known."""
    optimizers = [one for one in updaters(training) if isinstance(one, torch.optim.Optimizer)]
    held = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    return [p for p in training.model.parameters() if p.requires_grad and id(p) not in held] if held else []


def _one(training: Training) -> torch.optim.Optimizer:
    found = [one for one in updaters(training) if isinstance(one, torch.optim.Optimizer)]
    if getattr(training, "taking", None) is not None:
        raise NotApplicable("a run of ours has its optimizer by a key")
    if len(found) != 1:
        raise NotApplicable("there is not one optimizer" if found else "no optimizer of torch's form is known")
    return found[0]


def _steps_on_their_device(optimizer: torch.optim.Optimizer) -> None:
    """A fused step counts on the device; one that began otherwise counts on the CPU."""
    for parameter, state in optimizer.state.items():
        if isinstance(parameter, Tensor) and "step" in state:
            state["step"] = torch.as_tensor(state["step"], dtype=torch.float32, device=parameter.device)


def _instead(optimizer: torch.optim.Optimizer, kind: Any) -> torch.optim.Optimizer | None:
    """A fused one of torch's over the same groups, if it moves copies of some weights as the other does."""
    if optimizer.state:
        return None
    try:
        theirs, ours = _few(optimizer), _few(optimizer)
        groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        one: Any = type(optimizer)(
            [{**g, "params": p} for g, p in zip(groups, theirs, strict=True)], **_given(optimizer)
        )
        other = _made(kind, groups, ours)
        pairs = list(zip(chain(*theirs), chain(*ours), strict=True))
        draw = torch.Generator().manual_seed(0)
        for _ in range(PROOF_STEPS):
            for left, right in pairs:
                left.grad = torch.randn(left.shape, generator=draw).to(left)
                right.grad = left.grad.clone()
            one.step()
            other.step()
        if not all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs):
            return None
    except Exception:  # whatever somebody's class does with arguments that it did not expect
        return None
    found = _made(kind, groups, [list(group["params"]) for group in optimizer.param_groups])
    for mine, group in zip(found.param_groups, optimizer.param_groups, strict=True):
        for key, value in mine.items():
            group.setdefault(key, value)
        group["fused"], group["foreach"] = True, False
    found.param_groups = optimizer.param_groups  # schedules write there
    return found


def _few(optimizer: torch.optim.Optimizer) -> list[list[Any]]:
    """Small weights in place of each group's."""
    draw = torch.Generator().manual_seed(1)
    return [
        [
            torch.nn.Parameter(torch.randn([min(n, 7) for n in p.shape], generator=draw).to(p.device, p.dtype))
            for p in group["params"][:2]
        ]
        for group in optimizer.param_groups
    ]


def _given(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What its class is likely to take."""
    import inspect

    takes = inspect.signature(type(optimizer).__init__).parameters
    return {key: value for key, value in optimizer.defaults.items() if key in takes}


def _made(kind: Any, groups: list[dict[str, Any]], parameters: list[list[Any]]) -> torch.optim.Optimizer:
    import inspect

    takes = inspect.signature(kind.__init__).parameters
    first = {key: value for key, value in groups[0].items() if key in takes and key not in ("fused", "foreach")}
    rows = [
        {**{k: v for k, v in group.items() if k in takes and k not in ("fused", "foreach")}, "params": params}
        for group, params in zip(groups, parameters, strict=True)
    ]
    made: torch.optim.Optimizer = kind(rows, **first, fused=True)
    return made
