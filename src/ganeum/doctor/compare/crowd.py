"""Other programs on the same processors: of two runs that had unlike company, which steps can be compared at all.

Two runs were not taken by turns, so whatever else the machine did is in their difference. Their metrics say how much
of the processors others had (`cpu_others`), and how long the training was ready and had no core (`cpu_wait_s`). Where
enough steps of both were undisturbed, only those are compared. Where not, a difference has to be beyond what company
can do: it waits, and what shares a core's other hyperthread, or the memory, makes a core up to twice as slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Any

from ganeum.doctor.compare.side import Side, section
from ganeum.doctor.compare.stretch import Stretch

QUIET = 0.1  # of the machine's processors for others: less is a desktop, or a system's own work
ENOUGH = 12  # stretches of either that are left
LEAST = 0.05  # of a step's time: less than company can do by this is not told


@dataclass(frozen=True)
class Crowd:
    """Of what is compared: ``shares`` of the machine's processors that other programs had, of the run and of the
    baseline, and ``waits``, shares of a step without a core; ``left_out``: stretches of either that were disturbed."""

    shares: tuple[float, float]
    waits: tuple[float, float]
    left_out: tuple[int, int] = (0, 0)

    @property
    def excuses(self) -> tuple[float, float]:
        """What it can make of the run's time by the baseline's, and of the inverse, as logarithms.

        Waiting is measured, and counts by how unlike it was. What shares a core is not, and may have been something
        else beside each of them, as much as both had.
        """
        waited = [
            -log(1 - min(wait, 0.99)) * (share > QUIET) for share, wait in zip(self.shares, self.waits, strict=True)
        ]
        shared = [log(1 + min(1.0, 2 * max(share - QUIET, 0.0))) for share in self.shares]
        apart = waited[0] - waited[1] + shared[0] - shared[1]
        return max(apart, 0.0) + min(shared), max(-apart, 0.0) + min(shared)

    def as_dict(self) -> dict[str, Any]:
        """For ``doctor.json``; each pair is of the run and of the baseline."""
        return {
            "share_of_the_processors": list(self.shares),
            "share_without_a_core": list(self.waits),
            "stretches_left_out": list(self.left_out),
            "times_it_can_make": [exp(excuse) for excuse in self.excuses],
        }

    def sentences(self, run: str, baseline: str) -> Iterator[str]:
        """For the answer."""
        if any(self.left_out):
            counts = " and ".join(
                f"{count:,} of {name}" for count, name in zip(self.left_out, (run, baseline), strict=True) if count
            )
            yield f"steps while others had more than {QUIET:.0%} of the processors are left out: {counts}"

    def sentence(self) -> str:
        """What they had beside them."""
        (ours, theirs), (waited, other) = self.shares, self.waits
        told = f"other programs had {ours:.0%} of the machine's processors meanwhile, beside the baseline {theirs:.0%}"
        if max(waited, other) > LEAST:
            told += f"; it was ready and without a core for {waited:.0%} of its time, the baseline {other:.0%}"
        return told


def undisturbed(run: Side, baseline: Side) -> tuple[Side, Side, Crowd | None]:
    """Both with the steps that can be compared, and the company of these; None: their metrics do not say."""
    if not (run.told_company and baseline.told_company) or on_gpu(run, baseline):
        return run, baseline, None
    left = [[one for one in side.stretches if (one.others or 0.0) <= QUIET] for side in (run, baseline)]
    if min(len(stretches) for stretches in left) < ENOUGH:
        return run, baseline, _crowd(run.stretches, baseline.stretches)
    out = tuple(len(side.stretches) - len(kept) for side, kept in zip((run, baseline), left, strict=True))
    ours, theirs = (replace(side, stretches=tuple(kept)) for side, kept in zip((run, baseline), left, strict=True))
    return ours, theirs, replace(_crowd(*left), left_out=(out[0], out[1]))


def _crowd(*sides: Sequence[Stretch]) -> Crowd:
    shares = [_mean(side, lambda one: (one.others or 0.0) * one.seconds) for side in sides]
    waits = [_mean(side, lambda one: one.waited or 0.0) for side in sides]
    return Crowd((shares[0], shares[1]), (waits[0], waits[1]))


def _mean(stretches: Sequence[Stretch], seconds: Callable[[Stretch], float]) -> float:
    """Of all their time."""
    return sum(seconds(one) * one.steps for one in stretches) / sum(one.seconds * one.steps for one in stretches)


def share(some: Sequence[Stretch]) -> float | None:
    """Of the machine's processors that other programs had; None: not said of all."""
    return (
        None if any(one.others is None for one in some) else _mean(some, lambda one: (one.others or 0.0) * one.seconds)
    )


def on_gpu(*sides: Side) -> bool:
    """Where others on the processors do not slow the computing."""
    return any(section(side.plan, "device").get("kind", "cpu") != "cpu" for side in sides)
