"""Steps, evaluations and samples at sizes that fit: where memory runs out in the middle of a run, it goes on at less.

The batch that the model learns with stays, and so do the number of steps, the learning rate and the order of the data:
the micro-batch is halved and there are twice as many; where one sequence is too much, and checkpointing was to choose,
more is computed twice. What a failed attempt had summed up is thrown away, and dropout
begins the step again from the random state that it had. So from that step on it is, bit for bit, the run that would
have been started at the smaller size from there; a checkpoint remembers the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.data.batch import Batch, Whole
from ganeum.hardware import Device
from ganeum.models import checkpointing
from ganeum.plan.fastest import LEVELS
from ganeum.record import RunDirectory
from ganeum.step.optimizer_step import OptimizerStep, StepResult
from ganeum.step.timings import Timings
from ganeum.train import randomness, trouble
from ganeum.train.evaluate import Evaluation, ValidationSet
from ganeum.train.out_of_memory import Full, Part, attempt
from ganeum.train.progress import Progress
from ganeum.train.settled import Settled

T = TypeVar("T")
MICRO, EVALUATION, CHECKPOINTING = "train.micro_batch_size", "train.eval_batch_size", "train.activation_checkpointing"


@dataclass
class WithinMemory:
    """Runs what needs the device's memory, and lowers the sizes in ``progress`` when it must.

    ``device``: as it was looked at before there was a model; ``say``: takes a line for the reader; ``may_recompute``:
    whether activation checkpointing was to choose.
    """

    config: Config
    step: OptimizerStep
    progress: Progress
    run: RunDirectory
    device: Device
    say: Callable[[str], None]
    may_recompute: bool = False

    def __post_init__(self) -> None:
        if self.level != self.config.train.activation_checkpointing:  # as an earlier process left it
            checkpointing.apply(self.step.model.blocks, self.level)

    @property
    def micro_batch_size(self) -> int:
        """As configured, which the queue halves once memory killed the process, or less since it ran out here."""
        configured = Settled.of(self.config).micro_batch_size
        return min(configured, self.progress.size(MICRO, configured))

    @property
    def level(self) -> checkpointing.Mode:
        """Of checkpointing: as configured, which may have changed since memory ran out, or further."""
        configured = self.config.train.activation_checkpointing
        assert configured != "auto", "resolved before"
        return max(configured, self.progress.size(CHECKPOINTING, configured), key=LEVELS.index)

    @property
    def eval_batch_size(self) -> int:
        return self.progress.size(EVALUATION, Settled.of(self.config).eval_batch_size)

    def update(self, whole: Callable[[], Whole], *, learning_rate: float, timings: Timings | None = None) -> StepResult:
        """The step after ``progress.step``, on the batch that ``whole`` gives, each time the same.

        Raises:
            RunError: one sequence at once does not fit, or memory ran out while the weights were being written.
        """
        step, before = self.step, randomness.of_device(self.step.device)
        part: Part = "step"

        def micro_batches(batch: Whole) -> Iterator[Batch]:
            nonlocal part
            yield from batch.micro_batches(self.micro_batch_size)
            part = "update"  # one more is asked for, so the last backward pass is over

        def attempted() -> StepResult:
            nonlocal part
            part = "step"
            with (timings or Timings()).part("data"):
                batch = whole()
            return step(
                micro_batches(batch),
                targets=batch.targets,
                step=self.progress.step,
                learning_rate=learning_rate,
                timings=timings,
            )

        while isinstance(result := attempt(attempted, lambda: part), Full):
            step.model.zero_grad(set_to_none=True)
            if part == "update":
                raise self._too_large(result)
            if self.micro_batch_size > 1:
                self._fewer(result)
            elif self.may_recompute and self.level != LEVELS[-1] and not self.config.train.compile:
                self._recompute_more(result)
            else:
                raise self._too_large(result)
            randomness.restore_device(step.device, before)
        return result

    def _fewer(self, full: Full) -> None:
        size, batch_size = self.micro_batch_size, self.config.train.batch_size
        less = trouble.smaller(batch_size, size)
        self._lower(MICRO, self.progress.step + 1, size, less, full)
        often, stays = f", {batch_size // less} times a step instead of {batch_size // size}", f"stays {batch_size}"
        if self.config.data.batching in ("packed", "buckets"):  # a step's examples are cut by their lengths
            often = ""
        if self.config.train.batch_tokens is not None:
            often, stays = "", f"stays {self.config.train.batch_tokens:,} tokens"
        self.say(
            f"Out of memory at step {self.progress.step + 1:,} ({full.said}). From here on {_sequences(less)} "
            f"at once instead of {size}{often}: the "
            f"batch {stays}, and steps, learning rate and order of the data stay as they were."
        )

    def _recompute_more(self, full: Full) -> None:
        before = self.level
        after = LEVELS[LEVELS.index(before) + 1]
        self._lower(CHECKPOINTING, self.progress.step + 1, before, after, full)
        checkpointing.apply(self.step.model.blocks, after)
        self.say(
            f"Out of memory at step {self.progress.step + 1:,} ({full.said}). From here on activation checkpointing is "
            f"{after} instead of {before}: more is computed twice, and the weights become the same, bit for bit."
        )

    def evaluate(self, validation: ValidationSet) -> Evaluation:
        """On the model as it stands; in halves where memory runs out.

        Raises:
            RunError: one sequence at once does not fit.
        """
        while isinstance(
            result := attempt(lambda: validation.evaluate(self.step, self.eval_batch_size), lambda: "evaluation"), Full
        ):
            size = self.eval_batch_size
            if size == 1:
                raise self._too_large(result)
            self._lower(EVALUATION, self.progress.step, size, size // 2, result)
            self.say(
                f"Out of memory in the evaluation at step {self.progress.step:,} ({result.said}). From here on "
                f"{_sequences(size // 2)} at once instead of {size} in evaluations; training stays as it is."
            )
        return result

    def sample(self, write: Callable[[], T]) -> T | None:
        """What ``write`` returns, or None where there is no memory for it: a text less is no reason to stop."""
        result = attempt(lambda: self.step.inside(write), lambda: "sample")
        if isinstance(result, Full):
            self.say(f"No sample at step {self.progress.step:,}: out of memory ({result.said}).")
            return None
        return result

    def _lower(self, key: str, step: int, before: int | str, after: int | str, full: Full) -> None:
        self.progress.out_of_memory.append(
            {"step": step, "key": key, "before": before, "after": after, "said": full.said}
        )
        if self.config.train.compile:
            torch.compiler.reset()  # else it would compile for sizes in general, and a resumed run for this one alone

    def _too_large(self, full: Full) -> Exception:
        sizes = {MICRO: self.micro_batch_size, EVALUATION: self.eval_batch_size, CHECKPOINTING: self.level}
        return trouble.too_large(full, change(self.config, sizes), self.device, self.run)


def _sequences(number: int) -> str:
    return f"{number} sequence" + ("s" if number > 1 else "")
