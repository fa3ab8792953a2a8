"""A diagnosis by measurement: what each cause costs, what all remedies give together, and what only seems to matter.

The course: the run against itself, which says what differences mean nothing here; each remedy alone against the run,
the most promising first; those that help once more, in new processes, one upon the other in the order of their effect;
all of them together against the run. What helped in one measurement only is no finding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

from ganeum.config import Config
from ganeum.doctor.finding import Report
from ganeum.doctor.measured import answer, bursts, left
from ganeum.doctor.measured.answer import Course, Stair, Trial
from ganeum.doctor.measured.contest import BLOCK_S, FEWEST_PAIRS, LONGER, Ratio, contest
from ganeum.doctor.measured.in_turn import InTurn, Place
from ganeum.doctor.measured.remedy import Remedy
from ganeum.doctor.measured.subject import request
from ganeum.doctor.measured.training import Subject
from ganeum.doctor.measured.worker import Gone, Worker, Workers
from ganeum.errors import RunError

LEAST_FLOOR = 0.01  # two processes of one program differ by so much for the place of their memory alone
SHARE_OF_ITSELF, SHARE_OF_WATCHING = 0.12, 0.05  # of the time, before anything is tried
BUILDING_S, LEAST_SHARE = 25.0, 1 / 3  # beside the time; and the share of it that slow building leaves
LEAST_LIMIT_S, SHARE_OF_ONE = 10.0, 0.2  # for one command of a variant: to warm up, compiling included
PAIRS = 60  # of blocks, in a contest that is not precise before
LEAST_S, WATCHED_S = 6.0, 2.0  # of a contest, where there is time; of looking for steps unlike the others
WATCHED_STEPS = (16, 200)
PHASE_STEPS, PHASES_S = 8, 2.0
LEFTOVER_STEPS, LEFTOVERS_S = 50, 3.0

COMPILES = "not_compiled"  # a remedy of this starts late, which later steps must pay for
TURN_S, SHARE_IN_TURN = 0.5, 0.15  # of a block, and of the time, where one variant at a time has room

Say = Callable[[str], None]
Variant: TypeAlias = Worker | InTurn


def diagnose(subject: Subject, *, minutes: float = 6.0, examine: bool = True, say: Say = lambda _: None) -> Report:
    """What makes a training slow, measured on itself, and what in it is wrong.

    Args:
        subject: a config of ours, ``FILE.py:FUNCTION``, or a function at the top of a file; the function takes nothing
            and returns a :class:`ganeum.doctor.Training`.
        minutes: at most, about, from when the training is built, less what that took beyond 25 s; it ends sooner when
            all is known well enough.
        examine: also look for what makes it learn wrongly.
        say: told what is being measured.

    Raises:
        ConfigError: the function cannot be found.
        RunError: the training itself cannot be built or stepped.
    """
    with Workers(subject) as workers:
        diagnosis = Diagnosis(workers, 60 * minutes, say)
        diagnosis.run(examine)
        return answer.report(diagnosis.course)


@dataclass
class Diagnosis:
    """One diagnosis, and what it has found so far.

    Attributes:
        workers: variants of the training.
        budget_s: seconds from when the training is built.
        say: told what is being measured.
    """

    workers: Workers
    budget_s: float
    say: Say
    course: Course = field(init=False)

    def __post_init__(self) -> None:
        subject = self.workers.subject
        self.course = Course((subject.name or "the run") if isinstance(subject, Config) else str(subject))
        self.began = self._built = time.monotonic()
        self._seconds = LEAST_S  # of a contest
        self._waiting = 0  # remedies that were not tried yet
        self._place: Place | None = None  # where there is room for one variant at a time

    def run(self, examine: bool) -> None:
        """The whole course."""
        remedies = self._look(examine)
        # The longer a step, the longer a contest; but there is time for all of them, and for a second time for some.
        pairs_s = max(LEAST_S, 2 * PAIRS * BLOCK_S, 2 * PAIRS / 3 * self.course.step_s)
        self._waiting = len(remedies)
        self._seconds = max(0.0, min(pairs_s, self._left() / self._ahead()))
        base = self._floor(self._base())
        began = time.monotonic()
        for remedy in remedies:
            self._waiting -= 1
            if self.course.trials and not self._has_room(time.monotonic() - began):  # one at least: for it it was asked
                self.course.untried.append(remedy)
            elif not self._try(base, remedy):  # it had to make room for this one, or the system ended it
                base.close()
                base = self._base()
        base.close()
        self._climb([trial for trial in self.course.trials if self._helps(trial.alone)])
        self._together()
        self._again()
        self.say("what the device could do")
        left.find(self.workers, self.course)
        self.course.seconds = time.monotonic() - self.began

    # ------------------------------------------------------------------------------------------------ the run itself

    def _look(self, examine: bool) -> list[Remedy]:
        """What it is, where its time goes and what it learns, in a process of its own → what to try."""
        from ganeum.doctor.measured import remedies

        self.say("building it")
        course, config = self.course, self.workers.subject
        with self._first() as first:
            try:
                course.facts = dict(first.facts())
                self.workers.learn(first)
                self._begin()
                course.step_s = first.warm()
                phases = first.phases(max(1, min(PHASE_STEPS, round(PHASES_S / course.step_s))))
            except Gone as gone:
                raise _unmeasurable(gone) from None
            course.phases = {name: seconds / sum(phases.phases.values()) for name, seconds in phases.phases.items()}
            course.facts["phases"], course.facts["step_s"] = course.phases, phases.seconds / phases.steps
            if isinstance(config, Config):
                if "decided" in course.facts:  # what was "auto" is the same in all variants
                    config = self.workers.subject = Config.model_validate(course.facts["decided"])
                found = remedies.of_config(config, course.facts)
                course.told += remedies.told(course.facts, config)
            else:
                found = remedies.of_training(course.facts)
                course.failed += remedies.untried(course.facts)
                course.told += remedies.told(course.facts, None)
        if examine:
            self._examine()
            self._leftovers()
        if isinstance(config, Config):
            self._measure_periodic(config)
        return found

    def _begin(self) -> None:
        """It is built: from now on the time counts. Where that was slow (nothing in the disk's cache, a crowded
        machine) it is shorter, so that minutes that somebody waits for are not many more."""
        self._built = time.monotonic()
        too_long_s = self._built - self.began - BUILDING_S
        self.budget_s = max(LEAST_SHARE * self.budget_s, self.budget_s - max(0.0, too_long_s))

    def _examine(self) -> None:
        """What it learns; in a process that has taken no step yet, since some is judged by the first."""
        self.say("what it learns")
        try:
            with self._first() as untouched:
                self.course.told += untouched.examine()
        except Gone as gone:
            self.course.failed.append(f"what it learns could not be examined: {gone}")

    def _leftovers(self) -> None:
        """What its steps leave behind in memory."""
        from ganeum.doctor.memory import observed

        seconds = min(LEFTOVERS_S, SHARE_OF_WATCHING * self.budget_s)
        if LEFTOVER_STEPS * self.course.step_s > 4 * seconds:
            return
        self.say("what its steps leave behind")
        with suppress(Gone), self.workers.empty() as worker:  # no finding, then: it is the examination that tells why
            seen = worker.call(
                "ganeum.doctor.measured.creep",
                "of_subject",
                what=request(self.workers.subject, ()),
                steps=LEFTOVER_STEPS,
                seconds=seconds,
            )
            known = {finding.cause for finding in self.course.told}
            self.course.told += [finding for finding in observed.findings(seen) if finding.cause not in known]

    def _measure_periodic(self, config: Config) -> None:
        """What a run of ours does every so many steps."""
        self.say("evaluation, checkpoints, samples")
        limit = min(30.0, 0.08 * self._left())
        try:
            with self.workers.empty() as worker:
                asked = {"config": config, "step_s": self.course.step_s, "limit_s": limit}
                self.course.told += worker.call("ganeum.doctor.measured.periodic", "measure", **asked)
        except Gone as gone:
            self.course.failed.append(f"evaluation, checkpoints and samples could not be measured: {gone}")

    def _floor(self, base: Variant) -> Variant:
        """The run against itself: what a difference must exceed → the run, in turns where two of it have no room."""
        course = self.course
        self.say("the run against itself")
        try:
            course.step_s = base.warm()
            watched_s = min(WATCHED_S, SHARE_OF_WATCHING * self.budget_s)
            fewest, most = WATCHED_STEPS
            steps = max(fewest, min(most, round(watched_s / course.step_s)))
            if not isinstance(base, InTurn) and steps * course.step_s < 2 * watched_s:
                self._unlike(base, steps)
            with self._variant() as twin:
                course.itself = self._contest(base, twin, only_gain=False, floor=LEAST_FLOOR / 2)
        except Gone as gone:
            if not gone.memory or self._place is not None:
                raise _unmeasurable(gone) from None
            base.close()
            self._place = Place()
            return self._floor(self._base())
        course.rate = course.itself.rates[0]
        course.floor = max(LEAST_FLOOR, abs(course.itself.median - 1))
        return base

    def _unlike(self, base: Worker, steps: int) -> None:
        """Steps unlike the others: at regular distances they are a finding, where that is seen twice; in any case a
        block holds some of them."""
        first = base.watch(steps)
        period = bursts.find(first.times, first.waits, first.collections)
        if period is None:
            most = self._seconds / (2 * FEWEST_PAIRS * self.course.step_s)
            self.course.multiple = bursts.together(first.times, first.counts, most)
            return
        second = base.watch(steps)
        again = bursts.find(second.times, second.waits, second.collections)
        self.course.multiple = period.period
        if again is not None and again.period == period.period:
            self.course.told.append(again.finding())

    # ------------------------------------------------------------------------------------------------------ remedies

    def _try(self, base: Variant, remedy: Remedy) -> bool:
        """One remedy alone → whether the base has survived it."""
        self.say(remedy.name)
        try:
            with self._variant([remedy]) as changed:
                changed.limit_s = max(LEAST_LIMIT_S, SHARE_OF_ONE * self.budget_s)
                alone = self._contest(base, changed)
                start_s = changed.start_s() if remedy.cause == COMPILES and self._helps(alone) else None
            self.course.trials.append(Trial(remedy, alone, start_s=start_s))
        except Gone as gone:
            if gone.memory and self._place is None and not self._is_late(0.8):
                return self._try_in_turn(base, remedy)
            self.course.trials.append(Trial(remedy, None, str(gone), memory=gone.memory))
        return base.is_alive

    def _try_in_turn(self, base: Variant, remedy: Remedy) -> bool:
        """There is no room for it beside the run: is there without? Where it helps, all that follows is in turns."""
        base.close()
        self._place = Place()
        with self._variant() as again:
            self._try(again, remedy)
        if not self._helps(self.course.trials[-1].alone):
            self._place = None
        return False

    def _climb(self, promising: Sequence[Trial]) -> None:
        """Those that helped, one upon the other, the largest first; each in new processes."""
        course, taken = self.course, list[Remedy]()
        best = self._base() if promising else None
        try:
            for trial in sorted(promising, key=_effect, reverse=True):
                assert best is not None
                remedy = trial.remedy
                if any(remedy.group and remedy.group == other.group for other in taken):
                    trial.covered = True
                    continue
                if self._is_late(1.1 if taken else 2.0):
                    trial.unconfirmed = True
                    continue
                self.say("+ " + remedy.name if taken else remedy.name + ", again")
                try:
                    higher = self._variant([*taken, remedy])
                    upon = self._contest(best, higher)
                except Gone as gone:
                    trial.why = str(gone)
                    if not best.is_alive:
                        best = self._variant(taken)
                    continue
                if self._helps(upon):
                    trial.upon, taken = upon, [*taken, remedy]
                    course.stairs.append(Stair(remedy, upon))
                    best, former = higher, best
                    former.close()
                    continue
                higher.close()
                trial.upon = upon
                if any(remedy.cause == other.cause for other in taken):
                    trial.covered = True  # what it takes away is gone already
                else:
                    self._once_more(trial, bool(taken))
        finally:
            if best is not None:
                best.close()

    def _once_more(self, trial: Trial, after_others: bool) -> None:
        """It gives nothing more: alone, in new processes, does it still?"""
        if not after_others:
            trial.refuted = True
            return
        self.say(trial.remedy.name + ", again")
        with suppress(Gone), self._base() as base, self._variant([trial.remedy]) as changed:
            again = self._contest(base, changed)
            trial.refuted, trial.again = not self._helps(again), again
            return
        trial.refuted = True

    def _together(self) -> None:
        """All that were taken, against the run."""
        taken = [stair.remedy for stair in self.course.stairs]
        if not taken:
            return
        if len(taken) == 1:
            self.course.together = self.course.stairs[0].ratio
            return
        self.say("all of them")
        with suppress(Gone), self._base() as base, self._variant(taken) as best:
            self.course.together = self._contest(base, best)
            self.course.peak = dict(best.peak())

    def _again(self) -> None:
        """The run against itself once more, in new processes: is the noise what it was?"""
        course = self.course
        if not self._is_late(0.95):
            self.say("the run against itself, again")
            with suppress(Gone), self._base() as base, self._base() as twin:
                again = self._contest(base, twin, only_gain=False)
                course.itself_again = again
                course.floor = max(course.floor, again.low - 1, 1 - again.high)
        for trial in course.trials:  # what was believed of less noise
            if trial.upon is not None and not self._helps(trial.best):
                trial.refuted = True
                course.stairs = [stair for stair in course.stairs if stair.remedy is not trial.remedy]

    # ------------------------------------------------------------------------------------------------------ small words

    def _contest(self, a: Variant, b: Variant, *, only_gain: bool = True, floor: float | None = None) -> Ratio:
        course, multiple, seconds = self.course, self.course.multiple, self._seconds
        if floor is not None:  # the run against itself
            seconds = min(2 * seconds, SHARE_OF_ITSELF * self.budget_s)
        if self._place is not None:  # each pair of blocks is a process more
            multiple *= max(1, round(TURN_S / (course.step_s * multiple)))
            seconds = max(seconds, SHARE_IN_TURN * self.budget_s)
        floor = course.floor if floor is None else floor
        patience = max(LONGER, self._left() / (max(seconds, BLOCK_S) * self._ahead()))
        return contest(a, b, seconds=seconds, floor=floor, multiple=multiple, only_gain=only_gain, patience=patience)

    def _variant(self, remedies: Sequence[Remedy] = ()) -> Variant:
        if self._place is None:
            return self.workers.start(remedies)
        return InTurn(lambda: self.workers.start(remedies), self._place)

    def _first(self) -> Worker:
        """The run as it is, alone."""
        try:
            return self.workers.start()
        except Gone as gone:
            raise _unmeasurable(gone) from None

    def _base(self) -> Variant:
        try:
            return self._variant()
        except Gone as gone:
            raise _unmeasurable(gone) from None

    def _helps(self, ratio: Ratio | None) -> bool:
        return ratio is not None and ratio.beyond(self.course.floor)

    def _is_late(self, share: float) -> bool:
        """Whether so much of the time is over."""
        return self._left() < (1 - share) * self.budget_s

    def _has_room(self, spent: float) -> bool:
        """Whether there is time for another remedy beside what must follow: those that helped once more, all of them
        together, and the run against itself."""
        trials = self.course.trials
        one = spent / len(trials) if trials else 1.5 * self._seconds
        again = sum(self._helps(trial.alone) for trial in trials)
        return self._left() > one * (again + (again > 1) + 2)

    def _ahead(self) -> float:
        """Contests that may still come: of each remedy that waits, of half of them once more, and at the end."""
        return 5 + 1.5 * self._waiting

    def _left(self) -> float:
        """Seconds."""
        return self._built + self.budget_s - time.monotonic()


def _effect(trial: Trial) -> float:
    return trial.alone.median if trial.alone is not None else 0.0


def _unmeasurable(gone: Gone) -> RunError:
    return RunError(
        f"the training cannot be measured: {gone}", suggestion=gone.suggestion or "it must run by itself first"
    )
