"""Somebody's training as the doctor takes it: a model, batches and one update; and some steps of it, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ganeum.config import Config

if TYPE_CHECKING:
    import torch
    from torch import nn

PHASES = ("data", "forward", "backward", "optimizer", "other")


@dataclass
class Training:
    """A training that can be stepped: somebody's own, or one of ours.

    Attributes:
        model: what is trained; on its device.
        batches: iterated anew when it ends. A batch is whatever ``step`` takes.
        step: one whole update on one batch, from the forward pass to ``optimizer.step()`` and ``zero_grad()``; returns
            the loss, or None.
        optimizer: the one that ``step`` uses; without it nothing about it is tried.
        tokens: how many tokens of a batch carry loss, a number or a tensor () on any device; without it labels
            that are not −100, or all ids.
        tokenizer: that made the ids, if there is one.
        fresh: the weights were drawn, not trained, so that the first loss can be judged.
        validation: held-out batches, compared with those that are trained on; without it that nothing is held out is
            told.
        timed: as ``step``, but returns the seconds of ``forward``, ``backward`` and ``optimizer``, the device waited
            for at both ends of each; without it hooks measure them.

    >>> def build():  # in train_mine.py: ganeum doctor run --script train_mine.py:build
    ...     def step(batch):
    ...         loss = model(**batch).loss
    ...         loss.backward()
    ...         optimizer.step()
    ...         optimizer.zero_grad()
    ...         return loss
    ...     return Training(model, loader, step, optimizer)
    """

    model: nn.Module
    batches: Iterable[Any]
    step: Callable[[Any], Any]
    optimizer: torch.optim.Optimizer | None = None
    tokens: Callable[[Any], Any] | None = None
    tokenizer: Any = None
    fresh: bool = False
    validation: Iterable[Any] | None = None
    timed: Callable[[Any], Mapping[str, float]] | None = None


Build: TypeAlias = Callable[[], Training]
Subject: TypeAlias = "Config | str | Build"  # str: FILE.py:FUNCTION


@dataclass(frozen=True)
class Block:
    """Some steps in a row.

    Attributes:
        steps: how many.
        seconds: that they took together, the device waited for at the end.
        tokens: that carried loss in them.
        phases: seconds of ``data`` (waiting for batches), and where they were asked for of ``forward``, ``backward``,
            ``optimizer`` and ``other``.
        computed: seconds of cores that all its threads and children used; None where the system does not say.
        waited: seconds that its main thread stood ready and was not let onto a core; likewise.
        times: seconds of each step where they were asked for, without waiting for a core.
        counts: of each, its tokens.
        waits: of each, seconds that its batch was waited for.
        collections: of each, seconds in which Python looked for cycles by itself.
    """

    steps: int
    seconds: float
    tokens: int
    phases: Mapping[str, float] = field(default_factory=dict)
    computed: float | None = None
    waited: float | None = None
    times: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    waits: tuple[float, ...] = ()
    collections: tuple[float, ...] = ()

    @property
    def rate(self) -> float:
        """Tokens that carry loss per second."""
        return self.tokens / self.seconds

    @property
    def own(self) -> float | None:
        """Seconds without those that its main thread waited for a core; no fewer than all its threads computed, since
        it may have waited for one of them."""
        return None if self.waited is None else max(self.seconds - self.waited, self.computed or 0.0)


@dataclass(frozen=True)
class Named:
    """A function by its file, so that another process finds it."""

    file: Path
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"
