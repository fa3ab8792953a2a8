"""One side of a comparison: a run of ours from its directory, or a log that somebody pasted; loads no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from pathlib import Path
from statistics import median
from typing import Any

from ganeum.config import Config, load_stored
from ganeum.doctor.log.read import Log, read
from ganeum.errors import DataError, GaneumError
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.hardware.machine import look
from ganeum.record import RunDirectory, read_metrics
from ganeum.record.files import read_json

PARTS = ("data", "forward", "backward", "optimizer", "other")
STEP_TOKENS = re.compile(r"tokens per iteration will be:\s*([\d,]*\d)", re.IGNORECASE)  # nanoGPT's
RESUMED = re.compile(r"^going on from step ([\d,]+)", re.MULTILINE)


@dataclass(frozen=True)
class Stretch:
    """Some steps in a row, as they were logged: ``step``: the last of them; ``seconds`` and ``tokens`` (that carry
    loss; None: not said) of one step, ``parts`` of one, by name; ``padding``: share of what is computed; ``cpu_s``:
    processor seconds of one; ``waited``: seconds of one without a core; ``others``: share of the machine's processors
    that other programs had."""

    step: int
    steps: int
    seconds: float
    tokens: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    padding: float | None = None
    cpu_s: float | None = None
    waited: float | None = None
    others: float | None = None

    def per_token(self, name: str | None = None) -> float | None:
        """Seconds of a token, of the whole step or of a part of it."""
        seconds = self.seconds if name is None else self.parts.get(name)
        return None if seconds is None or not self.tokens else seconds / self.tokens


@dataclass(frozen=True)
class Side:
    """What is known of a training.

    Attributes:
        name: what answers call it.
        stretches: those that count: without the first of each start, which compiles and warms up.
        losses, norms, val_losses: by step. tokens_at: tokens seen by a step.
        config, plan, environment, system, summary: of a run of ours; None or empty for a log.
        outside_s: seconds of evaluations, samples and checkpoints, and the seconds of the steps between which they
            were; None: not said.
        starts: steps that it was started at, 0 first.
        broken: lines of its metrics that could not be read.
        path: of its directory, or of the log.
    """

    name: str
    stretches: tuple[Stretch, ...]
    losses: Mapping[int, float] = field(default_factory=dict)
    norms: Mapping[int, float] = field(default_factory=dict)
    val_losses: Mapping[int, float] = field(default_factory=dict)
    tokens_at: Mapping[int, float] = field(default_factory=dict)
    config: Config | None = None
    plan: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    system: Sequence[Mapping[str, Any]] = ()
    outside_s: tuple[float, float] | None = None
    starts: tuple[int, ...] = (0,)
    broken: int = 0
    path: Path | None = None

    @property
    def tokens(self) -> float | None:
        """That carry loss, of a usual step."""
        counts = [one.tokens for one in self.stretches if one.tokens]
        return median(counts) if counts else None

    @property
    def step_s(self) -> float:
        """Of a usual step."""
        return median(one.seconds for one in self.stretches)

    @property
    def padding(self) -> float | None:
        """Share of what is computed."""
        shares = [one.padding for one in self.stretches if one.padding is not None]
        return sum(shares) / len(shares) if shares else None

    @property
    def told_company(self) -> bool:
        """Whether its metrics say what other programs did."""
        return all(one.others is not None for one in self.stretches)

    @property
    def fresh(self) -> bool | None:
        """Whether its weights were drawn, so that its first loss is known beforehand; None: not said."""
        if self.config is None:
            return None
        model = self.config.model
        return self.config.train.init_from is None and (model.source is None or model.fresh)

    def values(self, name: str | None = None, *, per_token: bool = True) -> list[float]:
        """Of each stretch: seconds a token (or a step) that it took, or a part of it."""
        if per_token:
            found = [one.per_token(name) for one in self.stretches]
        else:
            found = [one.seconds if name is None else one.parts.get(name) for one in self.stretches]
        return [value for value in found if value is not None and isfinite(value)]

    def device(self) -> Device | None:
        """What it ran on, where that is a card of the catalogue or this machine's CPU."""
        told = self.plan.get("device") or {}
        try:
            if told.get("kind") != "cpu":
                return card(told["name"])
            here = look("cpu")
            return here if here.name == told.get("name") else None
        except (GaneumError, KeyError, TypeError):
            return None


