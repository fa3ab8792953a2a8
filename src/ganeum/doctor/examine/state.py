"""A training's state, put back after it was stepped: weights, optimizers, random numbers, what its step refers to."""

from __future__ import annotations

import copy
import functools
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Training

PLAIN = (int, float, complex, str, bytes, bool, type(None))
MANY = 10_000  # entries of a list or dictionary: a longer one is data, and no state
DEEP = 4  # functions that a step calls, and those that they call


@contextmanager
def kept(training: Training) -> Iterator[None]:
    """Inside, the training may be stepped; afterwards it is as before, also where that raises."""
    optimizers = [training.optimizer] if isinstance(training.optimizer, torch.optim.Optimizer) else []
    undo = [_random(), _module(training.model)]
    others = [one for one in _reached(training.step) if one is not training.model]
    optimizers += [one for one in others if isinstance(one, torch.optim.Optimizer) and one is not training.optimizer]
    undo += [_optimizer(one) for one in optimizers]
    for one in others:
        if isinstance(one, nn.Module):
            undo.append(_module(one))
        elif not isinstance(one, torch.optim.Optimizer):
            undo.append(_holder(one))
    undo += [_plain(training.step), _generators(training.batches)]
    try:
        yield
    finally:
        for put_back in undo:
            put_back()


def taken(training: Training, count: int) -> Iterator[Any]:
    """The first batches. Those of an iterator, which knows no beginning, are put in front of it again."""
    iterator = iter(training.batches)
    if iterator is not training.batches:
        yield from itertools.islice(iterator, count)
        return
    had = list(itertools.islice(iterator, count))
    training.batches = itertools.chain(had, iterator)
    yield from had


def _random() -> Callable[[], None]:
    state, python, numpy = torch.get_rng_state(), random.getstate(), np.random.get_state()
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]

    def put_back() -> None:
        torch.set_rng_state(state)
        random.setstate(python)
        np.random.set_state(numpy)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)

    return put_back


def _module(module: nn.Module) -> Callable[[], None]:
    tensors = {name: t for name, t in (*module.named_parameters(), *module.named_buffers()) if t.device.type != "meta"}
    values = {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}
    gradients = {p: None if p.grad is None else p.grad.detach().clone() for p in module.parameters()}
    needed = {p: p.requires_grad for p in module.parameters()}
    modes = {one: one.training for one in module.modules()}

    def put_back() -> None:
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(values[name])
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
            parameter.requires_grad_(needed[parameter])
        for one, mode in modes.items():
            one.training = mode

    return put_back


def _optimizer(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    state = {p: {key: _copied(value) for key, value in of.items()} for p, of in optimizer.state.items()}
    groups = [
        {key: _copied(value) for key, value in group.items() if key != "params"} for group in optimizer.param_groups
    ]

    def put_back() -> None:
        for parameter in list(optimizer.state):
            if parameter not in state:
                del optimizer.state[parameter]
        for parameter, of in state.items():
            mine = optimizer.state[parameter]
            for key, value in of.items():
                if isinstance(value, Tensor) and isinstance(mine.get(key), Tensor) and mine[key].shape == value.shape:
                    with torch.no_grad():
                        mine[key].copy_(value)
                else:
                    mine[key] = value
        for group, values in zip(optimizer.param_groups, groups, strict=False):
            group.update(values)

    return put_back


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else copy.copy(value)


def _holder(holder: Any) -> Callable[[], None]:
    """Of a scheduler, a loss scaler, an optimizer step of ours: by its own ``state_dict``."""
    state = copy.deepcopy(holder.state_dict())
    return lambda: holder.load_state_dict(state)


def _generators(batches: Any) -> Callable[[], None]:
    """What a loader draws its order with."""
    places = [batches, getattr(batches, "sampler", None), getattr(batches, "batch_sampler", None)]
    found = {
        g: g.get_state() for place in places if isinstance(g := getattr(place, "generator", None), torch.Generator)
    }

    def put_back() -> None:
        for generator, state in found.items():
            generator.set_state(state)

    return put_back


def _plain(step: Callable[..., Any]) -> Callable[[], None]:
    """Counters and lists that the step keeps for itself."""
    undo: list[Callable[[], None]] = []
    for function, owner in functions_of(step):
        for cell in function.__closure__ or ():
            value = content_of(cell)
            if type(value) in PLAIN:
                undo.append(functools.partial(setattr, cell, "cell_contents", value))
            elif isinstance(value, Tensor) and not value.requires_grad:
                undo.append(_tensor(value))
            elif type(value) in (list, dict) and len(value) < MANY:
                undo.append(_container(value))
        if owner is not None and not isinstance(owner, (nn.Module, torch.optim.Optimizer)):
            for name, value in list(getattr(owner, "__dict__", {}).items()):
                if type(value) in PLAIN:
                    undo.append(functools.partial(setattr, owner, name, value))

    def put_back() -> None:
        for one in undo:
            one()

    return put_back


def _tensor(tensor: Tensor) -> Callable[[], None]:
    value = tensor.clone()

    def put_back() -> None:
        tensor.copy_(value)

    return put_back


def _container(value: Any) -> Callable[[], None]:
    before = copy.copy(value)

    def put_back() -> None:
        value.clear()
        value.extend(before) if isinstance(value, list) else value.update(before)

    return put_back


def functions_of(step: Any, depth: int = DEEP, seen: set[int] | None = None) -> Iterator[tuple[Any, Any]]:
    """Functions that a step consists of, each with the object that it belongs to."""
    seen = set() if seen is None else seen
    while isinstance(step, functools.partial):
        step = step.func
    owner = getattr(step, "__self__", None)
    function = getattr(step, "__func__", step)
    if not hasattr(function, "__code__"):
        owner, function = step, vars(type(step)).get("__call__")  # an object that can be called
    if depth == 0 or not hasattr(function, "__code__") or id(function) in seen:
        return
    seen.add(id(function))
    yield function, owner
    for cell in function.__closure__ or ():
        value = content_of(cell)
        if callable(value) and not isinstance(value, (type, nn.Module)) and hasattr(value, "__code__"):
            yield from functions_of(value, depth - 1, seen)


def _reached(step: Any) -> list[Any]:
    """Whatever a step refers to that keeps a state of its own: in closures, in its object, among a script's globals."""
    found: dict[int, Any] = {}
    for function, owner in functions_of(step):
        values = [content_of(cell) for cell in function.__closure__ or ()]
        values += [function.__globals__.get(name) for name in function.__code__.co_names]
        values += [owner, *getattr(owner, "__dict__", {}).values()]
        for value in values:
            has = all(callable(getattr(value, name, None)) for name in ("state_dict", "load_state_dict"))
            if has and not isinstance(value, type):
                found.setdefault(id(value), value)
    return list(found.values())


def content_of(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None
