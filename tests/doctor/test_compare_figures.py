"""`ganeum doctor compare`: its interval, its noise and its checklist, on figures that were made up."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from ganeum.config import load
from ganeum.doctor import compare
from ganeum.doctor.compare import checklist, gap, interval, settings
from ganeum.doctor.compare.side import Side
from ganeum.doctor.compare.stretch import Stretch
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
    """Steps of two parts with noise of a tenth, bursts of others' work among them: nothing is called slower."""
    draw = random.Random(5)

    def run() -> Side:
        rows, busy = [], 1.0
        for step in range(60):
            busy = draw.choice([1.0, 1.0, 1.0, 1.6]) if draw.random() < 0.2 else busy
            parts = {
                name: seconds * busy * draw.lognormvariate(0, 0.1)
                for name, seconds in (("forward", 1.0), ("backward", 2.0))
            }
            rows.append(Stretch(step, 1, sum(parts.values()), 100.0, parts))
        return Side("it", tuple(rows))

    reports = [compare.report(run(), run()) for _ in range(40)]
    assert [] == [one.title for report in reports for one in report.alarms]


@pytest.mark.parametrize(
    ("loss", "verdict"), [(math.log(257) + 0.1, "good"), (0.3, "bad"), (40.0, "bad"), (float("nan"), "bad")]
)
def test_the_first_loss_of_a_fresh_model_is_judged(loss: float, verdict: str, trained: Path) -> None:
    """Near ln(vocabulary) or not; of a trained one, or of a later step, nothing is said."""
    config = load(trained / "plain" / "config.yaml", [])
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
