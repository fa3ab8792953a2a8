"""The course of a diagnosis: what is believed, what is refuted, what is taken, in which order; with workers that
pretend, and a clock that they move."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from ganeum.doctor.finding import Finding, Report
from ganeum.doctor.measured import diagnosis, remedies
from ganeum.doctor.measured.often import Periodic
from ganeum.doctor.measured.remedy import Remedy
from ganeum.doctor.measured.training import Block
from ganeum.doctor.measured.worker import Gone
from ganeum.errors import RunError

STEP_S = 0.01


class Pretended:
    """A variant: its step takes the time that its remedies leave of 10 ms, ±2 % of noise."""

    def __init__(self, world: World, applied: Sequence[Remedy]) -> None:
        self.world, self.names = world, [remedy.name for remedy in applied]
        self.is_alive, self.open = True, True
        world.built.append(self.names)

    def __enter__(self) -> Pretended:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.open = False

    def facts(self) -> dict[str, Any]:
        return {}

    def examine(self) -> list[Finding]:
        return self.world.learns

    def rewind(self) -> None: ...

    def warm(self, seconds: float = 0.3, least: int = 3) -> float:
        self.world.now += seconds
        return self.world.step_s(self.names)

    def call(self, module: str, function: str, **arguments: Any) -> Any:
        raise Gone("not pretended")

    def watch(self, steps: int) -> Block:
        each = {"times": (STEP_S,) * steps, "waits": (0.0,) * steps, "counts": (1,) * steps}
        return Block(steps, steps * STEP_S, steps, **each)

    def phases(self, steps: int) -> Block:
        return Block(steps, steps * STEP_S, steps, phases={"forward": 0.004 * steps, "backward": 0.006 * steps})

    def peak(self) -> dict[str, float]:
        return {"resident": 0.1}

    def start_s(self) -> float:
        return 30.0

    def limit(self) -> dict[str, Any]:
        return {"tokens_per_second": self.world.at_best, "words": "products of 1 MFLOP a step"}

    def block(self, steps: int) -> Block:
        own = steps * self.world.step_s(self.names) * self.world.draw.uniform(0.98, 1.02)
        waited = own * self.world.crowd
        self.world.now += own + waited
        return Block(steps, own + waited, 100 * steps, computed=own, waited=waited)


class World:
    """Workers that pretend, and the remedies that there are.

    Args:
        effects: name → the share of its time that a step keeps with it; a list: in its first process, in its second, ….
    """

    def __init__(self, effects: dict[str, Any], found: Sequence[Remedy]) -> None:
        self.effects, self.found, self.now, self.draw = effects, list(found), 0.0, random.Random(5)
        self.built: list[list[str]] = []
        self.learns: list[Finding] = []
        self.crowd = 0.0  # seconds of waiting for a core to one of computing
        self.subject = "mine.py:build"
        self.at_best: float | None = None
        self.before_start = lambda: 0.0  # seconds

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, applied: Sequence[Remedy] = ()) -> Pretended:
        self.now += self.before_start()
        for remedy in applied:
            if isinstance(self.effects.get(remedy.name), Exception):
                raise self.effects[remedy.name]
        return Pretended(self, applied)

    def empty(self) -> Pretended:
        return Pretended(self, ())

    def learn(self, worker: Pretended) -> None: ...

    def step_s(self, names: Sequence[str]) -> float:
        seconds = STEP_S
        for name in names:
            kept = self.effects[name]
            if isinstance(kept, list):
                kept = kept[min(len(kept), sum(name in one for one in self.built)) - 1]
            seconds *= kept
        return seconds


def remedy(name: str, cause: str = "loader", **more: Any) -> Remedy:
    return Remedy(name, cause, f"do {name}", **more)


@pytest.fixture
def diagnosed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function: a world → its report."""

    def run(world: World, minutes: float = 6.0) -> Report:
        monkeypatch.setattr(diagnosis, "Workers", lambda _: world)
        monkeypatch.setattr(remedies, "of_training", lambda _: world.found)
        monkeypatch.setattr(remedies, "told", lambda *_: [])
        monkeypatch.setattr(diagnosis, "time", SimpleNamespace(monotonic=lambda: world.now))
        monkeypatch.setattr(diagnosis, "contest", lambda a, b, **more: contest(a, b, clock=lambda: world.now, **more))
        return diagnosis.diagnose(world.subject, minutes=minutes)

    contest = diagnosis.contest
    return run


