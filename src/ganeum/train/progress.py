"""How far a run is: everything the loop remembers between steps, in a form that a checkpoint can hold."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Progress:
    """Counters and sums.

    Attributes:
        step: updates completed.
        tokens_seen: tokens trained on, each repetition counted.
        elapsed_s: seconds of training that are kept: what a killed process did after its last checkpoint is not in it.
        best_val_loss, best_val_bpb, best_step: the lowest validation loss so far and when it was.
        val_loss, val_bpb: the latest evaluation.
        evaluations_without_gain: for `patience`; with a new length it begins again.
        max_iters: the length that it was counted under; 0 in older checkpoints.
        epoch_loss_sum, epoch_steps: of the epoch that is under way (`order: epochs`).
        epoch_started_s: its start, on the clock of `elapsed_s`.
        past_epochs_loss_sum: of the epochs before it.
        out_of_memory: each time that memory ran out: the step under way, the key that was lowered, its value before and
            after, and what was said.
    """

    step: int = 0
    tokens_seen: int = 0
    elapsed_s: float = 0.0
    best_val_loss: float = math.inf
    best_val_bpb: float | None = None
    best_step: int | None = None
    val_loss: float | None = None
    val_bpb: float | None = None
    evaluations_without_gain: int = 0
    max_iters: int = 0
    epoch_loss_sum: float = 0.0
    epoch_steps: int = 0
    epoch_started_s: float = 0.0
    past_epochs_loss_sum: float = 0.0
    out_of_memory: list[dict[str, Any]] = field(default_factory=list)

    def go_to(self, max_iters: int) -> None:
        """Sets the length; a raised one gives a run that was out of patience new patience."""
        if max_iters != self.max_iters:
            self.max_iters, self.evaluations_without_gain = max_iters, 0

    def size(self, key: str, configured: T) -> T:
        """`train.micro_batch_size` or its like as it is by now: as configured, or lower since memory ran out."""
        return next((event["after"] for event in reversed(self.out_of_memory) if event["key"] == key), configured)

    def state(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, state: dict[str, Any]) -> Progress:
        return cls(**state)
