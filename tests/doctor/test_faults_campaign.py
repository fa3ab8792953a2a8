"""The campaign of benchmarks/doctor_faults.py: its faults are strangers to the doctor, and its verdicts are just."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from ganeum.doctor.causes import causes

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))

from doctor_faults.cases import CLEAN, Case, all_cases  # noqa: E402
from doctor_faults.catalogue import LATER  # noqa: E402
from doctor_faults.fault import FAULTS  # noqa: E402
from doctor_faults.own_runs import OWN_FAULTS  # noqa: E402
from doctor_faults.race import interval  # noqa: E402
from doctor_faults.subjects import SUBJECTS  # noqa: E402
from doctor_faults.table import counted, newest  # noqa: E402
from doctor_faults.verdict import judged, surplus  # noqa: E402


def test_no_name_of_a_fault_stands_in_the_doctors_code() -> None:
    """What the doctor finds it finds by what it does, not by what it is called."""
    sources = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src" / "ganeum").rglob("*.py"))
    assert [] == [name for name in [*FAULTS, *OWN_FAULTS] if name in sources]


def test_there_are_faults_enough_and_their_answers_are_causes_that_there_are() -> None:
    """Thirty kinds, ten pairs, forty trainings without a fault; no answer that the doctor could never give."""
    cases = list(all_cases())
    assert len({fault.kind for fault in FAULTS.values()}) >= 30
    assert len({FAULTS[name].kind for name in LATER}) >= 14
    assert sum(len(case.faults) == 2 for case in cases) >= 10
    assert sum(not case.faults for case in cases) == CLEAN == 40
    assert len({case.name for case in cases}) == len(cases)
    assert set() == {one for fault in FAULTS.values() for one in fault.causes} - set(causes())
    assert set() == {one for fault in OWN_FAULTS.values() for one in fault.causes} - set(causes())
    assert {subject for fault in FAULTS.values() for subject in fault.subjects} <= set(SUBJECTS)


def test_the_interval_of_a_median_is_that_of_the_sign_test() -> None:
    """Of 6 values the outermost two enclose the median with 1 - 2/64; of 20 the 6th from both ends (tables of the sign
    test: 5 of 20 are significant at 5 %, 6 are not)."""
    assert interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]) == (1.0, 6.0)
    assert interval([float(value) for value in range(1, 21)]) == (6.0, 15.0)


REPORT = {"facts": {"floor": 0.02}, "findings": []}
SLEPT = {"cause": "loader", "severity": "warning", "size": 1.5, "unit": "times"}


@pytest.mark.parametrize(
    ("said", "real", "low", "named", "due", "near"),
    [
        (1.5, 1.5, 1.45, True, True, True),
        (1.42, 1.5, 1.45, True, True, True),  # 30 % of the time for 33 %
        (1.33, 1.5, 1.45, True, True, False),  # 25 % for 33 %
        (3.3, 4.9, 4.8, True, True, False),  # 70 % for 80 %, and two thirds of the factor
        (1.03, 1.015, 1.01, True, False, True),  # within the floor
        (None, 1.5, 1.45, False, True, None),
        (None, 1.03, 1.0, False, False, None),
    ],
)
def test_a_verdict(said: float | None, real: float, low: float, named: bool, due: bool, near: bool | None) -> None:
    """Due above twice the floor; right within a fifth of the time that it costs, or within the floor."""
    findings = [] if said is None else [SLEPT | {"size": said}]
    case = Case("plain", ("drowsy_shelf",))
    verdict = judged(case, "drowsy_shelf", REPORT | {"findings": findings}, {"times": real, "low": low})
    assert (named, due, near) == (verdict["named"], verdict["due"], verdict.get("near"))


def test_shares_of_the_time_are_read_as_factors_and_notes_are_no_alarms() -> None:
    """A third of the time is 1.5 times; an alarm without a size is not near; a note neither names a fault nor is one
    too many."""
    case = Case("plain", ("drowsy_shelf",))
    third = SLEPT | {"size": 1 / 3, "unit": "share of the time"}
    verdict = judged(case, "drowsy_shelf", REPORT | {"findings": [third]}, {"times": 1.5, "low": 1.4})
    assert math.isclose(1.5, verdict["said"])
    unsized = judged(case, "drowsy_shelf", REPORT | {"findings": [SLEPT | {"size": None}]}, {"times": 1.5, "low": 1.4})
    assert (True, False) == (unsized["named"], unsized["near"])
    note = SLEPT | {"severity": "note"}
    assert not judged(case, "drowsy_shelf", REPORT | {"findings": [note]}, {"times": 1.5, "low": 1.4})["named"]
    other = {"cause": "padding", "severity": "warning", "size": None, "unit": ""}
    assert [other] == surplus(case, {"findings": [SLEPT, note, other, other | {"severity": "note"}]})


def line(case: Case, doctor: str = "1a2b3c4", **more: object) -> dict[str, Any]:
    """A result of the campaign, of a diagnosis that found nothing."""
    said = {"case": case.name, "subject": case.subject, "faults": list(case.faults), "seed": case.seed, "own": case.own}
    said |= {"honest": {}, "doctor": doctor, "failed": None, "others": 0.0, "verdicts": [], "surplus": []}
    return said | {"facts": {"noise": 0.01}} | more


def test_a_case_that_is_asked_again_counts_by_its_first_answer() -> None:
    """On one commit; a failed diagnosis may be run again, and a newer commit takes the place of an older."""
    clean, slow = Case("plain"), Case("plain", ("drowsy_shelf",))
    lines = [line(clean, at=1), line(slow, failed="killed", at=2), line(slow, at=3), line(clean, at=4)]
    assert [1, 3] == [one["at"] for one in newest(lines)]
    assert [5, 3] == [one["at"] for one in newest([*lines, line(clean, "5d6e7f8", at=5)])]


def test_a_diagnosis_that_failed_has_missed_and_was_not_silent() -> None:
    """It counts as due and missed with a fault in, and as an alarm without one; a fault that makes a training 1.1 times
    slower counts whatever floor the doctor saw."""
    missed = {"fault": "drowsy_shelf", "harm": "speed", "named": False, "due": True}
    within = missed | {"due": False, "true": 1.2, "low": 1.15}
    slow = Case("plain", ("drowsy_shelf",))
    found = counted(
        [
            line(slow, failed="took too long", verdicts=[missed]),
            line(slow, verdicts=[within]),
            line(Case("plain"), failed="took too long"),
            line(Case("windows")),
        ]
    )
    assert (1, 0, 1, 0) == tuple(found[key] for key in ("due", "due_and_named", "large", "large_and_named"))
    assert (2, ["plain:clean#0"]) == (found["clean"], found["clean_with_alarm"])