def measured(report: Report) -> dict[str, float | None]:
    return {finding.cause: finding.size for finding in report.findings if finding.sure == "measured"}


def test_a_run_without_a_fault_has_no_finding(diagnosed: Any) -> None:
    """Six remedies that do nothing: each is told with its interval, none is a finding."""
    names = [f"remedy {n}" for n in range(6)]
    report = diagnosed(World(dict.fromkeys(names, 1.0), [remedy(name) for name in names]))
    assert report.findings == ()
    assert [line.split(":")[0] for line in report.without_effect] == names
    assert all("no measurable effect" in line or "slower" in line for line in report.without_effect)
    assert all(trial["alone"]["ratio"] == pytest.approx(1.0, abs=0.02) for trial in report.facts["trials"])
    assert {trial["outcome"] for trial in report.facts["trials"]} <= {"no effect", "slower"}
    assert "nothing of what was tried makes it measurably faster" in report.headline
    assert report.facts["noise"] < 0.02


def test_faults_are_found_with_their_sizes(diagnosed: Any) -> None:
    """Steps that keep 1/2 and 4/5 of their time: shares of 50 % and 20 %, and 2.5 times together."""
    found = [remedy("nothing"), remedy("small", "slow_optimizer"), remedy("large", "fp32")]
    report = diagnosed(World({"nothing": 1.0, "small": 0.8, "large": 0.5}, found))
    assert measured(report) == pytest.approx({"fp32": 0.5, "slow_optimizer": 0.2}, abs=0.02)
    assert [stair["remedy"]["name"] for stair in report.facts["waterfall"]] == ["large", "small"]
    assert report.facts["together"]["ratio"] == pytest.approx(2.5, rel=0.03)
    for line in ("as it is", "+ large", "+ small", "together"):
        assert line in report.drawn


def test_what_shows_once_is_no_finding(diagnosed: Any) -> None:
    """20 % in its first process, nothing in the second: both are told, and nobody is alarmed."""
    report = diagnosed(World({"luck": [0.8, 1.0]}, [remedy("luck")]))
    assert report.findings == ()
    (line,) = report.without_effect
    assert line.startswith("luck: no effect that shows twice: 1.2")


def test_of_a_group_only_the_best_is_taken(diagnosed: Any) -> None:
    """bf16 and fp16 exclude each other."""
    found = [remedy("fp16", "fp32", group="precision"), remedy("bf16", "fp32", group="precision")]
    report = diagnosed(World({"fp16": 0.8, "bf16": 0.7}, found))
    assert [stair["remedy"]["name"] for stair in report.facts["waterfall"]] == ["bf16"]
    assert any(
        line.startswith("fp16: 1.2") and "another that excludes it is faster" in line for line in report.without_effect
    )


def test_what_another_has_taken_away_is_told_with_it(diagnosed: Any) -> None:
    """Batches fetched ahead and batches that lie ready gain the same time: one finding, and no word of "no effect"."""
    found = [remedy("held", bound=True), remedy("ahead")]
    world = World({}, found)
    world.step_s = lambda names: STEP_S / (2.0 if "ahead" in names else 1.8 if names else 1.0)  # type: ignore[method-assign]
    world.draw = random.Random(2)
    report = diagnosed(world)
    (finding,) = report.findings
    assert "ahead makes it 2.0" in finding.title
    assert any(line.startswith("held: 1.8") and "upon this nothing more" in line for line in finding.evidence)
    assert report.without_effect == ()


def test_what_does_not_fit_is_an_answer(diagnosed: Any) -> None:
    """Memory that runs out in one variant: the others are measured all the same."""
    world = World({"large": Gone("CUDA out of memory", memory=True), "small": 0.5}, [remedy("large"), remedy("small")])
    report = diagnosed(world)
    assert "large: not measured: it does not fit (CUDA out of memory)" in report.without_effect
    assert len(measured(report)) == 1


