"""`ganeum doctor compare`: its interval, its noise and its checklist, on figures that were made up."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from ganeum.config import load
from ganeum.config.change import change
from ganeum.doctor import compare
from ganeum.doctor.compare import checklist, gap, interval, settings
from ganeum.doctor.compare.side import Side
from ganeum.doctor.compare.stretch import Stretch
from ganeum.doctor.finding import Report
from ganeum.hardware.card import card


def stretch(seconds: float, tokens: float | None = 100.0) -> Stretch:
    return Stretch(1, 1, seconds, tokens)


def side(values: list[float], **more: Any) -> Side:
    return Side("it", tuple(stretch(value) for value in values), **more)


def test_the_interval_is_the_published_one() -> None:
    """Mann-Whitney's 95 % bounds: for samples of 5 and 6 the tables' critical value is 3, for 4 and 4 it is 0."""
    ours, theirs = [1.0, 2.0, 3.0, 4.0, 5.0], [10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
    every = sorted(a - b for a in ours for b in theirs)
    found = interval.apart(ours, theirs)
    assert (every[3], every[-4]) == found.interval
    small = interval.apart([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0])
    assert (-7.0, -1.0) == small.interval
    assert interval.apart([1.0, 2.0, 3.0], [4.0, 5.0, 6.0]).interval is None  # the tables have none either


def test_the_interval_holds_what_it_promises() -> None:
    """Of 300 pairs of samples a known distance apart, 95 % and more of the intervals hold it."""
    draw, held = random.Random(3), 0
    for _ in range(300):
        ours, theirs = [draw.expovariate(1) + 0.5 for _ in range(10)], [draw.expovariate(1) for _ in range(12)]
        found = interval.apart(ours, theirs).interval
        assert found is not None
        held += found[0] <= 0.5 <= found[1]
    assert held >= 300 * 0.95 - 3 * math.sqrt(300 * 0.05 * 0.95)


def test_a_run_that_changed_on_its_way_is_no_measure() -> None:
    """A baseline whose second half is a third slower hides a tenth, and does not hide three times."""
    uneven = [1.0, 1.01] * 10 + [1.33, 1.34] * 10
    tenth, thrice = (gap.between(side([value * times for value in uneven]), side(uneven)) for times in (1.1, 3.0))
    assert not tenth.is_slower
    assert thrice.is_slower
    assert "such runs differ by 3" in compare.report(side([v * 1.1 for v in uneven]), side(uneven)).headline


def test_forty_pairs_of_equal_runs_raise_no_alarm() -> None:
    """Steps of two parts with noise of a tenth, bursts of slow steps among them: nothing is called slower, and what
    takes three times as long is. Their records say that nothing else ran, so that no alarm is withheld for it."""
    draw = random.Random(5)

    def run(times: float = 1.0) -> Side:
        rows, busy = [], 1.0
        for step in range(60):
            busy = draw.choice([1.0, 1.0, 1.0, 1.6]) if draw.random() < 0.2 else busy
            parts = {
                name: times * seconds * busy * draw.lognormvariate(0, 0.1)
                for name, seconds in (("forward", 1.0), ("backward", 2.0))
            }
            rows.append(Stretch(step, 1, sum(parts.values()), 100.0, parts, others=0.0))
        return Side("it", tuple(rows))

    reports = [compare.report(run(), run()) for _ in range(40)]
    assert [] == [one.title for report in reports for one in report.alarms]
    assert compare.report(run(3.0), run()).alarms


@pytest.mark.parametrize(
    ("loss", "verdict"), [(math.log(257) + 0.1, "good"), (0.3, "bad"), (40.0, "bad"), (float("nan"), "bad")]
)
def test_the_first_loss_of_a_fresh_model_is_judged(loss: float, verdict: str) -> None:
    """Near ln(vocabulary) or not; of a trained one, or of a later step, nothing is said."""
    config = load("configs/one_book.yaml", [])
    known = {"plan": {"model": {"vocab_size": 257}}, "losses": {1: loss}}
    assert verdict == checklist.first_loss(side([1.0], config=config, **known)).verdict
    if math.isfinite(loss):
        later = side([1.0], config=config, plan=known["plan"], losses={50: loss})
        assert "not known" == checklist.first_loss(later).verdict
        assert "not known" == checklist.first_loss(side([1.0], **known)).verdict


def test_a_norm_is_judged_by_its_own_running_median() -> None:
    """A norm of 30 throughout is nobody's alarm; one of 8 among 0.5 is, at its step."""
    high = checklist.gradient_norm(side([1.0], norms={n: 30.0 + n % 3 for n in range(1, 60)}))
    assert "good" == high.verdict
    jump = checklist.gradient_norm(side([1.0], norms={n: 8.0 if n == 40 else 0.5 for n in range(1, 60)}))
    assert ("bad", "gradient_norm") == (jump.verdict, jump.cause)
    assert "16 times its own running median at step 40" in jump.why


