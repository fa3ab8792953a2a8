"""What a run of ours does beside its steps: evaluations, checkpoints, texts, logging, each measured and weighed."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from itertools import chain, count, repeat
from pathlib import Path
from statistics import fmean, median
from typing import Any, TypeAlias

from ganeum import record, units
from ganeum.config import Config
from ganeum.doctor.finding import Finding
from ganeum.doctor.measured import cores
from ganeum.doctor.measured.contest import MOST_AT_ONCE
from ganeum.doctor.measured.often import Periodic
from ganeum.doctor.measured.ours import Ours, training
from ganeum.models.kernels import mode_kept
from ganeum.record import MetricsLog, RunDirectory
from ganeum.train import checkpoint, randomness, samples
from ganeum.train.console import Console
from ganeum.train.settled import Settled

LEAST, MOST = 3, 25  # times that each is done
MOST_STEPS = 40
MUCH, LITTLE = 0.05, 0.01  # of the time: what calls for a change, and what a change leaves


@dataclass(frozen=True)
class Work:
    """One kind of it.

    Attributes:
        name: in the plural.
        key: of the config, that says how often it is done.
        interval: steps between two of them.
        seconds: of each time that it was done, in rising order.
        part: what was measured is so much of it, and the seconds are for the whole.
        tokens: held out, of an evaluation.
        kept_s: of the checkpoint that an evaluation leads to which is better than all before, where none is due anyway.
    """

    name: str
    key: str
    interval: int
    seconds: tuple[float, ...]
    part: float = 1.0
    tokens: int = 0
    kept_s: float = 0.0

    @property
    def usual(self) -> float:
        """The median; while a run learns, each evaluation is better than all before."""
        return self.seconds[len(self.seconds) // 2] + self.kept_s


@mode_kept()
def measure(config: Config, step_s: float, limit_s: float) -> list[Finding]:
    """Does each at least three times, and spreads it over its interval.

    Args:
        config: of a run; what is decided already stays so.
        step_s: seconds of a step as the run is.
        limit_s: seconds for all of it; of a long evaluation then a part is measured.
    """
    ours = training(config)
    assert ours.config is not None
    found = works(ours, 0.8 * limit_s, step_s)
    return weighed(found, ours.config, stepping(ours, step_s, 0.2 * limit_s))


def stepping(ours: Ours, about_s: float, limit_s: float) -> float:
    """Seconds of a step, by the clock that all the rest is measured with; some steps, since batches are unlike.

    Args:
        about_s: what it will be.
        limit_s: seconds for all of them, but for the fewest.
    """
    count = max(LEAST, min(MOST_STEPS, int(limit_s / about_s)))
    batches = chain.from_iterable(repeat(ours.batches))
    return fmean(_own([_clocked(lambda: ours.step(next(batches)).item()) for _ in range(count)]))


def works(ours: Ours, limit_s: float, step_s: float = 0.0) -> list[Work]:
    """All that the run does at intervals, measured on the run's own disk; nothing of it is left there.

    A step comes before each, as in the run, where there is time for steps of ``step_s``: it finds the caches full of a
    step's numbers.
    """
    config, step = ours.config, ours.taking
    assert config is not None
    assert step is not None
    assert ours.material is not None
    every, found = Settled.of(config), []
    batches = chain.from_iterable(repeat(ours.batches))
    loss, number, share = ours.step(next(batches)), count(1), limit_s / 4
    has_room = 2 * LEAST * step_s < share

    def timed(work: Callable[[int], Any]) -> tuple[float, ...]:
        return _timed(
            lambda: work(next(number)), (lambda: ours.step(next(batches))) if has_room else lambda: None, share
        )

    with (
        _place() as run,
        MetricsLog(run.metrics_path) as metrics,
        Console(run.console_path, every.max_iters, StringIO()) as console,
    ):

        def save(at: int, best: int | None = None) -> None:
            metrics.flush()
            state = {"step": step.state_dict(), "random": randomness.state()}
            # Of many one goes with each that comes; here that begins with the second.
            checkpoint.save(run, at, step.weights(), state, keep_last=1, best_step=best)

        validation = ours.material.validation(config)
        evaluated = validation is not None and every.eval_interval <= every.max_iters
        if validation is not None and evaluated:
            few = validation.first(4 * every.eval_batch_size)
            first = _clocked(lambda: few.evaluate(step, every.eval_batch_size))[0]  # it warms up
            some = validation if LEAST * first * validation.tokens / few.tokens <= share else few
            part = some.tokens / validation.tokens
            seconds = timed(lambda _: some.evaluate(step, every.eval_batch_size))
            kept = timed(lambda at: save(at, best=at)) if every.eval_interval % every.checkpoint_interval else (0.0,)
            each = tuple(s / part for s in seconds)
            found.append(
                Work(
                    "evaluations",
                    "train.eval_interval",
                    every.eval_interval,
                    each,
                    part,
                    validation.tokens,
                    kept_s=median(kept),
                )
            )
        if every.checkpoint_interval <= every.max_iters:
            found.append(Work("checkpoints", "train.checkpoint_interval", every.checkpoint_interval, timed(save)))
        if ours.tokenizer is not None and 0 < every.sample_interval <= every.max_iters:
            model, tokenizer = step.model, ours.tokenizer
            references = ours.material.references(config.sample.num_samples)

            def write(at: int) -> None:
                step.inside(lambda: samples.write(run, at, model, tokenizer, config, references))

            found.append(Work("texts", "sample.interval", every.sample_interval, timed(write)))

        def log(_: int) -> None:
            line = {"step": 1, "tokens_seen": 1, "loss": loss.item(), "learning_rate": 0.0, "grad_norm": 0.0}
            line |= {"elapsed_s": 0.0, "step_time_s": 1.0, "tokens_per_second": 1.0, "mfu": None, "data_s": 0.0}
            line |= dict.fromkeys(("forward_s", "backward_s", "optimizer_s", "other_s"), 0.0)
            line |= {"memory_allocated_gib": 0.0, "memory_reserved_gib": None}
            metrics.write(line)
            console.interval(line, 1.0)

        found.append(Work("logging", "log.interval", every.log_interval, timed(log)))
    return found


@contextmanager
def _place() -> Iterator[RunDirectory]:
    """A run directory on the disk that runs are written to, which is gone afterwards."""
    results = record.results_dir()
    there = next((path for path in (results, *results.absolute().parents) if path.is_dir()), Path.cwd())
    parent = there if os.access(there, os.W_OK) else None
    path = Path(tempfile.mkdtemp(prefix=".doctor-", dir=parent))
    run = RunDirectory(path)
    try:
        for directory in (run.logs_dir, run.samples_dir, run.checkpoints_dir):
            directory.mkdir()
        yield run
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _timed(work: Callable[[], Any], before: Callable[[], Any], limit_s: float) -> tuple[float, ...]:
    """Seconds of each of ``LEAST`` times, and of more while there is time, in rising order; ``before`` comes before
    each and does not count."""
    clocked: list[Clocked] = []
    end = time.perf_counter() + limit_s
    while len(clocked) < LEAST or (len(clocked) < MOST and time.perf_counter() + max(s for s, *_ in clocked) < end):
        before()
        clocked.append(_clocked(work))
    return tuple(sorted(_own(clocked)))


Clocked: TypeAlias = tuple[
    float, float, float
]  # seconds; those of them kept from a core; those computed by all threads


def _clocked(work: Callable[[], Any]) -> Clocked:
    computed, waited, began = time.process_time(), cores.waited(), time.perf_counter()
    work()
    seconds, computed = time.perf_counter() - began, time.process_time() - computed
    return seconds, cores.difference(waited, cores.waited()) or 0.0, computed


def _own(clocked: Sequence[Clocked]) -> list[float]:
    """Seconds of each; where one thread computes, without those that other programs kept it from its core."""
    alone = sum(computed for *_, computed in clocked) < MOST_AT_ONCE * sum(s - kept for s, kept, _ in clocked)
    return [max(s - kept, computed) if alone else s for s, kept, computed in clocked]


def weighed(found: Sequence[Work], config: Config, step_s: float) -> list[Finding]:
    """What each takes of the run's time: a finding of its own from a hundredth on, the rest together.

    A step's share of an evaluation is its seconds over its interval; shares are of all the time that a step and its
    shares of everything take.
    """
    extra = {work.name: work.usual / work.interval for work in found}
    total = step_s + sum(extra.values())
    findings: list[Finding] = []
    small: list[Work] = []
    for work in found:
        if extra[work.name] / total < LITTLE:
            small.append(work)
            continue
        rest = total - extra[work.name]
        ends = work.seconds[0], work.seconds[-1] + work.kept_s
        low, high = (s / work.interval / (rest + s / work.interval) for s in ends)
        share = extra[work.name] / total
        change, keys = _mended(work, config, rest)
        findings.append(
            Periodic(
                cause="too_often",
                title=f"{work.name} take {share:.1%} of the time"
                if work.name != "logging"
                else f"logging takes {share:.1%} of the time",
                evidence=(
                    f"{units.duration(work.usual - work.kept_s)} each, measured {len(work.seconds)} times"
                    + (f" on {work.part:.1%} of it" if work.part < 1 else ""),
                    *(
                        [f"a checkpoint of {units.duration(work.kept_s)} with each that is better than all before"]
                        if work.kept_s
                        else []
                    ),
                    f"every {work.interval:,} steps of {units.duration(step_s)}",
                ),
                change=change,
                severity="warning" if share >= MUCH else "note",
                sure="measured",
                size=share,
                interval=(low, high),
                unit="share of the time",
                where=work.key,
                keys=keys if share >= MUCH else (),
            )
        )
    if small:
        share = sum(extra[work.name] for work in small) / total
        names = " and ".join(work.name for work in small)
        findings.append(
            Finding(
                cause="too_often",
                title=f"{names}: {share:.2%} of the time together",
                evidence=tuple(
                    f"{work.name}: {units.duration(work.usual)} each, every {work.interval:,} steps" for work in small
                ),
                severity="note",
                sure="measured",
                size=share,
                unit="share of the time",
            )
        )
    return findings


def _mended(work: Work, config: Config, rest_s: float) -> tuple[str, tuple[tuple[str, Any], ...]]:
    """The interval with which it takes a hundredth; where the run is too short for it, what else there is."""
    wanted = _round_up(work.usual * (1 - LITTLE) / LITTLE / rest_s)
    length = config.train.max_iters or wanted
    tenth = length // 10  # what "auto" says
    if work.name == "evaluations" and wanted > length // 2 and work.interval < tenth and config.train.patience is None:
        wanted = tenth
    elif work.name == "evaluations" and (wanted > length // 2 or config.train.patience is not None):
        fewer = f"train.eval_tokens={_round_up(work.tokens / 8)}"
        return f"{fewer}, or train.eval_interval larger: the run has {length:,} steps", ()
    at_least = min(wanted, length)
    if work.name == "checkpoints":
        lost = units.duration(at_least * rest_s)
        return f"{work.key}={at_least}: a crash then loses {lost} at most", ((work.key, at_least),)
    return f"{work.key}={at_least}", ((work.key, at_least),)


def _round_up(steps: float) -> int:
    """To two digits: 1,234 → 1,300."""
    digits = 10 ** max(0, math.floor(math.log10(max(steps, 1))) - 1)
    return int(max(1, math.ceil(steps / digits) * digits))
