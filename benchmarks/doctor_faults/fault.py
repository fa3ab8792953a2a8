"""A fault: what it does to a training, which answers name it, and what kind of harm it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from doctor_faults.subjects import Parts

Harm = Literal["speed", "memory", "learning"]
FAULTS: dict[str, Fault] = {}


@dataclass(frozen=True)
class Fault:
    """One thing done to a training from outside.

    Attributes:
        name: its own, which nobody else uses.
        kind: what people call it.
        harm: ``speed`` is compared with an A/B of its own; of ``memory`` and ``learning`` it only counts whether it is
            named.
        causes: of the doctor's catalogue; any of them is a right answer.
        subjects: those that it is done to, the first of them when it is alone.
        change: what it changes.
        environment: what it sets in the environment of all processes of that training.
        ground: what it needs besides, so that it counts; the A/B does it to both sides.
        beside: it is another process: ``burner`` computes on the same core all the time.
    """

    name: str
    kind: str
    harm: Harm
    causes: tuple[str, ...]
    subjects: tuple[str, ...]
    change: Callable[[Parts], None] = lambda parts: None
    environment: Mapping[str, str] = field(default_factory=dict)
    beside: str | None = None
    ground: Callable[[Parts], None] = lambda parts: None


def fault(
    kind: str,
    harm: Harm,
    causes: tuple[str, ...],
    subjects: tuple[str, ...],
    environment: Mapping[str, str] | None = None,
    beside: str | None = None,
    ground: Callable[[Parts], None] = lambda parts: None,
) -> Callable[[Callable[[Parts], None]], Callable[[Parts], None]]:
    """Enters a function as the fault of its name."""

    def enter(change: Callable[[Parts], None]) -> Callable[[Parts], None]:
        name = change.__name__
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, kind, harm, causes, subjects, change, environment or {}, beside, ground)
        return change

    return enter
