"""What each lever would make of a step's peak: by the closed form at once, by a trace of the changed step given
time. Loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ganeum.config import Config
from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.hardware.device import Device
from ganeum.plan import levers, micro_batch
from ganeum.units import GIB

if TYPE_CHECKING:
    from ganeum.plan.trace.child import Child
    from ganeum.plan.trace.exact import Exact

# What the closed form tells apart, as a trace does.
GROUPS = {
    "attention": "activations",
    "mlp": "activations",
    "norms": "activations",
    "embedding": "activations",
    "copies": "activations",
    "update": "workspace",
    "cache": "other",
}
SAVES = 0.02  # of what is needed: levers that save less are not told


@dataclass(frozen=True)
class Lever:
    """What one types, what it would save of the whole (GiB), what it costs.

    Attributes:
        part: what of the peak falls most by it.
        fits: whether even the upper bound of what is needed then is there.
        traced: whether the changed step was traced; else it is the closed form's, up to a quarter off.
    """

    settings: Mapping[str, Any]
    saves: float
    cost: str
    part: str
    fits: bool
    traced: bool = False

    def sentence(self) -> str:
        """``train.loss_chunk=128 saves 1.54 GiB (the same result, a little slower)``."""
        typed = " ".join(f"{key}={str(value).lower()}" for key, value in self.settings.items())
        return f"{typed} saves {'' if self.traced else 'about '}{self.saves:.2f} GiB ({self.cost})"

    def as_dict(self) -> dict[str, Any]:
        """For ``doctor.json``."""
        return {
            "settings": dict(self.settings),
            "saves_gib": self.saves,
            "cost": self.cost,
            "part": self.part,
            "fits": self.fits,
            "traced": self.traced,
        }


def by_closed_form(config: Config, device: Device) -> list[Lever]:
    """The same sequences at once but for the lever that halves them; the most first.

    Args:
        config: every choice made.
    """
    size = config.train.micro_batch_size
    assert size != "auto", "settled before"
    now = micro_batch.needed(config, device, size)
    ways = [({key: value}, cost, size) for key, value, cost in levers.keeping(config, device)]
    halves = [half for half in divisors(size) if half < size]
    if halves:
        ways.append(({"train.micro_batch_size": halves[-1]}, "the same result; more and smaller passes", halves[-1]))
    found = []
    for settings, cost, at_once in ways:
        try:
            then = micro_batch.needed(change(config, settings), device, at_once)
        except ValueError:  # keys that do not go together
            continue
        saves = (now.total - then.total) / GIB
        if saves >= SAVES * now.total / GIB:
            part = _most_fallen(_grouped(now.parts), _grouped(then.parts))
            found.append(Lever(settings, saves, cost, part, then.fits(device)))
    return sorted(found, key=lambda lever: -lever.saves)


def traced(child: Child, config: Config, device: Device, ways: Sequence[Lever]) -> list[Lever]:
    """Each of ``ways`` by a trace of the step that it makes, beside a trace of the step as it is, both uncompiled and
    with an evaluation and a sample where these can be traced; those for which there is no time, or no trace, stay as
    they are.

    Args:
        child: what it has traced already takes no time again.
        ways: those with the most to save first.
    """
    from ganeum.plan import execution
    from ganeum.plan.trace import exact
    from ganeum.plan.trace.child import NotTraced, OutOfTime
    from ganeum.plan.trace.learnt import correction

    size = config.train.micro_batch_size
    assert size != "auto", "settled before"
    gib = (correction(device.name).factor if device.kind == "cuda" else 1.0) / GIB

    def step(settings: Mapping[str, Any], *, between: bool = True) -> Exact:
        changed = change(config, settings)
        at_once = settings.get("train.micro_batch_size", size)
        way = execution.of(changed, device, at_once)
        together = max(1, size * execution.of(config, device, size).accumulation // at_once)
        return exact.of(child, changed, device, replace(way, compiled=False, accumulation=together), between=between)

    found = list(ways)
    try:
        now = step({})
        between = len(now.trace.steps) > 2
        for at, lever in enumerate(ways):
            try:
                then = step(lever.settings, between=between)
            except OutOfTime:
                break
            except (NotTraced, ValueError):
                continue
            if len(then.trace.steps) != len(now.trace.steps):  # steps alone are no twin of steps with an evaluation
                continue
            saves = (_bytes(now) - _bytes(then)) * gib
            part = _most_fallen(now.replayed.by_kind, then.replayed.by_kind)
            found[at] = replace(lever, saves=saves, part=part, fits=then.fits, traced=True)
    except NotTraced:
        pass
    needed = micro_batch.needed(config, device, size).total / GIB
    return sorted((lever for lever in found if lever.saves >= SAVES * needed), key=lambda lever: -lever.saves)


def _bytes(found: Exact) -> int:
    return found.replayed.peak_reserved or found.replayed.peak_allocated


def _grouped(parts: Mapping[str, float]) -> Counter[str]:
    grouped: Counter[str] = Counter()
    for name, size in parts.items():
        grouped[GROUPS.get(name, name)] += round(size)
    return grouped


def _most_fallen(now: Mapping[Any, int], then: Mapping[Any, int]) -> str:
    """The part that falls most."""
    return str(max({**now, **then}, key=lambda name: now.get(name, 0) - then.get(name, 0)))
