"""Where the seconds of somebody's step go: data, forward, backward, optimizer, other; found by hooks, and by no others
than those that this block of steps needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import nn

from ganeum.doctor.measured.training import PHASES, Training
from ganeum.doctor.measured.untouched import bare


class Parts:
    """Sums the seconds of each part while its ``with`` block is open.

    Args:
        training: whose model and optimizer are watched.
        wait: waits for the device, at both ends of each part; without that only the queueing would be measured.
    """

    def __init__(self, training: Training, wait: Callable[[], None]) -> None:
        self._training, self._wait = training, wait
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._open: list[str] = []  # parts within parts: only the outermost counts
        self._since = 0.0
        self._hooks = ExitStack()

    def __enter__(self) -> Parts:
        hooks, model, optimizer = self._hooks, self._training.model, bare(self._training.optimizer)
        if self._training.timed is not None:
            return self
        for module in entrances(model):
            hooks.callback(module.register_forward_pre_hook(lambda *_: self._begin("forward")).remove)
            hooks.callback(module.register_forward_hook(lambda *_: self._end("forward"), always_call=True).remove)
        if optimizer is not None:
            hooks.callback(optimizer.register_step_pre_hook(lambda *_: self._begin("optimizer")).remove)
            hooks.callback(optimizer.register_step_post_hook(lambda *_: self._end("optimizer")).remove)
        for owner in (torch.Tensor, torch.autograd):
            hooks.enter_context(patch.object(owner, "backward", self._around(owner.backward, "backward")))
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def add(self, seconds: Mapping[str, float]) -> None:
        """What the training timed by itself."""
        for name, value in seconds.items():
            if name in self._seconds:
                self._seconds[name] += value

    def of(self, seconds: float) -> dict[str, float]:
        """All of them; ``other`` is what is left of ``seconds``."""
        known = {name: value for name, value in self._seconds.items() if name != "other"}
        return {**known, "other": max(0.0, seconds - sum(known.values()))}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Everything inside counts as ``name``."""
        self._begin(name)
        try:
            yield
        finally:
            self._end(name)

    def _begin(self, name: str) -> None:
        if not self._open:
            self._wait()
            self._since = time.perf_counter()
        self._open.append(name)

    def _end(self, name: str) -> None:
        if not self._open:  # a hook's other half had not run
            return
        self._open.pop()
        if not self._open:
            self._wait()
            self._seconds[name] += time.perf_counter() - self._since

    def _around(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def measured(*inputs: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*inputs, **options)

        return measured


def entrances(model: nn.Module) -> Iterator[nn.Module]:
    """Where a step may enter a model: itself, and its parts, those of lists and other containers one by one."""
    yield model
    for part in model.children():
        if isinstance(part, (nn.ModuleList, nn.ModuleDict)):
            yield from entrances(part)
        else:
            yield part