def test_settings_are_weighed_by_two_plans() -> None:
    """Recomputation costs by the plan of a card of the catalogue, a name nothing, and the seed is not named."""
    fast = load("configs/one_book.yaml", ["train.activation_checkpointing=none", "train.micro_batch_size=8"])
    slow = load(
        "configs/one_book.yaml",
        ["train.activation_checkpointing=whole", "train.micro_batch_size=8", "seed=7", "log.tensorboard=false"],
    )
    found = {one.key: one for one in settings.differences(slow, fast, card("RTX 4090"), 130_520)}
    assert {"train.activation_checkpointing", "log.tensorboard"} == set(found)
    planned = found["train.activation_checkpointing"].planned
    assert planned is not None
    assert 1.1 < planned < 1.45  # a third more arithmetic in the matrices
    assert "by the plan a token takes 1." in found["train.activation_checkpointing"].sentence()


def test_runs_that_were_logged_unlike_often_are_put_together_alike() -> None:
    """Every tenth step takes five times as long, of both: a median of single steps has nothing of it, a median of means
    over ten has all of it. Two equal runs are equal, and what is twice as slow is found."""
    draw = random.Random(7)

    def steps(count: int, times: float = 1.0) -> list[Stretch]:
        slow = [5.0 if n % 10 == 9 else 1.0 for n in range(count)]
        return [stretch(times * value * draw.lognormvariate(0, 0.02)) for value in slow]

    def logged(some: list[Stretch]) -> Side:
        means = [sum(one.seconds for one in some[at : at + 10]) / 10 for at in range(0, len(some), 10)]
        return Side("baseline", tuple(Stretch(10, 10, seconds, 100.0) for seconds in means))

    baseline = logged(steps(400))
    same, twice = (compare.report(Side("run", tuple(steps(400, times))), baseline) for times in (1.0, 2.0))
    assert same.headline.startswith("no measurable difference: it takes 1")
    assert twice.facts["gap"]["ratio"] == pytest.approx(2, rel=0.02)
    assert twice.facts["gap"]["interval"][0] > 1.9


def test_processor_time_tells_waiting_from_work() -> None:
    """Three times as long with as much work is waiting; with three times the work it is not."""

    def made(seconds: float, cpu_s: float) -> Side:
        each = {"forward": 0.9 * seconds, "other": 0.1 * seconds}
        return Side("it", tuple(Stretch(n, 1, seconds, 100.0, each, cpu_s=cpu_s) for n in range(20)))

    waits, works, turns = (compare.report(made(3.0, cpu_s), made(1.0, 1.0)) for cpu_s in (1.0, 3.0, 9.0))
    assert "its processors are at work for 1.00 times as long: most of the difference is waiting" in told(waits)
    assert "its processors are at work for 3.00 times as long, too" in told(works)
    assert any("for 9.00 times as long: more threads" in line for line in told(turns))
    assert "  processor time  " in waits.drawn
    assert {"run": 0.01, "baseline": 0.01} == waits.facts["gap"]["processor_s"]


def told(report: Report) -> tuple[str, ...]:
    return report.findings[0].evidence


