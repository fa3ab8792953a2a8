"""How far a run of the queue is, from its files: light enough for a listing of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ganeum.queue.entry import GOING, Entry
from ganeum.record import RunDirectory, read_json
from ganeum.record.metrics import newest, read_metrics

NAMES = ("step", "loss", "val_loss", "tokens_per_second", "step_time_s", "elapsed_s")


@dataclass(frozen=True)
class Progress:
    """Whatever is not known (yet) is None.

    Attributes:
        step, steps: updates completed, and all of them.
        loss, val_loss, best_val_loss: nats per token; the latest, the latest and the lowest.
        tokens_per_second: of the latest logged interval. elapsed_s: of training. left_s: at that pace.
    """

    step: int = 0
    steps: int | None = None
    loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    tokens_per_second: float | None = None
    elapsed_s: float | None = None
    left_s: float | None = None

    @property
    def share(self) -> float | None:
        """Of the steps that are done, 0 to 1."""
        return min(1.0, self.step / self.steps) if self.steps else None


def progress(run: RunDirectory, entry: Entry | None = None) -> Progress:
    """What the files of `run` tell; nothing where it has not begun."""
    latest = newest(run.metrics_path, NAMES)
    status = run.status()
    step = max(status.step if status else 0, latest.get("step", 0))
    steps, step_s = _steps(run), latest.get("step_time_s")
    left = (steps - step) * step_s if steps and step_s is not None else None
    return Progress(
        step=step,
        steps=steps,
        loss=latest.get("loss"),
        val_loss=latest.get("val_loss"),
        best_val_loss=min(curve(run).values(), default=None),
        tokens_per_second=latest.get("tokens_per_second"),
        elapsed_s=latest.get("elapsed_s"),
        left_s=left if entry is None or entry.state in GOING else None,
    )


def newest_checkpoint(run: RunDirectory) -> int:
    """The step of the last complete checkpoint; 0 where there is none."""
    found = [path.name.removeprefix("step-") for path in run.checkpoints_dir.glob("step-*")]
    return max((int(step) for step in found if step.isdigit()), default=0)


def curve(run: RunDirectory) -> dict[int, float]:
    """Step → validation loss, of every evaluation."""
    lines = read_metrics(run.metrics_path)
    return {line["step"]: line["val_loss"] for line in lines if line.get("val_loss") is not None and "step" in line}


def _steps(run: RunDirectory) -> int | None:
    try:
        plan: Mapping[str, Any] = read_json(run.plan_path)
        steps = plan["data"]["steps"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return steps if isinstance(steps, int) else None
