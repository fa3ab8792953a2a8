"""What was planned beside what was measured, figure by figure, and whether it lay where it was said to lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ganeum import units
from ganeum.config import Config
from ganeum.train.progress import Progress
from ganeum.train.settled import Settled

Figure = dict[str, float | bool]  # planned, low, high, measured, inside: what of it is known


def of(
    config: Config, progress: Progress, predicted: Mapping[str, Any], logged: Sequence[Mapping[str, Any]]
) -> dict[str, Figure]:
    """Name → the figure as the plan has it, its bounds, what was measured, and whether that is within them.

    The hours planned are those of as many steps as were taken: the plan is the first start's, and the run may have been
    lengthened since, or have stopped early; for the same reason a loss is planned only for as many steps as were taken.

    Args:
        logged: the lines of metrics.jsonl.
    """
    steady = [line for line in logged if line["step"] > 1] or logged  # the first step compiles and touches memory first
    time, memory = predicted.get("time") or {}, predicted.get("memory_gib") or {}
    planned_steps = predicted["data"].get("steps")
    loss = predicted.get("loss") or {} if progress.step == planned_steps else {}
    hours, steps = time.get("hours"), Settled.of(config).max_iters
    if hours and planned_steps:
        hours *= progress.step / planned_steps
    step_s, low, high = (time.get(name) for name in ("step_s", "low", "high"))

    def in_proportion(value: float | None, *, falls: bool = False) -> tuple[float | None, float | None, float | None]:
        """The same bounds for what rises with the time of a step, or falls with it."""
        if not (value and step_s and low and high):
            return value, None, None
        least, most = sorted(value * (step_s / bound if falls else bound / step_s) for bound in (low, high))
        return value, least, most

    # One line's figures, so that they go together: half of the lines were no slower.
    timed = sorted((line for line in steady if line.get("step_time_s") is not None), key=lambda at: at["step_time_s"])
    middle = timed[len(timed) // 2] if timed else {}

    def largest(name: str) -> float | None:
        return max((line[name] for line in logged if line.get(name) is not None), default=None)

    reserved = memory.get("peak_reserved")
    figures = {
        "step_s": (in_proportion(step_s), middle.get("step_time_s")),
        "tokens_per_second": (
            in_proportion(time.get("tokens_per_second"), falls=True),
            middle.get("tokens_per_second"),
        ),
        "mfu": (in_proportion(time.get("mfu"), falls=True), middle.get("mfu")),
        "hours": (in_proportion(hours), progress.elapsed_s / 3600),
        "peak_allocated_gib": (
            (memory.get("peak_allocated"), memory.get("low"), memory.get("high")),
            largest("memory_allocated_gib"),
        ),
        "peak_reserved_gib": (
            (reserved, reserved and memory.get("low"), reserved and memory.get("high")),
            largest("memory_reserved_gib"),
        ),
        "val_loss": ((loss.get("expected"), loss.get("low"), loss.get("high")), progress.val_loss),
        "steps": ((steps, None, None), progress.step),
        "tokens_seen": (
            (steps * tokens_per_step(config, predicted), None, None),
            progress.tokens_seen,
        ),
    }
    return {name: _figure(*planned, measured) for name, (planned, measured) in figures.items()}


def tokens_per_step(config: Config, predicted: Mapping[str, Any]) -> int:
    """As planned: of examples, which are not all as long, about so many."""
    found: int | None = (predicted.get("batch") or {}).get("tokens_per_step")
    return config.train.batch_size * config.model.block_size if found is None else round(found)


def _figure(planned: float | None, low: float | None, high: float | None, measured: float | None) -> Figure:
    known = {"planned": planned, "low": low, "high": high, "measured": measured}
    figure: Figure = {name: value for name, value in known.items() if value is not None}
    if planned is not None and measured is not None and low is not None and high is not None:
        figure["inside"] = low <= measured <= high
    return figure


SHOWN: dict[str, tuple[str, Callable[[float], str]]] = {
    "step_s": ("a step", lambda value: f"{value:.3g} s"),
    "tokens_per_second": ("tokens/s", lambda value: f"{value:,.0f}"),
    "mfu": ("MFU", lambda value: f"{value:.1%}"),
    "hours": ("in all", lambda value: units.duration(value * 3600)),
    "peak_allocated_gib": ("allocated", lambda value: f"{value:.2f} GiB"),
    "peak_reserved_gib": ("reserved", lambda value: f"{value:.2f} GiB"),
    "val_loss": ("validation loss", lambda value: f"{value:.3f}"),
    "tokens_seen": ("tokens", units.count),
}


def in_words(figures: Mapping[str, Mapping[str, Any]], source: str | None) -> list[str]:
    """A line for each figure that was planned and measured: planned, its bounds, measured, how far off, inside or not.

    Args:
        source: where the times planned came from.
    """
    rows = [
        _row(title, text, figures[name])
        for name, (title, text) in SHOWN.items()
        if figures.get(name, {}).get("planned") and figures[name].get("measured") is not None
    ]
    if not rows:
        return []
    heading = f"{'':<16}{'planned':>12}{'low – high':>24}{'measured':>12}{'off by':>8}"
    told = [] if source is None else [f"(times planned: {source})"]
    return ["", heading, *rows, *told, ""]


def _row(title: str, text: Callable[[float], str], figure: Mapping[str, Any]) -> str:
    planned, measured = figure["planned"], figure["measured"]
    between = f"{text(figure['low'])} – {text(figure['high'])}" if "inside" in figure else ""
    where = {True: "  inside", False: "  outside"}.get(figure.get("inside"), "")  # type: ignore[arg-type]
    off = f"{measured / planned - 1:+.0%}"
    return f"{title:<16}{text(planned):>12}{between:>24}{text(measured):>12}{off:>8}{where}"
