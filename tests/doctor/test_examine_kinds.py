"""Trainings of other kinds than the next token's: honest ones are left alone, and their own faults are seen."""

from __future__ import annotations

import pytest
from kinds import FAULTS, HONEST, half

from ganeum.doctor.causes import causes
from ganeum.doctor.examine import examine

pytest.importorskip("transformers")


@pytest.mark.parametrize("name", HONEST)
def test_an_honest_training_of_another_kind_is_left_alone(name: str) -> None:
    """No alarm."""
    assert [] == [one.title for one in examine(HONEST[name]()) if one.is_alarm]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_another_kind_is_seen(name: str) -> None:
    """It is among the alarms, with evidence."""
    cause, build = FAULTS[name]
    found = [one for one in examine(build()) if one.is_alarm]
    assert cause in [one.cause for one in found]
    assert all(one.sure == "measured" and one.evidence and one.cause in causes() for one in found)


def test_what_rounding_swallows_has_its_size() -> None:
    """A rate at which next to no number of 16 bits moves."""
    [lost] = [one.size for one in examine(half(1e-7)) if one.cause == "pure_half"]
    assert lost is not None
    assert 0.95 < lost <= 1
