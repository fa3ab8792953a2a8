"""One side of a comparison: a run of ours from its directory, or a log that somebody pasted; loads no torch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite, nan
from pathlib import Path
from statistics import median
from typing import Any

from ganeum.config import Config, load_stored
from ganeum.doctor.compare.stretch import Stretch, number, of_lines
from ganeum.doctor.log.read import Log, read
from ganeum.errors import DataError, GaneumError
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.hardware.machine import look
from ganeum.record import RunDirectory, Status, read_metrics
from ganeum.record.files import read_json

STEP_TOKENS = re.compile(r"tokens per iteration will be:\s*([\d,]*\d)", re.IGNORECASE)  # nanoGPT's
RESUMED = re.compile(r"^going on from step ([\d,]+)", re.MULTILINE)


@dataclass(frozen=True)
class Side:
    """What is known of a training.

    Attributes:
        name: what answers call it.
        stretches: those that count: without the first of each start, which compiles and warms up.
        losses, norms, val_losses: by step. tokens_at: tokens seen by a step.
        config, plan, environment, system, status: of a run of ours; None or empty for a log.
        unread: why its config could not be read; None: it could, or there is none.
        outside_s: seconds of evaluations, samples and checkpoints, and the seconds of the steps between which they
            were; None: not said.
        starts: steps that it was started at, 0 first.
        lowered: the step from which on it took fewer sequences at once, since memory ran out, and how many.
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
    status: Status | None = None
    unread: str | None = None
    outside_s: tuple[float, float] | None = None
    starts: tuple[int, ...] = (0,)
    lowered: tuple[int, int] | None = None
    broken: int = 0
    path: Path | None = None

    @property
    def tokens(self) -> float | None:
        """Of a usual step, padding not counted."""
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
        """Of each stretch: seconds a token (or a step) that it took, or a part of it, or ``cpu``, processors'."""
        found = [one.per_token(name) if per_token else one.per_step(name) for one in self.stretches]
        return [value for value in found if value is not None and isfinite(value)]

    def device(self) -> Device | None:
        """What it ran on, where that is a card of the catalogue or this machine's CPU."""
        told = section(self.plan, "device")
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
    good = list(read_metrics(run.metrics_path))
    lines = [line for line in good if isinstance(line.get("step"), int)]
    told = run.metrics_path.read_bytes().count(b"\n") if run.metrics_path.exists() else 0
    starts = _starts(run)
    stretches = tuple(of_lines(lines, starts))
    if not stretches:
        raise DataError(
            f"{run.name} has logged no step that could be compared"
            + (f" ({told} {'line' if told == 1 else 'lines'})" if told else ""),
            where=str(run.metrics_path),
            why="the first step of a start compiles and warms up, so it is left out",
            suggestion="let it train for some steps more; log.interval=1 logs every step",
        )
    config: Config | None = None
    unread = None
    try:
        config = load_stored(run.config_path)
    except GaneumError as error:
        unread = error.what
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
        system=[_figures(line) for line in read_metrics(run.system_path)],
        status=run.status(),
        unread=unread,
        outside_s=_outside(lines, starts),
        starts=starts,
        lowered=_lowered(lines, config),
        broken=told - len(good),
        path=run.path,
    )


def of_log(text: str, name: str, tokens: float | None = None) -> Side:
    """From what a training printed.

    Args:
        tokens: of a step, padding not counted, where the log does not say.

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


def of_metrics(path: Path, name: str) -> Side | None:
    """From a metrics.jsonl of ours without its directory; None: it is none, or has no step that could be compared."""
    lines = [line for line in read_metrics(path) if isinstance(line.get("step"), int)]
    stretches = tuple(of_lines(lines, (0,)))
    if not stretches:
        return None
    return Side(
        name,
        stretches,
        losses=_by_step(lines, "loss"),
        norms=_by_step(lines, "grad_norm"),
        val_losses=_by_step(lines, "val_loss"),
        tokens_at=_by_step(lines, "tokens_seen"),
        outside_s=_outside(lines, (0,)),
        path=path,
    )


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
        clock = [number(one.get("elapsed_s")) for one in (before, line)]
        seconds, steps = number(line.get("step_time_s")), line["step"] - before["step"]
        if None in clock or seconds is None or steps <= 0:
            continue
        if any(before["step"] <= start < line["step"] for start in starts):
            continue
        passed = clock[1] - clock[0]  # type: ignore[operator]
        beside += max(passed - steps * seconds, 0.0)
        within += steps * seconds
    return (beside, within) if within else None


def _lowered(lines: Sequence[Mapping[str, Any]], config: Config | None) -> tuple[int, int] | None:
    """From the first line that says a smaller micro-batch than the config's."""
    meant = None if config is None else config.train.micro_batch_size
    for line in lines:
        size = line.get("micro_batch_size")
        if isinstance(size, int) and (not isinstance(meant, int) or size < meant):
            return line["step"], size
    return None


def _figures(line: Mapping[str, Any]) -> dict[str, Any]:
    """A line of what a GPU's sensors say, without values of other types."""
    reasons = line.get("throttle_reasons")
    named = {"throttle_reasons": [one for one in reasons if isinstance(one, str)]} if isinstance(reasons, list) else {}
    return {name: value for name, value in line.items() if number(value) is not None} | named


def _by_step(lines: Sequence[Mapping[str, Any]], name: str) -> dict[int, float]:
    """What is no number there (null: nan and infinities) is nan."""
    found = {line["step"]: number(line[name]) for line in lines if name in line}
    return {step: nan if value is None else value for step, value in found.items()}


def section(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A section of a plan or an environment; empty where it is none, in a record that somebody damaged."""
    found = record.get(name)
    return found if isinstance(found, Mapping) else {}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