@pytest.mark.parametrize("run_alone", [False, True])
def test_what_has_no_room_beside_the_run_is_measured_in_turn(diagnosed: Any, run_alone: bool) -> None:
    """A device that holds the run and not a large variant beside it, or not even the run twice: each is then built when
    it is its turn, the sizes are as they would be, and what has no room by itself is still an answer."""
    sizes = {"": 6 if run_alone else 3, "large": 8, "small": 2, "huge": 11}
    found = [remedy("large", "padding"), remedy("small", "fp32"), remedy("huge")]
    world = World({"large": 0.25, "small": 0.8, "huge": 1.0}, found)
    held: list[Pretended] = []

    def start(applied: Sequence[Remedy] = ()) -> Pretended:
        held[:] = [one for one in held if one.open]
        needed = [max([sizes[name] for name in names] or [sizes[""]]) for names in [[r.name for r in applied]]]
        taken = sum(max([sizes[name] for name in one.names] or [sizes[""]]) for one in held)
        if sum(needed) + taken > 10:
            raise Gone("CUDA out of memory", memory=True)
        held.append(Pretended(world, applied))
        return held[-1]

    world.start = start  # type: ignore[method-assign]
    report = diagnosed(world)
    assert measured(report) == pytest.approx({"padding": 0.75, "fp32": 0.2}, abs=0.02)
    assert "huge: not measured: it does not fit (CUDA out of memory)" in report.without_effect


def test_only_what_can_be_applied_and_keeps_the_learning_is_applied(diagnosed: Any) -> None:
    """A bound and a change of what is learnt are told; keys of the third are written, and those of a periodic one."""
    found = [
        remedy("kept batches", bound=True, keys={"data.a": 1}),
        remedy("larger stride", "overlapping_windows", same_learning=False, keys={"data.stride": 8}),
        remedy("bf16", "fp32", keys={"train.precision": "bf16"}),
        remedy("like rows", "padding", same_learning=False, same_rows=True, keys={"data.b": 1}),
    ]
    world = World({"kept batches": 0.5, "larger stride": 0.6, "bf16": 0.7, "like rows": 0.75}, found)
    world.learns = [Periodic(cause="too_often", title="", keys=(("train.eval_interval", 500),))]
    report = diagnosed(world)
    assert report.facts["apply"] == {"train.precision": "bf16", "train.eval_interval": 500}
    assert len(report.facts["waterfall"]) == 4
    assert "up to" in report.headline
    by_cause = {finding.cause: finding for finding in report.findings}
    assert by_cause["overlapping_windows"].severity == "note"
    assert by_cause["padding"].severity == "warning"  # an epoch has the same rows
    assert re.search(r"up to (1\.9|2\.0)", by_cause["loader"].title)


def test_other_programs_on_its_core_are_told(diagnosed: Any) -> None:
    """As much waiting for the core as computing on it: half of the time is another's, and a fault of twice is twice."""
    world = World({"slow": 0.5}, [remedy("slow")])
    world.crowd = 1.0
    assert measured(diagnosed(world)) == pytest.approx({"loader": 0.5, "other_processes": 0.5}, abs=0.02)


def test_what_there_was_no_time_for_is_told(diagnosed: Any) -> None:
    """A quarter of a minute: what was not tried is named, and the time is kept."""
    names = [f"remedy {n}" for n in range(30)]
    world = World(dict.fromkeys(names, 1.0), [remedy(name) for name in names])
    report = diagnosed(world, minutes=0.25)
    assert any(line.endswith("not tried, for want of time (--minutes)") for line in report.without_effect)
    assert world.now < 1.3 * 15


def test_time_that_is_left_decides_what_could_be_chance(diagnosed: Any) -> None:
    """6 % in noise of ±25 %: nothing to half a minute, and found in ten, which are not used up."""
    found = []
    for minutes in (0.5, 10):
        world = World({"small": 1 / 1.06, "nothing": 1.0}, [remedy("small"), remedy("nothing", "fp32")])
        world.draw = Wide(3)
        found.append(measured(diagnosed(world, minutes=minutes)))
        assert world.now < 1.1 * 60 * minutes
    assert found[0] == {}
    assert found[1] == pytest.approx({"loader": 0.057}, abs=0.02)