def test_a_model_of_somebody_elses_is_not_compared_by_keys_of_a_gpt() -> None:
    """Beside a GPT its source is what differs; of two copies of one model nothing acts on the time."""
    gpt = load("configs/one_book.yaml", ["model.n_layer=2"])
    theirs = load("examples/docstrings/config.yaml", [])
    keys = {one.key for one in settings.differences(theirs, gpt, None)}
    assert "model.source" in keys
    assert not keys & {"model.n_layer", "model.n_embd", "data.directory", "data.max_length"}
    plan = {"model": {"layers": 4, "source": "here"}, "parameters": {"total": 9}, "data": {"identity": {"train": "a"}}}
    copy = {**plan, "model": {"layers": 4, "source": "there"}}
    moved = change(theirs, {"model.source": "there", "data.train": "elsewhere.jsonl"})
    alike = settings.differences(theirs, moved, None, None, settings.Same.of(plan, copy))
    assert {("model.source", ()), ("data.train", ())} == {(one.key, one.parts) for one in alike}
    assert not settings.Same.of(plan, {}).model
    assert {"data.train": False, "model.source": True} == {one.key: one.acts_on_learning for one in alike}
    (other,) = settings.differences(theirs, change(theirs, {"data.train": "elsewhere.jsonl"}), None)
    assert other.acts_on_learning


def test_examples_held_out_of_other_examples_are_other_text() -> None:
    """`data.val_share` of two files has one name in both plans, and is not one text."""
    config = load("examples/docstrings/config.yaml", ["data.val=null"])

    def made(train: str, loss: float) -> Side:
        plan = {"data": {"identity": {"train": train, "val": "0.02 of train by seed 0"}}}
        return side([1.0] * 8, config=config, plan=plan, val_losses={9: loss}, tokens_at={9: 900.0})

    assert "bad" == checklist.same_loss(made("a", 3.0), made("a", 2.0)).verdict
    other = checklist.same_loss(made("a", 3.0), made("b", 2.0))
    assert "not known" == other.verdict
    assert "other text is held out" in other.why


def test_padding_is_no_other_work_and_alarms_where_it_is_slower() -> None:
    """One model whose rows are filled up: its plan has more arithmetic for a token, and that is the padding. In as much
    time it is a note. Its lengths in the plan are those of its batches."""

    def made(seconds: float, padding: float, flops: float, **model: Any) -> Side:
        lengths = {"length": round(64 / (1 - padding)), "source_length": round(128 / (1 - padding))}
        shape = {"family": "t5", "layers": 4, "width": 32, "vocab_size": 128, **lengths, **model}
        plan = {"model": shape, "parameters": {}, "flops": {"per_token": flops}}
        rows = (Stretch(n, 1, seconds, 100.0, {"forward": seconds}, padding) for n in range(20))
        return Side("it", tuple(rows), plan=plan)

    slower, alike = (compare.report(made(times, 0.5, 2e6), made(1.0, 0.0, 1e6)) for times in (2.0, 1.0))
    assert [("padding", "warning", 0.5)] == [(one.cause, one.severity, one.size) for one in slower.findings]
    assert [("padding", "note")] == [(one.cause, one.severity) for one in alike.findings]
    wider = compare.report(made(2.0, 0.0, 2e6, width=64), made(1.0, 0.0, 1e6))
    assert "more_work" in {one.cause for one in wider.alarms}
    assert wider.headline.endswith(
        "of another model (t5 of 4 × 64, vocabulary 128, the baseline t5 of 4 × 32, vocabulary 128)"
    )


def test_a_plan_that_was_measured_loosely_is_told_with_its_bounds() -> None:
    """2 s (1 to 4) beside 1 s (0.5 to 2), of as many tokens: twice, and anything from a half to eight times."""

    def made(step_s: float) -> Side:
        time = {"step_s": step_s, "low": step_s / 2, "high": step_s * 2}
        return side([1.0] * 8, plan={"time": time, "batch": {"tokens_per_step": 100}})

    drawn = compare.report(made(2.0), made(1.0)).drawn
    assert ["a", "step,", "as", "planned", "×", "2", "(0.5", "to", "8)"] in [
        line.split() for line in drawn.splitlines()
    ]
