"""A sweep while it goes on: Optuna's next trials, hopeless trials ended early, and the best one named.

Nothing is kept beside the entries: what has been tried and what came of it is read from them and from their runs'
metrics each time, so a queue that was killed goes on with a sweep as with everything else.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ganeum.errors import ConfigError, GaneumError, MissingExtra, QueueError
from ganeum.queue import control
from ganeum.queue.enqueue import Wish, enqueue, wishes
from ganeum.queue.entry import ENDED, Entry
from ganeum.queue.progress import curve
from ganeum.queue.store import Store
from ganeum.queue.sweep import Axis, Trial, best, drawn, grid, named

OTHERS = 4  # trials that must have come as far before one is called hopeless
SAMPLERS = ("random", "optuna")
HOPELESS = "hopeless"


@dataclass(frozen=True)
class Spec:
    """What a sweep is.

    Attributes:
        along: its axes.
        trials: how many; None: every combination.
        sampler: `random`, or `optuna`: by its TPE sampler, from what earlier trials came to.
        at_once: trials of Optuna's that are under way at a time.
        stop_hopeless: by the median rule, see `hopeless`.
        stem: what the names of its runs begin with. config, overrides, section: what its trials share.
    """

    along: tuple[Axis, ...]
    trials: int | None = None
    sampler: str = "random"
    at_once: int = 1
    stop_hopeless: bool = False
    seed: int = 0
    stem: str = ""
    config: str = ""
    overrides: tuple[str, ...] = ()
    section: str | None = None

    @classmethod
    def of(cls, along: Sequence[Axis], **settings: Any) -> Spec:
        """Raises ConfigError where they do not go together."""
        spec = cls(tuple(along), **settings)
        if spec.sampler not in SAMPLERS:
            raise ConfigError(
                f"there is no sampler {spec.sampler}", where="--sampler", suggestion=" or ".join(SAMPLERS)
            )
        if spec.sampler == "optuna":
            _optuna()
            if spec.trials is None:
                raise ConfigError("Optuna is not told how many trials", where="--sampler", suggestion="--trials 20")
        return spec

    def plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Spec:
        """What `plain` gave."""
        along = tuple(Axis(**{**axis, "values": tuple(axis["values"])}) for axis in plain["along"])
        return cls(**{**plain, "along": along, "overrides": tuple(plain["overrides"])})


def begin(
    store: Store,
    path: str,
    overrides: Sequence[str],
    section: str | None,
    name: str | None,
    spec: Spec,
    like: Entry,
) -> list[Entry]:
    """Put a sweep's trials on the list: all of them, or of Optuna's as many as are to be under way at a time."""
    base = tuple(setting for setting in overrides if not setting.startswith("name="))
    stem = wishes([path], overrides, section, name)[0].load().name
    assert stem is not None, "load() gives every config a name"
    spec = replace(
        spec, stem=_free_stem(store, stem), config=str(Path(path).resolve()), overrides=base, section=section
    )
    like = replace(like, sweep=spec.stem, spec=spec.plain() if spec.stop_hopeless or spec.sampler == "optuna" else None)
    if spec.sampler == "optuna":
        return _next(store, spec, like, [])
    trials = drawn(spec.along, spec.trials, spec.seed) if spec.trials else grid(spec.along)
    return enqueue(store, [_wish(spec, n, trial) for n, trial in zip(named(stem, trials), trials, strict=True)], like)


def announced(added: Sequence[Entry]) -> list[str]:
    """What is worth saying of sweeps that were added."""
    specs = {entry.sweep: Spec.read(entry.spec) for entry in added if entry.spec is not None and entry.sweep}
    return [
        f"the sweep {stem} goes on by itself until it has had {spec.trials} trials, {spec.at_once} at a time"
        for stem, spec in specs.items()
        if spec.sampler == "optuna"
    ]


def tend(store: Store, say: Callable[[str], object]) -> None:
    """What sweeps that are under way need now: hopeless trials are ended, Optuna's next ones added."""
    sweeps: dict[str, list[Entry]] = {}
    for entry in store.all():
        if entry.sweep is not None and entry.spec is not None:
            sweeps.setdefault(entry.sweep, []).append(entry)
    for stem, entries in sweeps.items():
        if all(entry.state in ENDED for entry in entries) and not _wants_more(entries):
            continue
        try:
            _tend(store, entries, say)
        except GaneumError as error:
            say(f"the sweep {stem} cannot go on now: {error.what}")


def hopeless(curves: Mapping[int, Mapping[int, float]], id: int) -> str | None:
    """Why the trial `id` is not worth going on with; None where it may be.

    The median rule (Golovin et al. 2017, Google Vizier, 3.2.2; Optuna's MedianPruner): its best loss up to its newest
    evaluation is above the median of what the others had best by then. At least `OTHERS` others must have come as far,
    and it is never asked at a trial's first evaluation.

    Args:
        curves: step → validation loss, of every trial of the sweep by its entry's id.
    """
    own = curves[id]
    if len(own) < 2:
        return None
    step, loss = max(own), min(own.values())
    others = [min(v for s, v in c.items() if s <= step) for i, c in curves.items() if i != id and c and max(c) >= step]
    others = [other for other in others if math.isfinite(other)]
    if len(others) < OTHERS or not loss > statistics.median(others):
        return None
    return (
        f"{HOPELESS}: val loss {loss:.4f} at step {step:,}, and {statistics.median(others):.4f} in the middle of "
        f"{len(others)} others"
    )


