"""A remedy: one cause taken away from a training, so that what it costs can be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Remedy:
    """One cause taken away.

    Attributes:
        name: in the waterfall, one to four words: ``bf16``, ``batches held in memory``.
        cause: its name in the catalogue.
        change: what the user should change.
        keys: of a config of ours: what is changed, by dotted key; ``--apply`` writes these.
        act: the name of a function of :mod:`ganeum.doctor.measured.acts`, from a training to a training, called before
            the first step.
        environment: variables set, or with None removed, before torch is loaded.
        bound: it shows only how much there is to gain at most, and cannot be applied as it is (one batch kept).
        group: of the remedies of one group only the best is taken: precisions, micro-batches.
        same_learning: False where it changes what is learnt; it is told, and applied only by the user.
        same_rows: where it changes what is learnt: only which rows learn together; what it gains is a warning then.
        promise: how much is expected of it, as a ratio of speeds; those that promise most are tried first.
    """

    name: str
    cause: str
    change: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    act: str | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)
    bound: bool = False
    group: str = ""
    same_learning: bool = True
    same_rows: bool = False
    promise: float = 1.0
