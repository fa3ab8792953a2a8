"""Some steps in a row, as a line of a log has them, and several such lines as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from typing import Any

PARTS = ("data", "forward", "backward", "optimizer", "other")
LEFT = 16  # stretches that are left at least where several become one


@dataclass(frozen=True)
class Stretch:
    """Some steps in a row: ``step``: the last of them; ``seconds`` and ``tokens`` (padding not counted; None: not said)
    of one step, ``parts`` of one, by name; ``padding``: share of what is computed; ``cpu_s``: processor seconds of one;
    ``waited``: seconds of one without a core; ``others``: share of the machine's processors that other programs had."""

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
        """Seconds of a token: of the whole step, of a part of it, or ``cpu``, of processors."""
        seconds = self.per_step(name)
        return None if seconds is None or not self.tokens else seconds / self.tokens

    def per_step(self, name: str | None = None) -> float | None:
        """The same of a step."""
        return self.seconds if name is None else self.cpu_s if name == "cpu" else self.parts.get(name)


def of_lines(lines: Sequence[Mapping[str, Any]], starts: Sequence[int]) -> list[Stretch]:
    """Of metrics of ours, where a line stands for the steps since the line before it; without those that hold the first
    step of a start, which compiles and warms up."""
    return [one for one in _each(lines) if not any(one.step - one.steps <= start < one.step for start in starts)]


def _each(lines: Sequence[Mapping[str, Any]]) -> Iterator[Stretch]:
    step, seen = 0, 0.0
    others = next((share for line in lines if (share := number(line.get("cpu_others"))) is not None), None)
    for line in lines:
        if (share := number(line.get("cpu_others"))) is not None:
            others = share
        seconds, tokens = number(line.get("step_time_s")), number(line.get("tokens_seen"))
        steps = line["step"] - step
        if steps > 0 and seconds:
            each = (tokens - seen) / steps if tokens is not None and tokens > seen else None
            parts = {name: value for name in PARTS if (value := number(line.get(f"{name}_s"))) is not None}
            padding, cpu_s, waited = (number(line.get(name)) for name in ("padding", "cpu_s", "cpu_wait_s"))
            yield Stretch(line["step"], steps, seconds, each, parts, padding, cpu_s, waited, others)
        step, seen = line["step"], tokens if tokens is not None else seen


def alike(ours: Sequence[Stretch], theirs: Sequence[Stretch]) -> tuple[tuple[Stretch, ...], tuple[Stretch, ...]]:
    """Both with about as many steps in a stretch: those of the run that was logged more often are put together.

    A median of single steps has nothing of a slow one now and then, a median of means over fifty has: two equal runs
    would seem unlike. ``LEFT`` stretches stay at least.
    """
    usual = [median(one.steps for one in some) for some in (ours, theirs)]
    return _together(ours, round(usual[1] / usual[0])), _together(theirs, round(usual[0] / usual[1]))


def _together(some: Sequence[Stretch], count: int) -> tuple[Stretch, ...]:
    count = max(1, min(count, len(some) // LEFT))
    return tuple(some) if count == 1 else tuple(_one(some[at : at + count]) for at in range(0, len(some), count))


def _one(some: Sequence[Stretch]) -> Stretch:
    """Their mean step."""
    names = set.intersection(*(set(one.parts) for one in some))
    seconds = _mean(some, lambda one: one.seconds)
    assert seconds is not None
    return Stretch(
        some[-1].step,
        sum(one.steps for one in some),
        seconds,
        _mean(some, lambda one: one.tokens),
        {name: sum(one.parts[name] * one.steps for one in some) / sum(one.steps for one in some) for name in names},
        _mean(some, lambda one: one.padding),
        _mean(some, lambda one: one.cpu_s),
        _mean(some, lambda one: one.waited),
        _mean(some, lambda one: one.others),
    )


def _mean(some: Sequence[Stretch], value: Callable[[Stretch], float | None]) -> float | None:
    """None: one of them does not say it."""
    values = [told for one in some if (told := value(one)) is not None]
    if len(values) < len(some):
        return None
    return sum(told * one.steps for told, one in zip(values, some, strict=True)) / sum(one.steps for one in some)


def number(value: Any) -> float | None:
    """None: it is none, or no finite one."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    return float(value) if good else None
