"""What a busy machine did to a step, by clocks that the tests turn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ganeum.train import processor
from ganeum.train.processor import Company


class Clocks:
    """A machine of two processors: `pass_` lets time go by."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.own = self.waited = 0.0
        self.times = {
            "user": 100.0,
            "nice": 5.0,
            "system": 7.0,
            "idle": 900.0,
            "iowait": 3.0,
            "steal": 0.0,
            "guest": 50.0,
        }
        machine = SimpleNamespace(_asdict=lambda: dict(self.times))
        patch.setattr(processor.psutil, "cpu_times", lambda: machine)
        patch.setattr(processor.time, "process_time", lambda: self.own)
        patch.setattr(processor, "_waited", lambda: self.waited)

    def pass_(self, seconds: float, own: float, others: float, waited: float = 0.0) -> None:
        self.own += own
        self.waited += waited
        self.times["user"] += own
        self.times["nice"] += others
        self.times["guest"] += others  # is in the others already
        self.times["idle"] += 2 * seconds - own - others


def test_a_neighbour_and_what_it_takes_are_told_apart_from_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of 1 s on one core, a neighbour on three quarters of another, and half a second without a core."""
    clocks = Clocks(monkeypatch)
    company = Company()
    clocks.pass_(2.0, own=1.5, others=1.5, waited=0.5)
    assert {"cpu_s": 0.75, "cpu_wait_s": 0.25, "cpu_others": pytest.approx(1.5 / 4)} == company.read(2)
    clocks.pass_(1.0, own=1.0, others=0.0)
    assert {"cpu_s": 1.0, "cpu_wait_s": 0.0, "cpu_others": pytest.approx(0.0)} == company.read(1)


def test_pauses_are_not_the_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation on both cores, while others waited, is in no figure."""
    clocks = Clocks(monkeypatch)
    company = Company()
    clocks.pass_(1.0, own=1.0, others=0.0)
    with company.paused():
        clocks.pass_(10.0, own=10.0, others=10.0, waited=3.0)
    found = company.read(1)
    assert {"cpu_s": 1.0, "cpu_wait_s": 0.0, "cpu_others": 0.0} == found


def test_what_is_too_short_for_the_clock_is_told_of_the_last_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 10 ms: not known at first, and then of 50 of them, although a tick falls into one alone."""
    clocks = Clocks(monkeypatch)
    company, shares = Company(), []
    for step in range(100):
        clocks.pass_(0.01, own=0.005, others=0.01 if step % 2 else 0.0)
        shares.append(company.read(1)["cpu_others"])
    assert shares[0] is None
    assert shares[-1] == pytest.approx(0.25, abs=0.02)
