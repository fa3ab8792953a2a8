"""Where the time of one training goes that another's does not: each part of a step, and what is beside the steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign, exp, log
from statistics import median
from typing import Any

from ganeum.doctor.compare import crowd, interval
from ganeum.doctor.compare.interval import Apart
from ganeum.doctor.compare.side import Side, section
from ganeum.doctor.compare.stretch import PARTS, number

THOUSAND = 1000  # tokens, for which seconds are told
OTHERWISE = 1.5  # times more than the steps grew: evaluations and the like that are told
NOTHING = 0.02  # of a step: parts that differ by less are not told as findings
WORDS = {
    "data": "waiting for the batch",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "update",
    "other": "the rest of a step",
    "outside": "evaluations, samples, checkpoints",
}


@dataclass(frozen=True)
class Part:
    """A part of the time: seconds a token (or a step) of the one and of the other, and how far apart; ``ratio``: the
    one by the other; ``floor``: seconds by which such a part differs from itself."""

    name: str
    run: float
    baseline: float
    apart: Apart
    floor: float = 0.0

    @property
    def ratio(self) -> float | None:
        """None: the other spends nothing there."""
        return self.run / self.baseline if self.baseline > 0 else None


@dataclass(frozen=True)
class Gap:
    """A whole comparison.

    Attributes:
        per_token: whether it is per token, padding not counted; else per step, since one of them does not say its
            tokens.
        step: a step of the one by one of the other, as a ratio; ``low``, ``high``: its interval, None where there is
            too little.
        floor: ratios nearer to 1 than this (as a logarithm) are noise.
        parts: of a step and beside the steps; empty where one of them does not say them.
        run_s, baseline_s: usual seconds of a token (or a step), beside the steps not counted.
        whole: the same ratio with what is beside the steps; None: not said.
        planned: the same ratio as their plans expected it, and its bounds; None: not said.
        excuses: what other programs could have made of the ratio and of its inverse, as logarithms.
        cpu: processor seconds of a token (or a step) of the one and of the other; None: not said, or a GPU computes.
    """

    per_token: bool
    step: float
    low: float | None
    high: float | None
    floor: float
    parts: tuple[Part, ...]
    run_s: float
    baseline_s: float
    whole: float | None = None
    planned: tuple[float, float, float] | None = None
    excuses: tuple[float, float] = (0.0, 0.0)
    cpu: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether there is enough of both for a verdict."""
        return self.low is not None and self.high is not None

    @property
    def is_slower(self) -> bool:
        """Surely, and beyond noise."""
        return self.low is not None and log(self.low) > self.floor + self.excuses[0]

    @property
    def is_faster(self) -> bool:
        """Surely, and beyond noise."""
        return self.high is not None and log(self.high) < -self.floor - self.excuses[1]

    @property
    def is_excused(self) -> bool:
        """Surely apart, but not by more than other programs could have made it."""
        apart = (
            self.low is not None
            and self.high is not None
            and (log(self.low) > self.floor or log(self.high) < -self.floor)
        )
        return apart and not (self.is_slower or self.is_faster)

    def share(self, part: Part) -> float:
        """Of the run's time for a token that would be saved if this part took what it takes the baseline."""
        return part.apart.by / self.run_s

    def matters(self, part: Part) -> bool:
        """Surely apart, and by enough to be told."""
        least = max(NOTHING, self.floor) * min(self.run_s, self.baseline_s)
        if part.name == "outside":  # one figure of each run; on a machine that is slower it is, too
            more = log(max(part.run, 1e-12) / max(part.baseline, 1e-12)) - log(self.step)
            return (
                self.known
                and abs(part.apart.by) > least
                and copysign(more, more * part.apart.by) > log(OTHERWISE) + self.floor
            )
        return part.apart.excludes(part.floor) and abs(part.apart.by) > least

    def as_dict(self) -> dict[str, Any]:
        """For ``doctor.json``; seconds are of a token or a step, as ``per`` says."""
        return {
            "per": "token" if self.per_token else "step",
            "ratio": self.step,
            "interval": None if self.low is None else [self.low, self.high],
            "noise": exp(self.floor) - 1,
            "ratio_with_what_is_beside_the_steps": self.whole,
            "planned_ratio": None if self.planned is None else self.planned[0],
            "planned_interval": None if self.planned is None else list(self.planned[1:]),
            "run_s": self.run_s,
            "baseline_s": self.baseline_s,
            "processor_s": None if self.cpu is None else {"run": self.cpu[0], "baseline": self.cpu[1]},
            "parts": {
                part.name: {
                    "run_s": part.run,
                    "baseline_s": part.baseline,
                    "apart_s": part.apart.by,
                    "interval_s": None if part.apart.interval is None else list(part.apart.interval),
                    "share_of_the_time": self.share(part),
                }
                for part in self.parts
            },
        }


def between(run: Side, baseline: Side, excuses: tuple[float, float] = (0.0, 0.0)) -> Gap:
    """What lies between them.

    Args:
        excuses: what other programs could have made of the ratio and of its inverse, as logarithms.
    """
    per_token = run.tokens is not None and baseline.tokens is not None
    ours, theirs = (interval.blocks(side.values(per_token=per_token)) for side in (run, baseline))
    ratio = interval.apart([log(value) for value in ours], [log(value) for value in theirs])
    run_s, baseline_s = median(ours), median(theirs)
    parts = [
        found
        for name in PARTS
        if (found := _part(name, run, baseline, per_token=per_token, step_s=baseline_s, excuses=excuses)) is not None
    ]
    whole, outside = _outside(run, baseline, run_s, baseline_s)
    return Gap(
        per_token,
        exp(ratio.by),
        None if ratio.low is None else exp(ratio.low),
        None if ratio.high is None else exp(ratio.high),
        interval.floor(ours, theirs),
        tuple(sorted([*parts, *outside], key=lambda part: -part.apart.by)),
        run_s,
        baseline_s,
        whole,
        _planned(run, baseline) if per_token else None,
        excuses,
        _processors(run, baseline, per_token),
    )


