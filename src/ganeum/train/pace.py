"""How fast this machine takes a run's steps: a short measurement on a throwaway model, before step 0."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass

import torch

from ganeum import units
from ganeum.config import Config
from ganeum.data.batches import Batches
from ganeum.data.corpus import Corpus
from ganeum.hardware import Device
from ganeum.models.kernels import mode_kept
from ganeum.plan import flops, parameters
from ganeum.train.evaluate import validation_set
from ganeum.train.start import start

WARM_UP, LEAST, MEASURE_S = 2, 3, 10.0  # steps before the clock; steps measured at least; seconds, after LEAST steps
SHORT_S, SHARE, WORTH = 3.0, 100, 50  # seconds, part of the run's steps at most, for runs of more steps than this
EVALUATIONS = 10  # of a run whose eval_interval is auto
USUAL_MFU = 0.3  # of the device's peak, for a rough guess without measuring
GUESSED = f"a rough guess: {USUAL_MFU:.0%} of the device's peak, no evaluations"


@dataclass(frozen=True)
class Pace:
    """``step_s``: seconds a step (median); ``evaluation_s``: one evaluation; ``steps``: how many were measured;
    ``eval_interval``: None for a tenth of all."""

    step_s: float
    evaluation_s: float
    steps: int
    eval_interval: int | None

    def steps_in(self, hours: float) -> int:
        """Steps that fit into `hours` with the evaluations among them; at least one."""
        if self.eval_interval is None:
            return max(1, int((hours * 3600 - EVALUATIONS * self.evaluation_s) / self.step_s))
        return max(1, int(hours * 3600 / (self.step_s + self.evaluation_s / self.eval_interval)))

    def evaluations_s(self, steps: int) -> float:
        """Seconds of all evaluations of a run of so many steps."""
        return self.evaluation_s * (
            EVALUATIONS if self.eval_interval is None else math.ceil(steps / self.eval_interval)
        )

    def reason(self, hours: float) -> str:
        return (
            f"{units.duration(hours * 3600)} at {self.step_s:.3g} s a step (median of {self.steps}) "
            f"and {self.evaluation_s:.3g} s an evaluation, measured before the start"
        )


@mode_kept()
def measure(config: Config, corpus: Corpus, *, steps: int | None = None) -> Pace:
    """Trains a throwaway model for a few steps on the run's own first batches.

    The run's own model is built afterwards, from its seed: so this changes nothing of it, and there is never room
    needed for two.

    Args:
        steps: the run's, where they are given; then this takes little more than a hundredth of its time.
    """
    enough, enough_s = (math.inf, MEASURE_S) if steps is None else (WARM_UP + steps // SHARE, SHORT_S)
    train, size = config.train, config.train.micro_batch_size
    assert size != "auto", "resolved before"
    step = start(config)
    batches = Batches(corpus.train, config.data, config.model.block_size, train.batch_size, config.seed)
    seconds: list[float] = []
    while len(seconds) < WARM_UP + LEAST or (len(seconds) < enough and sum(seconds[WARM_UP:]) < enough_s):
        began = time.perf_counter()
        x, y = batches.batch(len(seconds))
        micro_batches = zip(x.split(size), y.split(size), strict=True)
        step(micro_batches, step=len(seconds), learning_rate=0.0).loss.item()
        seconds.append(time.perf_counter() - began)
    evaluation_s = 0.0
    validation = validation_set(corpus, config)
    if validation is not None:
        few = validation.first(4 * size)
        few.evaluate(step, size)  # compiles, where it must
        began = time.perf_counter()
        few.evaluate(step, size)
        evaluation_s = (time.perf_counter() - began) * validation.tokens / few.tokens
    device = step.device
    del step
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    measured = sorted(seconds[WARM_UP:])
    interval = None if train.eval_interval == "auto" else train.eval_interval
    return Pace(measured[len(measured) // 2], evaluation_s, len(measured), interval)


def estimate(config: Config, device: Device) -> float | None:
    """Seconds a step, roughly, from FLOPs and the device's peak; None where that is not known."""
    peak, vocab_size = device.peak(config.train.precision), config.model.vocab_size
    assert vocab_size != "auto", "resolved before"
    if not peak:
        return None
    per_token = flops.count(config.model, parameters.count(config.model, vocab_size)).per_token
    return per_token * config.train.batch_size * config.model.block_size / (USUAL_MFU * peak)
