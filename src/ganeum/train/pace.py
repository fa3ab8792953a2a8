"""How fast this machine takes a run's steps: a short measurement on a throw-away model, before step 0."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ganeum import units
from ganeum.config import Config
from ganeum.hardware import Device
from ganeum.plan import execution
from ganeum.plan.architecture import of as architecture_of
from ganeum.plan.time import MARGIN
from ganeum.plan.time import of as step_time
from ganeum.train.material import Material
from ganeum.train.out_of_memory import Full
from ganeum.train.trial import Trial, sizes, tried

WARM_UP, LEAST, MEASURE_S = 2, 3, 10.0  # steps before the clock; steps measured at least; seconds, after LEAST steps
SHORT_S, SHARE, WORTH = 3.0, 100, 50  # seconds, part of the run's steps at most, for runs of more steps than this
AUTO_INTERVAL = 0.1  # what eval_interval: auto is, as a share of all steps


@dataclass(frozen=True)
class Pace:
    """``step_s``: seconds a step (median), ``low`` and ``high``: what a run's may be (:func:`bounds`);
    ``evaluation_s``: one evaluation; ``steps``: how many were measured; ``eval_interval``: in steps, below 1 a share of
    all."""

    step_s: float
    low: float
    high: float
    evaluation_s: float
    steps: int
    eval_interval: float

    def steps_in(self, hours: float) -> int:
        """Steps that fit into `hours` with the evaluations among them; at least one."""
        if self.eval_interval < 1:
            return max(1, int((hours * 3600 - self.evaluation_s / self.eval_interval) / self.step_s))
        return max(1, int(hours * 3600 / (self.step_s + self.evaluation_s / self.eval_interval)))

    def evaluations_s(self, steps: int) -> float:
        """Seconds of all evaluations of a run of so many steps."""
        return self.evaluation_s * (
            round(1 / self.eval_interval) if self.eval_interval < 1 else math.ceil(steps / self.eval_interval)
        )

    def reason(self, hours: float) -> str:
        return (
            f"{units.duration(hours * 3600)} at {self.step_s:.3g} s a step (median of {self.steps}) "
            f"and {self.evaluation_s:.3g} s an evaluation, measured before the start"
        )


def measure(config: Config, material: Material, *, steps: int | None = None) -> Pace | Full:
    """Times a trial's steps and an evaluation: a :class:`Pace`, or where memory ran out.

    Args:
        steps: the run's, where they are given; then this takes little more than a hundredth of its time.
    """
    enough, enough_s = (math.inf, MEASURE_S) if steps is None else (WARM_UP + steps // SHARE, SHORT_S)

    def work(trial: Trial) -> Pace:
        seconds: list[float] = []
        while len(seconds) < WARM_UP + LEAST or (len(seconds) < enough and sum(seconds[WARM_UP:]) < enough_s):
            began = time.perf_counter()
            trial.update()
            seconds.append(time.perf_counter() - began)
        evaluation_s = 0.0
        if trial.validation is not None:
            few = 4 * trial.eval_batch_size
            trial.evaluate(few)  # compiles, where it must
            began = time.perf_counter()
            tokens = trial.evaluate(few).tokens
            evaluation_s = (time.perf_counter() - began) * trial.validation.tokens / tokens
        measured = sorted(seconds[WARM_UP:])
        interval = AUTO_INTERVAL if config.train.eval_interval == "auto" else config.train.eval_interval
        return Pace(measured[len(measured) // 2], *bounds(measured), evaluation_s, len(measured), interval)

    return tried(config, material, work)


def bounds(measured: Sequence[float]) -> tuple[float, float]:
    """Of the fastest and the slowest of some steps, in rising order, and no narrower than a calibrated estimate's:
    three steps in a row are more alike than a run is."""
    median, (less, more) = measured[len(measured) // 2], MARGIN["calibrated"]
    return min(measured[0], less * median), max(measured[-1], more * median)


def estimate(config: Config, device: Device) -> float | None:
    """Seconds a step, uncompiled, as far as they are known without taking one (:mod:`ganeum.plan.time`).

    Args:
        config: micro-batch, precision and vocabulary resolved.
    """
    way = execution.usual(config, device, sizes(config)[0])
    step = step_time(architecture_of(config), replace(way, compiled=False), device)
    return None if step is None else step.step_s
