"""What a user adds to a training in Python: a class with the moments it wants to hear of, and no change of the loop."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganeum.config import Config
from ganeum.errors import GaneumError, RunError
from ganeum.record import RunDirectory

if TYPE_CHECKING:
    from torch import nn


class StopTraining(Exception):
    """Raised by a callback: the step is finished, a checkpoint kept, and the run ends with `ended_by: callback`.

    Args:
        why: what the reader is told, in a few words.
    """

    def __init__(self, why: str = "it asked to stop") -> None:
        super().__init__(why)


@dataclass(frozen=True)
class Training:
    """What a callback sees of a training that begins.

    Attributes:
        run: the run directory, with every path in it.
        config: every key resolved.
        plan: what plan.json holds.
        model: the model that is trained, to look at.
        step: updates completed before: 0, or those of the checkpoint that it goes on from.
        max_iters: updates in all.
        elapsed_s: seconds of training before.
    """

    run: RunDirectory
    config: Config
    plan: Mapping[str, Any]
    model: nn.Module
    step: int
    max_iters: int
    elapsed_s: float


class Callback:
    """The moments of a training; none of them does anything until it is overridden.

    What is raised in one ends the run: `StopTraining` as said there, anything else with an error that names the
    callback, after a checkpoint, so that the same command goes on from that step.

    >>> class StopAt(Callback):
    ...     '''Ends the training once the validation loss is as low as wanted.'''
    ...
    ...     def __init__(self, val_loss):
    ...         self.val_loss = val_loss
    ...
    ...     def on_evaluation(self, step, metrics):
    ...         if metrics["val_loss"] <= self.val_loss:
    ...             raise StopTraining(f"validation loss {self.val_loss} is reached")
    """

    def on_start(self, training: Training) -> None:
        """Before the first step of this process."""

    def on_step(self, step: int) -> None:
        """After every update. A GPU may still be at work on it: nothing waits for it, and nothing here should."""

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """On a logged step: the line of metrics.jsonl, without what is null in it."""

    def on_evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """After an evaluation: val_loss in nats per token, and val_bpb where that is known; before `on_log`."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint is whole, on the disk, at `path`."""

    def on_sample(self, step: int, path: Path) -> None:
        """Text was generated, into the file at `path`."""

    def on_end(self, summary: dict[str, Any] | None) -> None:
        """The training is over. What is put into `summary` is written to summary.json; it is None where the run was
        interrupted or failed."""


class Callbacks:
    """Tells them all, in their order; what they raise waits for the end of the step.

    The errors of our own (a full disk under TensorBoard's file, say) are raised at once, in their own words.
    """

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._all = list(callbacks)
        self._started: list[Callback] = []
        self.failed: RunError | None = None
        self.stopped: str | None = None  # which callback asked for the end, and why

    def start(self, training: Training) -> None:
        for callback in self._all:
            self._started.append(callback)
            self._tell(callback, "on_start", training)

    def tell(self, moment: str, *arguments: object) -> None:
        for callback in self._all:
            self._tell(callback, moment, *arguments)

    def end(self, summary: dict[str, Any]) -> None:
        """Raises what one of them raises, once all have been told."""
        for callback in self._started:
            self._tell(callback, "on_end", summary)
            self.failed = self.failed or _unwritable(callback, summary)
        if self.failed is not None:
            raise self.failed

    def abandon(self) -> None:
        """The run was interrupted or failed, and that is what its reader must see, whatever they raise now."""
        for callback in self._started:
            with suppress(Exception):
                callback.on_end(None)

    def _tell(self, callback: Callback, moment: str, *arguments: object) -> None:
        try:
            getattr(callback, moment)(*arguments)
        except StopTraining as stop:
            self.stopped = self.stopped or f"{type(callback).__name__}: {stop}"
        except Exception as error:
            if type(callback).__module__.startswith("ganeum."):
                raise
            self.failed = self.failed or _failure(callback, moment, error)


def _unwritable(callback: Callback, summary: dict[str, Any]) -> RunError | None:
    try:
        json.dumps(summary)
    except (TypeError, ValueError) as error:
        return RunError(
            f"the callback {type(callback).__name__} put into the summary what summary.json cannot hold",
            where="on_end",
            why=str(error),
            suggestion="numbers, text, lists and dictionaries; then the same command again",
        )
    return None


def _failure(callback: Callback, moment: str, error: Exception) -> RunError:
    place = traceback.extract_tb(error.__traceback__)[:2][-1]  # our call of it, and its own line where it got there
    what = error.what if isinstance(error, GaneumError) else f"{type(error).__name__}: {error}"
    failure = RunError(
        f"the callback {type(callback).__name__} failed in {moment}: {what}",
        where=f"{place.filename}, line {place.lineno}",
        suggestion="mend it and give the same command again: it goes on from the newest checkpoint",
    )
    failure.__cause__ = error
    return failure
