"""A warm-up that is counted in updates and moved on by something rarer: the learning rate stays next to nothing."""

from __future__ import annotations

import dis
import warnings
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ganeum.doctor.examine.seen import Seen
from ganeum.doctor.examine.state import content_of, functions_of
from ganeum.doctor.finding import Finding

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Training

ENOUGH = 3  # updates without a step of the schedule
SMALL = 0.1  # of the rate that it warms up to
LONG, MOST = 100, 20_000  # steps of a schedule: epochs of a warm-up are fewer; how many are looked ahead
SILENT = frozenset({"CACHE", "PUSH_NULL", "EXTENDED_ARG", "PRECALL"})


def of(training: Training) -> list[tuple[LRScheduler, int]]:
    """Schedules that a step moves on in its own lines, each with how often it was so far. Of others nobody can know
    whether the loop around the step does."""
    found: dict[int, LRScheduler] = {}
    for function, owner in functions_of(training.step):
        for value in _stepped(function, owner):
            if isinstance(value, LRScheduler) and not isinstance(value, ReduceLROnPlateau):
                found[id(value)] = value
    return [(one, one.last_epoch) for one in found.values()]


def look(seen: Seen, schedules: Sequence[tuple[LRScheduler, int]]) -> Iterator[Finding]:
    """Looks ahead; the schedules, and the rates that they set, are other ones then."""
    for schedule, count in schedules:
        held = {id(p) for group in schedule.optimizer.param_groups for p in group["params"]}
        updates = sum(bool(held & one.held.keys()) for one in seen.updates)
        now, base = _rate(schedule), max(map(float, schedule.base_lrs))
        if updates < ENOUGH or schedule.last_epoch != count or not 0 < now < SMALL * base:
            continue
        ahead = _until(schedule, SMALL * base)
        if ahead is None or ahead < LONG:
            continue
        yield Finding(
            cause="schedule",
            title="the learning rate stays next to nothing: its warm-up is moved on more seldom than by updates",
            evidence=(
                f"{now:.3g} in all {updates} updates, {now / base:.2g} of {base:.3g}; scheduler.step() is among the "
                "lines of a step, and none came to it",
                f"it needs {ahead:,} steps of the schedule to come to a tenth: at least {ahead * updates:,} updates",
            ),
            change="scheduler.step() behind every optimizer.step(); or a warm-up counted in what it is moved on by, "
            "epochs say",
            sure="measured",
            size=now / base,
            unit="of the learning rate",
        )


def _stepped(function: Any, owner: Any) -> Iterator[Any]:
    """What a function calls ``….step`` of, where that is no local variable."""
    code = function.__code__
    cells = dict(zip(code.co_freevars, function.__closure__ or (), strict=False))
    read = [one for one in dis.get_instructions(code) if one.opname not in SILENT]
    for one, then in pairwise(read):
        if then.argval != "step" or then.opname not in ("LOAD_METHOD", "LOAD_ATTR"):
            continue
        if one.argval in cells:
            yield content_of(cells[one.argval])
        elif one.opname == "LOAD_GLOBAL":
            yield function.__globals__.get(one.argval)
        elif one.opname == "LOAD_ATTR":
            yield getattr(owner, "__dict__", {}).get(one.argval)


def _rate(schedule: LRScheduler) -> float:
    return max(float(group["lr"]) for group in schedule.optimizer.param_groups)


def _until(schedule: LRScheduler, rate: float) -> int | None:
    """Steps of the schedule until its rate is as high; None: it never is, as far as it can be looked ahead."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(1, MOST + 1):
            try:
                schedule.step()
            except Exception:  # it ends, or somebody's own function of the step does
                return None
            if _rate(schedule) >= rate:
                return step
    return None
