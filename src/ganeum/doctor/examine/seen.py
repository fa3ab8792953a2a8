"""What was seen of some steps of a training: what was embedded, compared, and updated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from ganeum.doctor.examine.rounded import Rounding

IGNORED = -100


@dataclass(eq=False)
class Embedded:
    """A table of ``rows`` rows was asked for ``ids``; ``place``: how many were asked before it in this forward pass."""

    ids: Tensor
    rows: int
    place: int


@dataclass(eq=False)
class Loss:
    """A comparison of N rows of V logits with their targets.

    Attributes:
        targets: (N,), ``IGNORED`` where nothing is compared.
        classes: V.
        nats: (N,) −ln p of each target; None where only their mean is known.
        mean: over those that are compared.
        spread: standard deviation of a row's logits, in the mean over some rows; None: not seen.
        weights: (N,) how much each counts in what went backward: of a mean over n of them 1/n. None: it did not.
        told: whether what is ignored was said to the loss, and is not left out by hand behind it.
        probabilities: whether rows that should be logits are probabilities, each of which adds up to 1.
    """

    targets: Tensor
    classes: int
    nats: Tensor | None
    mean: float
    spread: float | None = None
    weights: Tensor | None = None
    told: bool = True
    probabilities: bool = False


@dataclass(frozen=True, eq=False)
class Call:
    """A forward pass that can be run again."""

    model: nn.Module
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(eq=False)
class Pass:
    """From one backward pass to the next: one micro-batch.

    Attributes:
        in_training: whether the model was in training mode.
        norm: of all gradients behind it.
        kept: its update also had gradients that an update before had used already.
        dropped: gradients of the micro-batch before it had gone, and no update had used them.
        autocast: the backward pass ran under autocast.
        value: the number that went backward; None: it was not one.
        again: it is the same step's once more: an optimizer asked for it (LBFGS), weights were moved by hand (SAM), or
            the same ids came again after gradients were cleared.
    """

    embedded: list[Embedded] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    call: Call | None = None
    in_training: bool | None = None
    norm: float = 0.0
    kept: bool = False
    dropped: bool = False
    autocast: bool = False
    value: float | None = None
    again: bool = False


@dataclass(eq=False)
class Update:
    """A step of an optimizer.

    Attributes:
        passes: the micro-batches before it.
        norm: of the gradients before they were clipped.
        clip: what that is clipped to; None: it is not.
        held: learning rate and decay of each parameter that it holds, by identity.
        copies: shapes of those with a gradient that are none of the model's.
        scale: what the gradients were still multiplied by when they were clipped.
        early: clipping was asked for before there was a gradient, and not behind it.
    """

    passes: list[Pass]
    norm: float
    clip: float | None
    held: dict[int, tuple[float, float]]
    copies: tuple[tuple[int, ...], ...] = ()
    scale: float = 1.0
    early: bool = False


@dataclass(eq=False)
class Seen:
    """All of it.

    Attributes:
        gradients: parameter → ``none``, ``zero``, ``some`` or ``bad`` (not finite): the most of any update.
        called: names of modules that took part in a forward pass, in their order.
        changed: parameters that are not what they were.
        batches: those that were stepped on, and some more.
        scaled: whether a loss scale may have left out updates.
        dropped: the largest rate of dropout that was at work.
        beyond: ids that a table, or classes that the logits, do not have: (which, the id, how many there are).
        rounding: what 16 bits make of updates.
        error: what the step raised.
    """

    passes: list[Pass] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    gradients: dict[str, str] = field(default_factory=dict)
    called: dict[str, None] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    batches: list[Any] = field(default_factory=list)
    steps: int = 0
    scaled: bool = False
    dropped: float = 0.0
    beyond: list[tuple[str, int, int]] = field(default_factory=list)
    rounding: Rounding = field(default_factory=lambda: Rounding({}))
    error: Exception | None = None
