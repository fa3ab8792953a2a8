"""What a diagnosis says: a finding for what was shown twice, a sentence for everything else that was tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from ganeum import units
from ganeum.doctor.causes import cause
from ganeum.doctor.finding import Finding, Report, worst_first
from ganeum.doctor.measured import waterfall
from ganeum.doctor.measured.contest import Ratio, interval
from ganeum.doctor.measured.often import Periodic
from ganeum.doctor.measured.remedies.promise import pays_from
from ganeum.doctor.measured.remedy import Remedy

SHORT = {"pauses": "steps that pause"}  # where the catalogue's words are for what is seen without knowing why
CROWDED = 0.1  # of the time: what other programs take before it is said


@dataclass
class Trial:
    """A remedy that was tried.

    Attributes:
        remedy: which.
        alone: against the run as it is; None: it could not be measured, ``why`` says so, ``memory``: it did not fit.
        upon: against those that were taken before it, in new processes; alone again where there were none.
        again: alone once more, in new processes, where it gives nothing upon the others.
        covered: another of its group or of its cause was taken, which is better.
        refuted: the second measurement did not show it.
        unconfirmed: there was no time for a second one.
        start_s: seconds that its first steps took beyond its quickest one, where that is what it costs.
    """

    remedy: Remedy
    alone: Ratio | None
    why: str = ""
    memory: bool = False
    upon: Ratio | None = None
    again: Ratio | None = None
    covered: bool = False
    refuted: bool = False
    unconfirmed: bool = False
    start_s: float | None = None

    @property
    def best(self) -> Ratio | None:
        """All measurements of it alone as one."""
        return self.alone.joined(self.again) if self.alone is not None and self.again is not None else self.alone


@dataclass(frozen=True)
class Stair:
    """A remedy that was taken: how many times as fast it makes what was reached before it."""

    remedy: Remedy
    ratio: Ratio


@dataclass
class Course:
    """All that a diagnosis has measured.

    Attributes:
        subject: what was measured.
        facts: of the run, by which remedies were chosen.
        phases: the share of the time of each part of a step.
        step_s: the quickest step.
        rate: tokens that carry loss per second, as it is.
        itself, itself_again: the run against itself, at the beginning and at the end.
        floor: what a ratio must exceed 1 by.
        multiple: steps of a block are a multiple of this.
        trials: in the order in which they were made.
        untried: for want of time.
        stairs: remedies that were taken, in their order.
        together: all of them against the run as it is.
        peak: GiB of it.
        told: findings of others: what is learnt, what is done every so many steps.
        failed: sentences: what could not be looked at.
        limit: tokens per second that the device could reach, and in words where that comes from.
        seconds: that it took.
    """

    subject: str
    facts: dict[str, Any] = field(default_factory=dict)
    phases: Mapping[str, float] = field(default_factory=dict)
    step_s: float = 0.0
    rate: float = 0.0
    itself: Ratio | None = None
    itself_again: Ratio | None = None
    floor: float = 0.01
    multiple: int = 1
    trials: list[Trial] = field(default_factory=list)
    untried: list[Remedy] = field(default_factory=list)
    stairs: list[Stair] = field(default_factory=list)
    together: Ratio | None = None
    peak: Mapping[str, float] = field(default_factory=dict)
    told: list[Finding] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    limit: tuple[float, str] | None = None
    seconds: float = 0.0

    @property
    def counted(self) -> str:
        """What is counted by the second: tokens that carry loss, or rows where a batch holds no tokens."""
        return str(self.facts.get("counted", "tokens"))

    @property
    def gain(self) -> float:
        """How many times as fast everything that was taken makes it."""
        return self.together.median if self.together is not None else 1.0

    @property
    def noise(self) -> float:
        """How far two measurements of one thing may lie apart here, as a ratio minus 1: the interval of the run against
        itself. Effects above twice this are found; smaller ones may be."""
        reach = [max(one.high - 1, 1 - one.low) for one in (self.itself, self.itself_again) if one is not None]
        return max([self.floor, *reach])


def report(course: Course) -> Report:
    """The answer: findings gravest first, the waterfall, and what has no measurable effect."""
    found = [finding for trial in course.trials if (finding := _finding(course, trial)) is not None]
    silent = [sentence for trial in course.trials if (sentence := _sentence(course, trial))]
    silent += [f"{remedy.name}: not tried, for want of time (--minutes)" for remedy in course.untried]
    shown = {finding.cause for finding in found}  # what is measured needs no estimate beside it
    told = [finding for finding in course.told if finding.sure != "computed" or finding.cause not in shown]
    return Report(
        subject=course.subject,
        headline=_headline(course),
        findings=worst_first([*found, *_crowd(course), *told]),
        without_effect=(*silent, *course.failed),
        drawn=waterfall.drawn(course),
        facts=_facts(course),
    )


def keys(course: Course, *, learning: bool = False) -> dict[str, Any]:
    """What ``--apply`` writes: the keys of all remedies that were taken and can be applied as they are.

    Args:
        course: with its stairs.
        learning: also of those that change what is learnt.
    """
    taken = [stair.remedy for stair in course.stairs if not stair.remedy.bound]
    found = {key: value for remedy in taken if remedy.same_learning or learning for key, value in remedy.keys.items()}
    for finding in course.told:
        if isinstance(finding, Periodic) and finding.is_alarm:
            found.update(finding.keys)
    return found


def share(ratio: float) -> float:
    """The share of the time that something costs, of how many times as fast it is without.

    >>> share(2.0), share(1.25)
    (0.5, 0.19999999999999996)
    """
    return 1 - 1 / ratio


def _finding(course: Course, trial: Trial) -> Finding | None:
    """What was shown twice; None where it was not."""
    shown = trial.upon is not None and not (trial.refuted or trial.covered or trial.why)
    if not shown or trial.best is None or trial.upon is None:
        return None
    remedy, alone = trial.remedy, trial.best
    first = bool(course.stairs) and course.stairs[0].remedy is remedy
    taken = any(stair.remedy is remedy for stair in course.stairs)
    gone = [other for other in course.trials if _is_told_with(other, remedy)] if taken else []
    if first:
        alone = alone.joined(trial.upon)
    evidence = [f"{remedy.name}: {alone} the {course.counted} per second, alone, of {alone.pairs} pairs of blocks"]
    if taken and not first:
        evidence.append(f"upon what was taken before it: {trial.upon}")
    elif not taken:
        evidence.append(f"upon what was taken before it nothing more: {trial.upon}")
    evidence += [f"{other.remedy.name}: {other.alone}, alone; upon this nothing more: {other.upon}" for other in gone]
    if (steps := _pays(course, trial)) is not None:
        start = units.duration(trial.start_s or 0.0)
        evidence.append(f"its first steps take {start} longer: it pays in trainings of {steps:,} steps and more")
    if remedy.bound:
        evidence.append("at most: what was measured shows how much there is to gain, and cannot be applied as it is")
    if not remedy.same_learning:
        evidence.append("it changes what is learnt: applied only by you")
    what = SHORT.get(remedy.cause) or cause(remedy.cause).what
    most = "up to " if remedy.bound else ""
    return Finding(
        cause=remedy.cause,
        title=f"{what}: {remedy.name} makes it {most}{alone.median:.2f} times as fast",
        evidence=tuple(evidence),
        change=remedy.change,
        severity="warning" if remedy.same_learning or remedy.same_rows else "note",
        sure="measured",
        size=share(alone.median),
        interval=(share(alone.low), share(alone.high)),
        unit="share of the time",
    )


def _pays(course: Course, trial: Trial) -> int | None:
    """Steps from which on a late start has paid; None where it starts as others do."""
    if trial.start_s is None or trial.best is None:
        return None
    return pays_from(trial.start_s, course.step_s, course.step_s / trial.best.median)


def _is_told_with(trial: Trial, taken: Remedy) -> bool:
    """Whether it takes the same cause away as one that was taken before it, and so gives nothing upon that."""
    return trial.covered and trial.upon is not None and trial.remedy.cause == taken.cause


def _crowd(course: Course) -> list[Finding]:
    """Other programs on the same core, where they were there at the beginning and at the end."""
    every = [course.itself, *(one for trial in course.trials for one in (trial.alone, trial.upon, trial.again))]
    looks = [one.waited for one in (*every, course.itself_again) if one is not None and one.waited]
    looks = looks[:: max(1, len(looks) - 1)]  # the first and the last
    if len(looks) < 2 or min(median(look) for look in looks) < CROWDED:
        return []
    shares = [share for look in looks for share in look]
    low, high, _ = interval(shares)
    return [
        Finding(
            cause="other_processes",
            title=f"other programs have its core for {median(shares):.0%} of the time",
            evidence=(
                "it stood ready for so long and was not let onto a core (Linux's schedstat), in "
                f"{len(looks[0])} blocks at the beginning and {len(looks[1])} at the end",
                f"the ratios here leave that time out, and so do its {course.counted} per second",
            ),
            change="end what else computes here (top), or give it a core of its own (taskset)",
            sure="measured",
            size=median(shares),
            interval=(low, high),
            unit="share of the time",
        )
    ]


def _sentence(course: Course, trial: Trial) -> str:
    """What else came of a trial; empty where it is a finding."""
    name = trial.remedy.name
    if trial.alone is None or trial.why:
        why = f"it does not fit ({trial.why})" if trial.memory else trial.why
        return f"{name}: not measured: {why}"
    if any(_is_told_with(trial, stair.remedy) for stair in course.stairs):
        return ""
    if trial.covered:
        more = "" if trial.upon is None else f" and, upon what was taken, nothing more: {trial.upon}"
        return f"{name}: {trial.alone}{more or '; another that excludes it is faster'}"
    if trial.unconfirmed:
        return f"{name}: {trial.alone}, but there was no time for a second measurement (--minutes)"
    if trial.refuted:
        second = trial.again if trial.again is not None else trial.upon
        return f"{name}: no effect that shows twice: {trial.alone}, then {second}"
    if trial.upon is not None:
        return ""
    if trial.alone.below(course.floor):
        return f"{name}: slower, {trial.alone}"
    return f"{name}: no measurable effect, {trial.alone}"


def _outcome(course: Course, trial: Trial) -> str:
    """What came of a trial, in a word or two for programs."""
    if trial.alone is None or trial.why:
        return "not measured"
    named = next((name for name in ("covered", "unconfirmed", "refuted") if getattr(trial, name)), None)
    if named is not None:
        return named
    if trial.upon is not None:
        return "helps"
    return "slower" if trial.alone.below(course.floor) else "no effect"


def _headline(course: Course) -> str:
    now = (units.count(course.rate) if course.rate >= 1 else f"{course.rate:.3g}") + f" {course.counted}/s"
    noise = f"differences below {course.noise:.1%} are noise here"
    if not course.trials and course.untried:
        return f"{now}, and there was no time to try anything: more of it (--minutes)"
    if not course.stairs or course.together is None:
        return f"{now}, and nothing of what was tried makes it measurably faster ({noise})"
    most = "up to " if any(stair.remedy.bound for stair in course.stairs) else ""
    return f"{now} now, {most}{course.together.median:.2f} times as many with what follows ({noise})"


def _facts(course: Course) -> dict[str, Any]:
    def told(ratio: Ratio | None) -> dict[str, Any] | None:
        if ratio is None:
            return None
        return {
            "ratio": ratio.median,
            "interval": [ratio.low, ratio.high],
            "confidence": ratio.confidence,
            "pairs": ratio.pairs,
            "seconds": ratio.seconds,
            "tokens_per_second": list(ratio.rates),
            "waiting_left_out": ratio.undisturbed,
        }

    return {
        "counted": course.counted,
        "tokens_per_second": course.rate,
        "step_s": course.step_s,
        "phases": dict(course.phases),
        "noise": course.noise,
        "floor": course.floor,
        "itself": told(course.itself),
        "itself_again": told(course.itself_again),
        "trials": [
            {
                "name": trial.remedy.name,
                "cause": trial.remedy.cause,
                "alone": told(trial.alone),
                "upon": told(trial.upon),
                "again": told(trial.again),
                "outcome": _outcome(course, trial),
                "why": trial.why or None,
                "start_s": trial.start_s,
                "pays_from_steps": _pays(course, trial),
            }
            for trial in course.trials
        ],
        "untried": [remedy.name for remedy in course.untried],
        "waterfall": [{"remedy": {**asdict(stair.remedy)}, **(told(stair.ratio) or {})} for stair in course.stairs],
        "together": told(course.together),
        "apply": keys(course),
        "peak_gib": dict(course.peak),
        "limit": None
        if course.limit is None
        else {
            "tokens_per_second": course.limit[0],
            "source": course.limit[1],
            "left": course.limit[0] / (course.rate * course.gain),
        },
        "seconds": course.seconds,
        "seen": {key: value for key, value in course.facts.items() if key != "decided"},
    }