def best_of(store: Store, entries: Sequence[Entry]) -> tuple[Entry, float] | None:
    """The trial with the lowest validation loss, and that loss; None where none has one."""
    losses = {str(entry.id): min(curve(store.run(entry)).values(), default=None) for entry in entries}
    found = best(losses)
    loss = None if found is None else losses[found]
    return None if found is None or loss is None else (next(e for e in entries if str(e.id) == found), loss)


def _tend(store: Store, entries: list[Entry], say: Callable[[str], object]) -> None:
    judged = [entry for entry in entries if (entry.spec or {}).get("stop_hopeless")]
    spec = replace(Spec.read(entries[0].spec or {}), stop_hopeless=bool(judged))
    curves = {entry.id: curve(store.run(entry)) for entry in entries}
    for entry in judged:
        if entry.state == "running" and not entry.wanted and (why := hopeless(curves, entry.id)):
            control.kill(store, entry, note=why)
            say(f"{control.called(entry)} is ended early, {why}")
    if spec.sampler == "optuna" and _wants_more(entries):
        for entry in _next(store, spec, entries[-1], entries):
            say(f"{control.called(entry)} is the next trial of {spec.stem}")


def _wants_more(entries: Collection[Entry]) -> bool:
    spec = Spec.read(next(iter(entries)).spec or {})
    under_way = sum(entry.state not in ENDED for entry in entries)
    return spec.sampler == "optuna" and len(entries) < (spec.trials or 0) and under_way < spec.at_once


def _next(store: Store, spec: Spec, like: Entry, before: Sequence[Entry]) -> list[Entry]:
    """Optuna's next trials, so that as many as wanted are under way."""
    under_way = sum(entry.state not in ENDED for entry in before)
    many = min(spec.at_once - under_way, (spec.trials or 0) - len(before))
    made: list[Entry] = []
    for _ in range(many):
        trial = suggested(store, spec, [*before, *made])
        number = len(before) + len(made) + 1
        name = f"{spec.stem}-{number:0{len(str(spec.trials))}d}"
        fresh = like if not before else _another(name, like, spec)
        try:
            made += enqueue(store, [_wish(spec, name, trial)], fresh)
        except QueueError:
            if any(entry.name == name for entry in store.all()):
                break  # another queue process was faster
            raise
    return made


def _another(name: str, like: Entry, spec: Spec) -> Entry:
    """A trial with what the earlier ones share; when the sweep was to begin is over."""
    return Entry(
        name=name,
        priority=like.priority,
        group=like.group,
        cwd=like.cwd,
        max_hours=like.max_hours,
        max_retries=like.max_retries,
        strict=like.strict,
        sweep=like.sweep,
        spec=spec.plain(),
    )


def suggested(store: Store, spec: Spec, before: Sequence[Entry]) -> Trial:
    """What Optuna's TPE sampler (Bergstra et al. 2011) tries next, knowing what came of the trials `before`."""
    optuna = _optuna()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=spec.seed + len(before), constant_liar=True)
    study = optuna.create_study(direction="minimize", sampler=sampler)
    distributions = {axis.key: _distribution(optuna, axis) for axis in spec.along}
    states = optuna.trial.TrialState
    for entry in before:
        values = curve(store.run(entry))
        values = {step: value for step, value in values.items() if math.isfinite(value)}
        ended, stopped = entry.state in ENDED, entry.note.startswith(HOPELESS)
        if ended and not values:
            state = states.FAIL
        else:
            state = states.RUNNING if not ended else states.PRUNED if stopped else states.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                state=state,
                value=min(values.values()) if state == states.COMPLETE else None,
                params={axis.key: _number(axis, (entry.trial or {})[axis.key]) for axis in spec.along},
                distributions=distributions,
                intermediate_values=values if state != states.FAIL else {},
            )
        )
    asked = study.ask(distributions)
    return {axis.key: _text(axis, asked.params[axis.key]) for axis in spec.along}


def _distribution(optuna: Any, axis: Axis) -> Any:
    kinds = optuna.distributions
    if axis.values:
        return kinds.CategoricalDistribution(axis.values)
    if axis.whole:
        return kinds.IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return kinds.FloatDistribution(axis.low, axis.high, log=axis.log)


def _number(axis: Axis, text: str) -> str | int | float:
    if axis.values:
        return text
    return int(text) if axis.whole else min(max(float(text), axis.low), axis.high)


def _text(axis: Axis, value: Any) -> str:
    return str(value) if axis.values or axis.whole else f"{value:.4g}"


def _wish(spec: Spec, name: str, trial: Trial) -> Wish:
    return Wish(spec.config, (*spec.overrides, f"name={name}"), spec.section, dict(trial))


def _free_stem(store: Store, stem: str) -> str:
    taken = {entry.sweep for entry in store.all()}
    number, free = 2, stem
    while free in taken:
        free, number = f"{stem}-{number}", number + 1
    return free


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingExtra(
            "trials by Optuna need the package optuna",
            where="--sampler optuna",
            suggestion="pip install 'ganeum[optuna]'",
        ) from None
    return optuna