def of_run(run: RunDirectory, name: str | None = None) -> Side:
    """From its files; those that are missing or damaged are left out.

    Raises:
        DataError: it has logged no step that could be compared.
    """
    lines = [line for line in read_metrics(run.metrics_path) if isinstance(line.get("step"), int)]
    told = run.metrics_path.read_bytes().count(b"\n") if run.metrics_path.exists() else 0
    starts = _starts(run)
    stretches = tuple(_steady(list(_stretches(lines)), starts))
    if not stretches:
        raise DataError(
            f"{run.name} has logged no step that could be compared"
            + (f" ({told} {'line' if told == 1 else 'lines'})" if told else ""),
            where=str(run.metrics_path),
            why="the first step of a start compiles and warms up, so it is left out",
            suggestion="let it train for some steps more; log.interval=1 logs every step",
        )
    config: Config | None
    try:
        config = load_stored(run.config_path)
    except GaneumError:
        config = None
    return Side(
        name or run.name,
        stretches,
        losses=_by_step(lines, "loss"),
        norms=_by_step(lines, "grad_norm"),
        val_losses=_by_step(lines, "val_loss"),
        tokens_at=_by_step(lines, "tokens_seen"),
        config=config,
        plan=_json(run.plan_path),
        environment=_json(run.environment_path),
        system=list(read_metrics(run.system_path)),
        outside_s=_outside(lines, starts),
        starts=starts,
        broken=told - len(list(read_metrics(run.metrics_path))),
        path=run.path,
    )


def of_log(text: str, name: str, tokens: float | None = None) -> Side:
    """From what a training printed.

    Args:
        tokens: that carry loss in a step, where the log does not say.

    Raises:
        DataError: no times are in it that are known.
    """
    log: Log = read(text)
    best = log.best()
    if best is None or not all(span.steps for span in best[1]):
        raise DataError(
            "no times of steps are in it that are known: nanoGPT's lines, Hugging Face's, tqdm's, our metrics.jsonl",
            where=name,
            why="losses are in it, and no times; a trainer_state.json has none" if log.losses else None,
            suggestion="what the training printed, bars and all; `ganeum doctor log` says what it reads of it",
        )
    if tokens is None and (said := STEP_TOKENS.search(text)):
        tokens = float(said[1].replace(",", ""))
    spans = best[1][1:] or best[1]
    stretches = [
        Stretch(
            span.at, span.steps or 1, span.pace, span.tokens / (span.steps or 1) if span.tokens else tokens, log.parts
        )
        for span in spans
    ]
    if log.parts:  # means of the whole log: they have no spread
        stretches = [Stretch(one.step, one.steps, one.seconds, one.tokens) for one in stretches]
    return Side(name, tuple(stretches), losses=log.losses, norms=log.norms)


def of_metrics(path: Path, name: str) -> Side:
    """From a metrics.jsonl of ours without its directory."""
    lines = [line for line in read_metrics(path) if isinstance(line.get("step"), int)]
    return Side(
        name,
        tuple(_steady(list(_stretches(lines)), (0,))),
        losses=_by_step(lines, "loss"),
        norms=_by_step(lines, "grad_norm"),
        val_losses=_by_step(lines, "val_loss"),
        tokens_at=_by_step(lines, "tokens_seen"),
        outside_s=_outside(lines, (0,)),
        path=path,
    )


def _stretches(lines: Sequence[Mapping[str, Any]]) -> Iterator[Stretch]:
    """A line stands for the steps since the line before it."""
    step, seen = 0, 0.0
    others = next((share for line in lines if (share := _number(line.get("cpu_others"))) is not None), None)
    for line in lines:
        if (share := _number(line.get("cpu_others"))) is not None:
            others = share
        seconds, tokens = _number(line.get("step_time_s")), _number(line.get("tokens_seen"))
        steps = line["step"] - step
        if steps > 0 and seconds:
            each = (tokens - seen) / steps if tokens is not None and tokens > seen else None
            parts = {name: value for name in PARTS if (value := _number(line.get(f"{name}_s"))) is not None}
            yield Stretch(
                line["step"],
                steps,
                seconds,
                each,
                parts,
                _number(line.get("padding")),
                _number(line.get("cpu_s")),
                _number(line.get("cpu_wait_s")),
                others,
            )
        step, seen = line["step"], tokens if tokens is not None else seen


def _steady(stretches: list[Stretch], starts: Sequence[int]) -> Iterator[Stretch]:
    """Without those that hold the first step of a start."""
    for one in stretches:
        if not any(one.step - one.steps <= start < one.step for start in starts):
            yield one


def _starts(run: RunDirectory) -> tuple[int, ...]:
    """As the console tells: each later start says which step it goes on from."""
    try:
        said = run.console_path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return (0,)
    return (0, *(int(found.replace(",", "")) for found in RESUMED.findall(said)))


def _outside(lines: Sequence[Mapping[str, Any]], starts: Sequence[int]) -> tuple[float, float] | None:
    """Seconds beside the steps and of the steps, from the clock of the run; a start anew is left out."""
    beside = within = 0.0
    for before, line in pairwise(lines):
        clock = [_number(one.get("elapsed_s")) for one in (before, line)]
        seconds, steps = _number(line.get("step_time_s")), line["step"] - before["step"]
        if None in clock or seconds is None or steps <= 0:
            continue
        if any(before["step"] <= start < line["step"] for start in starts):
            continue
        passed = clock[1] - clock[0]  # type: ignore[operator]
        beside += max(passed - steps * seconds, 0.0)
        within += steps * seconds
    return (beside, within) if within else None


def _by_step(lines: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    return {line["step"]: float("nan") if line[name] is None else line[name] for line in lines if name in line}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    return float(value) if good else None
