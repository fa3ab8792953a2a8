"""A run in one row, read from its files alone: what it is doing, how far it is, how good it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ganeum.config.load import load_stored
from ganeum.config.schema import Config
from ganeum.errors import GaneumError
from ganeum.record.deaths import explained
from ganeum.record.directory import RunDirectory
from ganeum.record.files import read_json
from ganeum.record.metrics import newest


@dataclass(frozen=True)
class Row:
    """One run. Whatever is not known (yet) is None.

    Attributes:
        state: what status.json says; `died` where it says running and the process is gone, `new` before there is a
            status, `unreadable` where the config is damaged.
        step, max_iters: updates completed, and all of them.
        loss, val_loss: nats per token, the latest. val_bpb: bits per byte.
        hours: of training. parameters: a count. modified: seconds since 1970, when its record last changed.
    """

    name: str
    state: str
    step: int = 0
    max_iters: int | None = None
    loss: float | None = None
    val_loss: float | None = None
    val_bpb: float | None = None
    tokens_per_second: float | None = None
    hours: float | None = None
    parameters: int | None = None
    modified: float | None = None
    error: str | None = None


def state_of(run: RunDirectory) -> str:
    """`Row.state` without the rest."""
    status = run.status()
    if status is None:
        return "new"
    return "died" if status.state == "running" and not status.is_alive() else status.state


def overview(run: RunDirectory) -> tuple[Row, Config | None]:
    """The run's row and its config, None if that cannot be read."""
    status, config = run.status(), None
    with suppress(GaneumError):
        config = load_stored(run.config_path)
    latest = newest(run.metrics_path, ("step", "loss", "val_loss", "val_bpb", "tokens_per_second", "elapsed_s"))
    times = [path.stat().st_mtime for path in (run.config_path, run.status_path, run.metrics_path) if path.exists()]
    elapsed_s = latest.get("elapsed_s")
    row = Row(
        name=run.name,
        state=state_of(run) if config else "unreadable",
        step=max(status.step if status else 0, latest.get("step", 0)),
        max_iters=config.train.max_iters if config else None,
        loss=latest.get("loss"),
        val_loss=latest.get("val_loss"),
        val_bpb=latest.get("val_bpb"),
        tokens_per_second=latest.get("tokens_per_second"),
        hours=elapsed_s / 3600 if elapsed_s is not None else None,
        parameters=_parameters(run),
        modified=max(times, default=None),
        error=explained(status) or (status.error if status else None),
    )
    return row, config


def _parameters(run: RunDirectory) -> int | None:
    try:
        plan: Any = read_json(run.plan_path)
        return int(plan["parameters"]["total"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