def _part(
    name: str, run: Side, baseline: Side, *, per_token: bool, step_s: float, excuses: tuple[float, float]
) -> Part | None:
    ours, theirs = (interval.blocks(side.values(name, per_token=per_token)) for side in (run, baseline))
    if not ours or not theirs or max(median(ours), median(theirs)) < 1e-4 * step_s:
        return None
    found = interval.apart(ours, theirs)
    floor = (exp(interval.floor(ours, theirs) + excuses[found.by < 0]) - 1) * min(median(ours), median(theirs))
    return Part(name, median(ours), median(theirs), found, floor)


def _outside(run: Side, baseline: Side, run_s: float, baseline_s: float) -> tuple[float | None, list[Part]]:
    """Evaluations and the like, spread over the steps between which they were."""
    if run.outside_s is None or baseline.outside_s is None:
        return None, []
    ours, theirs = (
        beside / within * seconds
        for (beside, within), seconds in ((run.outside_s, run_s), (baseline.outside_s, baseline_s))
    )
    whole = (run_s + ours) / (baseline_s + theirs)
    if max(ours, theirs) < 1e-3 * baseline_s:
        return whole, []
    return whole, [Part("outside", ours, theirs, Apart(ours - theirs))]


def _processors(run: Side, baseline: Side, per_token: bool) -> tuple[float, float] | None:
    ours, theirs = (side.values("cpu", per_token=per_token) for side in (run, baseline))
    if crowd.on_gpu(run, baseline) or not ours or not theirs or min(median(ours), median(theirs)) <= 0:
        return None
    return median(ours), median(theirs)


def _planned(run: Side, baseline: Side) -> tuple[float, float, float] | None:
    """Seconds of a token as the one's plan has them by the other's, between bounds."""
    ours, theirs = (
        [number(section(side.plan, "time").get(name)) for name in ("step_s", "low", "high")] for side in (run, baseline)
    )
    tokens = [number(section(side.plan, "batch").get("tokens_per_step")) for side in (run, baseline)]
    if not all(value and value > 0 for value in (ours[0], theirs[0], *tokens)):
        return None
    (step, low, high), (other, least, most) = ([value or times[0] for value in times] for times in (ours, theirs))
    return tuple(a / b * tokens[1] / tokens[0] for a, b in ((step, other), (low, most), (high, least)))  # type: ignore


def table(gap: Gap, run: str, baseline: str) -> str:
    """The parts, the largest difference first, with a bar for how much of the run's time each is."""
    unit = "ms for 1,000 tokens" if gap.per_token else "ms a step"
    scale = 1000 * (THOUSAND if gap.per_token else 1)
    most = max((abs(part.apart.by) for part in gap.parts), default=0.0)
    rows = [(unit, _short(run), _short(baseline), "more by", "")]
    outside = [part for part in gap.parts if part.name == "outside"]
    for part in gap.parts:
        if part not in outside:
            rows.append(_row(gap, part, scale, most))
    rows.append(("a step", f"{gap.run_s * scale:,.3g}", f"{gap.baseline_s * scale:,.3g}", _times(gap), ""))
    if gap.cpu is not None:
        ours, theirs = gap.cpu
        rows.append(("processor time", f"{ours * scale:,.3g}", f"{theirs * scale:,.3g}", f"× {ours / theirs:.3g}", ""))
    for part in outside:
        rows.append(_row(gap, part, scale, most))
        ours, theirs = gap.run_s + part.run, gap.baseline_s + part.baseline
        rows.append(("in all", f"{ours * scale:,.3g}", f"{theirs * scale:,.3g}", f"× {gap.whole:.3g}", ""))
    if gap.planned is not None:
        planned, low, high = gap.planned
        rows.append(("a step, as planned", "", "", f"× {planned:.3g} ({low:.3g} to {high:.3g})", ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"  {name:<{widths[0]}}  {ours:>{widths[1]}}  {theirs:>{widths[2]}}  {by:<{widths[3]}}  {bar}"
        for name, ours, theirs, by, bar in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _row(gap: Gap, part: Part, scale: float, most: float) -> tuple[str, str, str, str, str]:
    between = part.apart.interval
    by = f"{part.apart.by * scale:+,.3g}"
    if between is not None:
        by += f" ({between[0] * scale:+,.3g} to {between[1] * scale:+,.3g})"
    bar = ("█" if gap.matters(part) else "░") * round(16 * abs(part.apart.by) / most) if most else ""
    return WORDS[part.name], f"{part.run * scale:,.3g}", f"{part.baseline * scale:,.3g}", by, bar


def _times(gap: Gap) -> str:
    told = f"× {gap.step:.3g}"
    return told if gap.low is None else f"{told} ({gap.low:.3g} to {gap.high:.3g})"


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def parts_that_matter(gap: Gap) -> Sequence[Part]:
    """Those that are worth a finding, the largest first."""
    return sorted((part for part in gap.parts if gap.matters(part)), key=lambda part: -abs(part.apart.by))
