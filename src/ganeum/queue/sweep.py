"""Many runs from one config: each combination of some keys' values, or a number of them drawn by chance."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ganeum.config.checks import name_error
from ganeum.config.keys import Key, keys, matching
from ganeum.config.load import fit, typed
from ganeum.config.source import Place
from ganeum.errors import ConfigError, GaneumError, Several

MOST = 10_000  # trials in one go: a slip of the keyboard, beyond that
Trial = dict[str, str]  # dotted key → its value as it is typed


@dataclass(frozen=True)
class Axis:
    """One key and what it may be: `values`, or anything from `low` to `high`.

    Attributes:
        key: its dotted name.
        values: as they were typed; empty for a range.
        log: a range whose logarithm is drawn evenly, so that 1e-5 to 1e-4 is as likely as 1e-4 to 1e-3.
        whole: a range of whole numbers, both ends within.
    """

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def is_range(self) -> bool:
        return not self.values

    def at(self, share: float) -> str:
        """The value that lies at `share` (0 to 1, 1 not within) of the axis."""
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.whole and not self.log:
            return str(int(self.low) + int(share * (self.high - self.low + 1)))
        value = (
            math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low)))
            if self.log
            else self.low + share * (self.high - self.low)
        )
        return str(round(value)) if self.whole else f"{value:.4g}"


def axes(texts: Iterable[str]) -> list[Axis]:
    """What `--sweep` says, once for each time it is given: `KEY=1e-4,3e-4` or `KEY=1e-5..1e-2:log`.

    Raises:
        ConfigError, Several: a key or a value is wrong; all of them at once.
    """
    found: dict[str, Axis] = {}
    errors: list[GaneumError] = []
    for text in texts:
        try:
            axis = _axis(text)
            if axis.key in found:
                raise ConfigError(f"{axis.key} is swept twice", where=f"--sweep {text}")
            found[axis.key] = axis
        except GaneumError as error:
            errors += error.errors if isinstance(error, Several) else [error]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise Several(errors)
    return list(found.values())


def grid(along: Sequence[Axis]) -> list[Trial]:
    """Every combination; the last axis moves fastest.

    Raises:
        ConfigError: a range has no end of values, or there are too many combinations.

    >>> grid([Axis("seed", ("1", "2")), Axis("model.n_layer", ("4",))])
    [{'seed': '1', 'model.n_layer': '4'}, {'seed': '2', 'model.n_layer': '4'}]
    """
    for axis in along:
        if axis.is_range:
            raise ConfigError(
                f"{axis.key} has no list of values to go through",
                where="--sweep",
                why=f"it is a range from {axis.low:g} to {axis.high:g}",
                suggestion=f"--trials 20, which draws so many of them; or {axis.key}={axis.at(0)},{axis.at(0.5)}",
            )
    many = math.prod(len(axis.values) for axis in along)
    if many > MOST:
        raise ConfigError(
            f"the sweep has {many:,} combinations",
            where="--sweep",
            suggestion="--trials 100, which draws so many of them by chance",
        )
    names = [axis.key for axis in along]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in along))]


def drawn(along: Sequence[Axis], trials: int, seed: int) -> list[Trial]:
    """`trials` combinations by chance, no two alike; fewer where there are no more. The same seed draws the same.

    Each axis is cut into as many strips as there are trials and each strip drawn from once (a Latin hypercube: McKay,
    Beckman and Conover 1979), so that few trials still reach from end to end.

    Raises:
        ConfigError: there are too many.
    """
    if trials > MOST:
        raise ConfigError(f"{trials:,} trials are too many", where="--trials", suggestion=f"at most {MOST:,}")
    chance = random.Random(seed)
    found: dict[tuple[str, ...], Trial] = {}
    for _ in range(20):  # where values repeat, more are drawn in their place
        strips = [chance.sample(range(trials), trials) for _ in along]
        for places in zip(*strips, strict=True):
            trial = {
                axis.key: axis.at((place + chance.random()) / trials) for axis, place in zip(along, places, strict=True)
            }
            found.setdefault(tuple(trial.values()), trial)
        if len(found) >= trials:
            break
    return list(found.values())[:trials]


def named(name: str, trials: Sequence[Trial]) -> list[str]:
    """A run's name for each trial: `NAME-learning_rate-3e-4`; numbers where that is no name, too long or not unique."""
    names = [
        "-".join([name, *(f"{key.rpartition('.')[2]}-{_plain(value)}" for key, value in t.items())]) for t in trials
    ]
    if len(set(names)) == len(names) and all(len(each) <= 80 and name_error(each) is None for each in names):
        return names
    digits = len(str(len(trials)))
    return [f"{name}-{number:0{digits}d}" for number in range(1, len(trials) + 1)]


def best(scored: Mapping[str, float | None]) -> str | None:
    """The name whose loss is lowest; None where none has one."""
    losses = {name: loss for name, loss in scored.items() if loss is not None and math.isfinite(loss)}
    return min(losses, key=lambda name: losses[name], default=None)


def _plain(value: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", value).strip("_") or "none"


def _axis(text: str) -> Axis:
    name, equals, values = text.partition("=")
    found = matching(name.strip())
    where = f"--sweep {text}"
    if not equals or not values.strip():
        raise ConfigError("a sweep must read KEY=VALUE,VALUE", where=where, suggestion="train.learning_rate=1e-4,3e-4")
    if found == ["name"]:
        raise ConfigError(
            "a sweep gives each of its runs a name by what it sweeps",
            where=where,
            suggestion=f"--name {values.partition(',')[0].strip()}, which the names begin with",
        )
    if len(found) != 1:
        from ganeum.config.names import instead_of

        raise ConfigError(
            f"{name} could be {' or '.join(found)}" if len(found) > 1 else f"there is no key {name} to sweep",
            where=where,
            suggestion=" or ".join(f"{key}={values}" for key in found) if len(found) > 1 else instead_of(name),
        )
    key = keys()[found[0]]
    if "..." not in values and re.fullmatch(r"[^,]*[^.,]\.\.[^.,][^,]*", values):
        return _range(key, values, where)
    each = tuple(dict.fromkeys(value.strip() for value in values.split(",")))
    for value in each:
        fit(key, typed(value, Place(argument=f"{key.name}={value}")))
    return Axis(key.name, each)


def _range(key: Key, text: str, where: str) -> Axis:
    bounds, colon, how = text.partition(":")
    try:
        low, high = (float(bound) for bound in bounds.split(".."))
    except ValueError:
        raise ConfigError(f"{text} is no range", where=where, suggestion=f"{key.name}=1e-5..1e-2:log") from None
    if not key.takes & {"integer", "number"}:
        raise ConfigError(f"{key.name} must be {key.kind}, and a range is of numbers", where=where)
    if (
        not (math.isfinite(low) and math.isfinite(high) and low < high)
        or (colon and how != "log")
        or (colon and low <= 0)
    ):
        raise ConfigError(
            f"{text} is no range",
            where=where,
            why="it reads LOW..HIGH or LOW..HIGH:log, the lower end first, and above zero for the logarithm",
            suggestion=f"{key.name}=1e-5..1e-2:log",
        )
    whole = "number" not in key.takes
    axis = Axis(key.name, low=low, high=high, log=bool(colon), whole=whole)
    for end in (low, high):
        value = str(round(end)) if whole and end == round(end) else f"{end:g}"
        fit(key, typed(value, Place(argument=f"{key.name}={value}")))
    return axis