def test_long_steps_are_measured_within_the_time(diagnosed: Any) -> None:
    """Steps of ten seconds and three minutes: a fault of three times is found, and the time kept but for a third."""
    world = World({"slow": 0.33, "nothing": 1.0}, [remedy("slow"), remedy("nothing", "fp32")])
    world.step_s = lambda names: 10 * World.step_s(world, names) / STEP_S  # type: ignore[method-assign]
    report = diagnosed(world, minutes=6)
    assert world.now < 1.33 * 360
    assert report.facts["trials"][0]["alone"]["ratio"] == pytest.approx(3.0, rel=0.1)


def test_a_training_that_does_not_run_is_an_error(diagnosed: Any) -> None:
    """What fails as it is cannot be measured, and says why."""
    world = World({}, [])
    world.start = lambda *_: (_ for _ in ()).throw(Gone("ValueError: no data"))  # type: ignore[method-assign]
    with pytest.raises(RunError, match="the training cannot be measured: ValueError: no data"):
        diagnosed(world)


def test_no_alarm_in_forty_runs_without_a_fault(diagnosed: Any) -> None:
    """40 diagnoses with four remedies that do nothing, in noise of ±30 %: none has a finding."""
    for seed in range(40):
        names = [f"remedy {n}" for n in range(4)]
        world = World(dict.fromkeys(names, 1.0), [remedy(name) for name in names])
        world.draw = Heavy(seed)
        assert diagnosed(world, minutes=1).findings == (), seed


class Wide(random.Random):
    """Noise of ±25 %."""

    def uniform(self, a: float, b: float) -> float:
        return super().uniform(0.75, 1.25)


class Heavy(random.Random):
    """Noise with a tail."""

    def uniform(self, a: float, b: float) -> float:
        return 1.0 + 0.3 * abs(self.gauss(0, 1)) * self.random()


def test_what_is_left_to_the_device(diagnosed: Any) -> None:
    """10,000 tokens/s, twice as many with a remedy, 50,000 at the device's best: 2.5 times are left. What is no more
    than what was reached is no limit."""
    world = World({"one": 0.5}, [remedy("one")])
    world.at_best = 50_000
    report = diagnosed(world)
    assert report.facts["limit"]["left"] == pytest.approx(2.5, rel=0.05)
    assert re.search(r"limit of the device .* 50,000  × 2\.[45]\d is left; products\s+of 1 MFLOP a step", report.drawn)
    world.at_best = 19_000
    assert diagnosed(world).facts["limit"] is None


def test_compiling_says_from_which_step_on_it_pays(diagnosed: Any) -> None:
    """30 s at the start, and 10 ms a step become 5: from some 6,000 steps on."""
    report = diagnosed(World({"compiled": 0.5}, [remedy("compiled", "not_compiled")]))
    (found,) = report.findings
    (told,) = [line for line in found.evidence if "pays" in line]
    assert (steps := re.search(r"take 30\.?0? s longer: it pays in trainings of ([\d,]+) steps", told)), told
    assert int(steps[1].replace(",", "")) == pytest.approx(6_000, rel=0.05)
    assert report.facts["trials"][0]["pays_from_steps"] == int(steps[1].replace(",", ""))


@pytest.mark.parametrize(("building_s", "most_s"), [(1.0, 95.0), (30.0, 118.0), (80.0, 118.0)])
def test_slow_building_takes_of_the_time_that_is_left(diagnosed: Any, building_s: float, most_s: float) -> None:
    names = [f"one of many, {number}" for number in range(60)]
    world = World(dict.fromkeys(names, 1.0), [remedy(name) for name in names])
    building = [building_s]  # the first process loads everything
    world.before_start = lambda: building.pop() if building else 0.1
    diagnosed(world, minutes=1.5)
    assert 0.6 * most_s < world.now < most_s


def test_where_no_time_is_left_one_remedy_is_tried_in_the_fewest_blocks(diagnosed: Any) -> None:
    world = World({"kept": 0.3, "fused": 0.5}, [remedy("kept"), remedy("fused", "optimizer")])
    world.before_start = lambda: 100.0
    report = diagnosed(world, minutes=1.5)
    assert [trial["name"] for trial in report.facts["trials"]] == ["kept"]
    assert report.facts["itself"]["seconds"] > 0
