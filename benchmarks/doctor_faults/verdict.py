"""What the doctor said beside what is so."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from doctor_faults.cases import Case
from doctor_faults.fault import FAULTS
from doctor_faults.own_runs import OWN_FAULTS

NEAR = 0.2  # of the truth
DISTURBED = 0.05  # of the time: what other programs had of the core


def known(case: Case, name: str) -> Any:
    """The fault of that name."""
    return OWN_FAULTS[name] if case.own else FAULTS[name]


def times(finding: Mapping[str, Any]) -> float | None:
    """A finding's size as the factor by which it makes a training slower."""
    size, unit = finding.get("size"), finding.get("unit") or ""
    if size is None:
        return None
    if unit.startswith("times"):
        return float(size)
    if unit.startswith("share") and size < 1:
        return 1 / (1 - float(size))
    return None


def named(case: Case, name: str, findings: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The alarms that name a fault, largest first; a tiny micro-batch is a note with its size, since what takes it away
    changes what is learnt."""
    causes = known(case, name).causes
    right = [
        one
        for one in findings
        if one["cause"] in causes
        and (one["severity"] != "note" or (one["cause"] == "small_micro_batch" and one["size"] is not None))
    ]
    return sorted(right, key=lambda one: -(times(one) or 0.0))


def judged(case: Case, name: str, report: Mapping[str, Any], truth: Mapping[str, float] | None) -> dict[str, Any]:
    """One fault of a case: whether it had to be named, was, and with what size.

    ``due``: its true size is above twice the noise floor of that diagnosis, with its whole interval above the floor.
    ``near``: the size attributed is within 20 % of the true one, both as a share of the time and as a factor (for large
    faults the share hardly differs where the factor does), or the share is within the floor of the true one. An alarm
    without a size is not near. ``cause``: what the alarm calls it.
    """
    fault, answers = known(case, name), named(case, name, report["findings"])
    facts = report["facts"]
    floor = float(facts.get("floor") or 0.01)
    said = times(answers[0]) if answers else None
    verdict: dict[str, Any] = {"fault": name, "harm": fault.harm, "named": bool(answers), "said": said, "floor": floor}
    verdict["cause"] = answers[0]["cause"] if answers else None
    if fault.harm != "speed":
        return verdict | {"due": True}
    if truth is None:
        return verdict | {"due": None}
    real = truth["times"]
    verdict |= {"true": real, "low": truth["low"], "due": math.log(real) > 2 * floor and math.log(truth["low"]) > floor}
    if answers and real > 1:
        verdict["near"] = bool(said) and near(said, real, floor)
        if said:
            verdict["off"] = (1 - 1 / said) / (1 - 1 / real) - 1
    return verdict


def near(said: float, real: float, floor: float) -> bool:
    """Whether a factor said is near the real one; both above 0."""
    cost, attributed = 1 - 1 / real, 1 - 1 / said
    alike = abs(attributed - cost) <= NEAR * cost and abs(said / real - 1) <= NEAR
    return alike or abs(attributed - cost) <= floor


def surplus(case: Case, report: Mapping[str, Any], others: float = 0.0) -> list[Mapping[str, Any]]:
    """Alarms that name none of a case's faults; ``others``: the share of the time for which the core was seen to
    compute for other programs, whose alarm is right where that is much."""
    right = {cause for name in case.faults for cause in known(case, name).causes}
    right |= {"other_processes"} if others > DISTURBED else set()
    return [one for one in report["findings"] if one["severity"] != "note" and one["cause"] not in right]
