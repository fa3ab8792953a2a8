"""The numbers of a run under the names that Hugging Face's Trainer logs, for dashboards that look for these.

`loss`, `learning_rate` and `grad_norm` are called the same there. The others as in transformers 5: `Trainer.train`,
`Trainer.evaluate` and `speed_metrics` (src/transformers/trainer.py, trainer_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ganeum.config import Config
from ganeum.train.progress import Progress

ENDED = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos", "epoch")


def logged(step: int, metrics: Mapping[str, float], steps_per_epoch: int | None) -> dict[str, float]:
    """A logged step's `metrics` with `eval_loss` where it was evaluated, and `epoch`, a number like 2.37."""
    found = dict(metrics)
    if "val_loss" in metrics:
        found["eval_loss"] = metrics["val_loss"]
    if steps_per_epoch:
        found["epoch"] = step / steps_per_epoch
    return found


def ended(config: Config, progress: Progress, plan: Mapping[str, Any]) -> dict[str, float]:
    """`ENDED` of a run that ended.

    train_runtime: seconds, evaluations and checkpoints counted as in the Trainer. train_loss: the mean over all steps.
    total_flos: the plan's count (attention included, where the Trainer takes 6 × parameters × tokens).
    """
    steps, seconds = progress.step, progress.elapsed_s
    found = {"train_runtime": seconds, "total_flos": float(progress.tokens_seen * plan["flops"]["per_token"])}
    if steps and seconds:
        found["train_samples_per_second"] = steps * config.train.batch_size / seconds
        found["train_steps_per_second"] = steps / seconds
    if steps:
        found["train_loss"] = (progress.past_epochs_loss_sum + progress.epoch_loss_sum) / steps
    if steps_per_epoch := plan["data"].get("steps_per_epoch"):
        found["epoch"] = steps / steps_per_epoch
    return found
