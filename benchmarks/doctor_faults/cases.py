"""What the campaign looks at: each fault alone, pairs, runs of ours, and trainings with nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from doctor_faults.catalogue import LATER, PAIRS
from doctor_faults.fault import FAULTS
from doctor_faults.own_runs import OWN_FAULTS
from doctor_faults.subjects import SUBJECTS

CLEAN = 40
HONEST: tuple[dict[str, Any], ...] = ({}, {"width": 48}, {"pieces": 2}, {"at_once": 16}, {"learning_rate": 3e-4})


@dataclass(frozen=True)
class Case:
    """One diagnosis: a training with some faults in, or a run of ours (``subject`` gpt or t5)."""

    subject: str
    faults: tuple[str, ...] = ()
    seed: int = 0
    honest: dict[str, Any] = field(default_factory=dict)
    own: bool = False

    @property
    def name(self) -> str:
        """Its key in the results."""
        said = "+".join(self.faults) or "clean"
        more = "".join(f",{key}={value}" for key, value in self.honest.items())
        return f"{'own ' if self.own else ''}{self.subject}:{said}#{self.seed}{more}"


def all_cases(every_subject: bool = False) -> Iterator[Case]:
    """Every fault alone on its first subject (or on all it can be done to), pairs, runs of ours, clean ones."""
    for name, fault in sorted(FAULTS.items(), key=lambda entry: entry[0] in LATER):
        for subject in fault.subjects if every_subject else fault.subjects[:1]:
            yield Case(subject, (name,))
    for pair, subject in PAIRS.items():
        yield Case(subject, pair)
    for name, fault in OWN_FAULTS.items():
        yield Case(fault.base, (name,), own=True)
    for number in range(CLEAN - 2):
        yield Case(SUBJECTS[number % 4], seed=number // 4, honest=HONEST[number // 4 % len(HONEST)])
    yield from (Case("gpt", own=True), Case("t5", own=True))
