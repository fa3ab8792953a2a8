"""A stretch of a training, with the time that it took."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """A stretch of the training: ``seconds`` for so many ``steps``, if that is known; ``at``: its step, or epoch;
    ``off_s``: so far it may be off by the clock that it was read from."""

    at: int
    seconds: float
    steps: int | None = None
    tokens: int | None = None
    off_s: float = 0.0

    @property
    def pace(self) -> float:
        """Seconds of a step; of the whole stretch, where its steps are not known."""
        return self.seconds / (self.steps or 1)
