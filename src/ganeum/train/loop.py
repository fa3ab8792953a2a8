"""The loop: a step, and what is due after it; the same from any checkpoint on as without one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import save_file

from ganeum.config import Config
from ganeum.config.schema import Train
from ganeum.errors import RunError
from ganeum.models.network import Network
from ganeum.record import MetricsLog, RunDirectory, Status
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.step.schedule import learning_rate
from ganeum.train import checkpoint, randomness, samples
from ganeum.train.callbacks import Callbacks, Training
from ganeum.train.console import Console
from ganeum.train.evaluate import ValidationSet
from ganeum.train.interrupt import Interrupt, Interrupted
from ganeum.train.material import Batches
from ganeum.train.meter import Meter
from ganeum.train.progress import Progress
from ganeum.train.settled import Settled
from ganeum.train.within_memory import WithinMemory

if TYPE_CHECKING:
    from ganeum.data.examples.examples import Reference

LEAST_LOSS_SCALE = 2.0**-14  # fp16's smallest normal number: an update below it is noise
MILESTONE = 1_000  # steps between the lines "[Step 1000] Tokens seen: …"
STATUS_S = 10.0  # seconds between two notes of the step in status.json


@dataclass
class Loop:
    """Everything a run needs, and the training itself in `run`."""

    config: Config  # every key resolved
    directory: RunDirectory
    model: Network
    step: OptimizerStep
    batches: Batches
    validation: ValidationSet | None
    tokenizer: Any  # None where nothing says what the ids stand for
    references: Sequence[Reference]
    metrics: MetricsLog
    meter: Meter
    console: Console
    callbacks: Callbacks
    progress: Progress
    within: WithinMemory

    def run(self, plan: Mapping[str, Any]) -> Literal["max_iters", "patience", "callback"]:
        """Trains to the end → what ended it.

        Raises:
            Interrupted: by Ctrl-C or SIGTERM, after a checkpoint.
            RunError: the loss is not finite any more, the disk is full, or a callback failed.
        """
        progress, device = self.progress, self.step.device
        self._epoch_loss = torch.tensor(progress.epoch_loss_sum, device=device, dtype=_sum_dtype(device))
        self.every = Settled.of(self.config)
        total = self.every.max_iters
        self._began = time.monotonic() - progress.elapsed_s  # the clock of elapsed_s
        self._first = (progress.step, time.monotonic())  # where this process began, for the time left
        self._noted = time.monotonic()
        self.model.train()
        with Interrupt() as interrupt:
            self.callbacks.start(
                Training(
                    self.directory, self.config, plan, self.model, progress.step, total, elapsed_s=progress.elapsed_s
                )
            )
            while progress.step < total:
                if self._out_of_patience():
                    self._keep()
                    return "patience"
                if self._callbacks_want_the_end():
                    return "callback"
                self._advance(total)
                if interrupt.requested is not None:
                    self._keep()
                    raise Interrupted(interrupt.requested, progress.step)
            if self.callbacks.failed is not None:
                raise self.callbacks.failed
        return "max_iters"

    # ------------------------------------------------------------------------------------------------- one step

    def _advance(self, total: int) -> None:
        progress, every = self.progress, self.every
        n = progress.step + 1  # updates completed after this one
        evaluated = self.validation is not None and (n % every.eval_interval == 0 or n == total)
        logged = evaluated or n % every.log_interval == 0 or n in (1, total)
        saved = n % every.checkpoint_interval == 0 or n == total
        rate = learning_rate(progress.step, self.config.train, total)

        result = self.within.update(
            lambda: self.batches.whole(n - 1), learning_rate=rate, timings=self.meter.timings(logged)
        )
        self._epoch_loss += result.loss
        progress.epoch_steps += 1
        progress.step = n
        progress.tokens_seen += result.tokens
        self.meter.count(result.tokens)
        self.console.tick(n)
        self.callbacks.tell("on_step", n)

        if logged or saved:  # only here the device is waited for
            self._check_finite()
        if logged:
            figures = self.meter.read()
            line: dict[str, Any] = {
                "step": n,
                "tokens_seen": progress.tokens_seen,
                "loss": result.loss.item(),
                "learning_rate": rate,
                "grad_norm": result.grad_norm.item(),
                "elapsed_s": self._elapsed(),
            }
            if self.every.precision == "fp16":
                line |= {"skipped_updates": int(self.step.skipped.item()), "loss_scale": self.step.loss_scale.item()}
            if self.config.model.source is not None:
                line["padding"] = result.padding / (result.padding + result.tokens)
            if progress.out_of_memory:
                sizes = self.within.micro_batch_size, self.within.eval_batch_size
                line |= {"micro_batch_size": sizes[0], "eval_batch_size": sizes[1]}
            if evaluated:
                saved |= self._evaluate()
                line |= {"val_loss": progress.val_loss, "val_bpb": progress.val_bpb}
            self._log(line | figures, total)
        if evaluated or n == 1 or n % MILESTONE == 0:
            self.console.say(
                f"[Step {n}] Tokens seen: {progress.tokens_seen:,}, Total elapsed: {self._elapsed():.2f} sec"
            )
        if (every_epoch := self.batches.steps_per_epoch) and n % every_epoch == 0:
            self._end_epoch(n // every_epoch)
        if self.tokenizer is not None and every.sample_interval and n % every.sample_interval == 0:
            with self.meter.paused():
                write = partial(
                    samples.write, self.directory, n, self.model, self.tokenizer, self.config, self.references
                )
                sample = self.within.sample(write)
            if sample is not None:
                self.callbacks.tell("on_sample", n, sample)
        if saved:
            self._save()

    # --------------------------------------------------------------------------------------------- what is due

    def _log(self, line: dict[str, Any], total: int) -> None:
        self.metrics.write(line)
        numbers = {key: value for key, value in line.items() if value is not None and key != "step"}
        if "val_loss" in numbers:
            scores = {key: value for key, value in numbers.items() if key in ("val_loss", "val_bpb")}
            self.callbacks.tell("on_evaluation", line["step"], scores)
        self.callbacks.tell("on_log", line["step"], numbers)
        first, since = self._first
        done = line["step"] - first
        # The first step of a process (compilation, first touches) says nothing about the others.
        left = (time.monotonic() - since) / done * (total - line["step"]) if done > 1 and line["step"] < total else None
        self.console.interval(line, left)
        if time.monotonic() - self._noted > STATUS_S:
            self._noted = time.monotonic()
            Status.of_this_process("running", line["step"]).write(self.directory.status_path)

    def _evaluate(self) -> bool:
        """Updates `progress` → whether this is the best so far, which is then worth a checkpoint."""
        assert self.validation is not None
        progress = self.progress
        with self.meter.paused():
            evaluation = self.within.evaluate(self.validation)
        progress.val_loss, progress.val_bpb = evaluation.val_loss, evaluation.val_bpb
        better = evaluation.val_loss < progress.best_val_loss
        if better:
            progress.best_val_loss, progress.best_val_bpb = evaluation.val_loss, evaluation.val_bpb
            progress.best_step = progress.step
        progress.evaluations_without_gain = 0 if better else progress.evaluations_without_gain + 1
        return better

    def _out_of_patience(self) -> bool:
        patience = self.config.train.patience
        return patience is not None and self.progress.evaluations_without_gain >= patience

    def _end_epoch(self, number: int) -> None:
        progress, elapsed = self.progress, self._elapsed()
        mean = self._epoch_loss.item() / progress.epoch_steps
        self.console.say(
            f"\nEpoch {number} completed.\n"
            f" ➤ Avg Loss: {mean:.4f}\n"
            f" ➤ Epoch Time: {elapsed - progress.epoch_started_s:.2f} sec\n"
            f" ➤ Total Time Elapsed: {elapsed:.2f} sec\n"
        )
        progress.past_epochs_loss_sum += self._epoch_loss.item()
        self._epoch_loss.zero_()
        progress.epoch_steps, progress.epoch_started_s = 0, elapsed

    def _elapsed(self) -> float:
        return time.monotonic() - self._began

    # ------------------------------------------------------------------------------- keeping, and not keeping

    def _callbacks_want_the_end(self) -> bool:
        """Whether one asked for it; raises what one failed with. Either way there is a checkpoint of this step."""
        callbacks = self.callbacks
        if (callbacks.failed or callbacks.stopped) and self.progress.step:
            self._keep()
        if callbacks.failed is not None:
            raise callbacks.failed
        if callbacks.stopped is not None:
            self.console.say(f"Stopped at step {self.progress.step:,} by {callbacks.stopped}")
        return callbacks.stopped is not None

    def _keep(self) -> None:
        """A checkpoint of where it stands, unless there is one."""
        if self.progress.step not in checkpoint.steps(self.directory):
            self._check_finite()
            self._save()

    def _save(self) -> None:
        progress = self.progress
        progress.epoch_loss_sum, progress.elapsed_s = self._epoch_loss.item(), self._elapsed()
        with self.meter.paused():
            self.metrics.flush()  # what the checkpoint stands for is on the disk before it
            path = checkpoint.save(
                self.directory,
                progress.step,
                self.step.weights(),
                {"progress": progress.state(), "step": self.step.state_dict(), "random": randomness.state()},
                keep_last=self.config.train.keep_last,
                best_step=progress.best_step,
            )
        self.callbacks.tell("on_checkpoint", progress.step, path)

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Optimizer and random states of a checkpoint; weights and `progress` are there already."""
        self.step.load_state_dict(saved.state["step"])
        randomness.restore(saved.state["random"])

    def _check_loss_scale(self) -> None:
        """fp16 halves its loss scale until the gradient fits; where it never does, no update is made any more."""
        scale = self.step.loss_scale.item()
        if scale < LEAST_LOSS_SCALE:
            raise RunError(
                f"the gradient overflows fp16 at every loss scale: it is {scale:.3g} at step {self.progress.step:,}",
                where=str(self.directory.metrics_path),
                why=f"{int(self.step.skipped.item()):,} updates were skipped, and the weights no longer learn",
                suggestion=_calmer(self.config.train),
            )

    def _check_finite(self) -> None:
        """Waits for the device. The step itself keeps a bad update away from the weights; here the run ends for it."""
        bad = int(self.step.first_bad_step.item())
        if bad < 0:
            self._check_loss_scale()
            return
        batch, described = self.batches.trace(bad - 1)
        path = self.directory.logs_dir / f"bad-batch-{bad:08d}.safetensors"
        save_file(batch, path)
        kept = checkpoint.steps(self.directory)
        raise RunError(
            f"the loss or its gradient is not a finite number at step {bad:,}",
            where=f"{path} (the batch: {described})",
            why=(
                f"the last good checkpoint is {self.directory.checkpoint_dir(kept[0]).name}, and was not touched"
                if kept
                else "no checkpoint had been written yet"
            ),
            suggestion=_calmer(self.config.train),
        )


def _calmer(train: Train) -> str:
    """What to try where numbers grow out of their range."""
    wider = "" if train.precision == "fp32" else ", or train.precision=fp32"
    return f"train.learning_rate below {train.learning_rate:g}, a longer train.warmup_iters{wider}, under another name"


def _sum_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64
