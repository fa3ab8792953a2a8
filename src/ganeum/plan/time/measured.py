"""The time of a step from what this machine was measured to take for each kind of work in it."""

from __future__ import annotations

from collections.abc import Iterable

from ganeum.hardware.rates import Rates
from ganeum.plan.time.loads import PART, Load


def seconds(loads: Iterable[Load], rates: Rates) -> dict[str, float] | None:
    """Seconds of a step by part; None where a module of it was not measured (another precision, another kernel)."""
    found: dict[str, float] = {}
    for load in loads:
        measured = rates.seconds.get(load.group)
        if measured is None:
            return None
        for kind, amount in load.amounts.items():
            part = load.part or PART[kind]
            found[part] = found.get(part, 0.0) + load.times * amount * measured.get(kind, 0.0)
    return found


def flops(loads: Iterable[Load]) -> float:
    """Of all matrix products in a step, those of attention and of what is computed again with them."""
    return sum(
        load.times
        * (load.amounts.get("flops", 0.0) + load.amounts.get("square flops", 0.0))
        * (2 if load.group.endswith("backward") else 1)
        for load in loads
    )
