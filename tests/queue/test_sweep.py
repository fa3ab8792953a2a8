"""Sweeps: what `--sweep` says, every combination, drawn ones, names, hopeless trials."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from ganeum.errors import GaneumError
from ganeum.queue.study import hopeless
from ganeum.queue.sweep import Axis, axes, best, drawn, grid, named


def test_a_grid_is_every_combination_the_last_key_fastest() -> None:
    """Two rates and two depths are four trials, by their full names."""
    assert grid(axes(["learning_rate=1e-4,3e-4", "n_layer=2,4"])) == [
        {"train.learning_rate": "1e-4", "model.n_layer": "2"},
        {"train.learning_rate": "1e-4", "model.n_layer": "4"},
        {"train.learning_rate": "3e-4", "model.n_layer": "2"},
        {"train.learning_rate": "3e-4", "model.n_layer": "4"},
    ]


def test_a_value_named_twice_is_one_trial() -> None:
    """`1e-4,1e-4` is a slip of the keyboard, not two runs."""
    assert 2 == len(grid(axes(["seed=1,2,1"])))


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            ["learning_rat=1,2"],
            "ConfigError: there is no key learning_rat to sweep\n"
            "  where  --sweep learning_rat=1,2\n"
            "  try    train.learning_rate",
        ),
        (
            ["learning_rate"],
            "ConfigError: a sweep must read KEY=VALUE,VALUE\n"
            "  where  --sweep learning_rate\n"
            "  try    train.learning_rate=1e-4,3e-4",
        ),
        (
            ["n_layer=2,x", "seed=1", "seed=2"],
            "ConfigError: model.n_layer must be a whole number of at least 1, but it is the text 'x'\n"
            "  where  the command line: model.n_layer=x\n\n"
            "ConfigError: seed is swept twice\n"
            "  where  --sweep seed=2",
        ),
        (
            ["learning_rate=1e-2..1e-4:log"],
            "ConfigError: 1e-2..1e-4:log is no range\n"
            "  where  --sweep learning_rate=1e-2..1e-4:log\n"
            "  why    it reads LOW..HIGH or LOW..HIGH:log, the lower end first, and above zero for the logarithm\n"
            "  try    train.learning_rate=1e-5..1e-2:log",
        ),
        (
            ["name=a,b"],
            "ConfigError: a sweep gives each of its runs a name by what it sweeps\n"
            "  where  --sweep name=a,b\n"
            "  try    --name a, which the names begin with",
        ),
        (
            ["precision=1..2"],
            "ConfigError: train.precision must be one of auto, fp32, tf32, bf16 or fp16, and a range is of numbers\n"
            "  where  --sweep precision=1..2",
        ),
    ],
)
def test_what_is_wrong_with_a_sweep_is_told_before_anything_is_queued(said: list[str], text: str) -> None:
    """Keys, values and ranges are checked as a config's are, all at once."""
    with pytest.raises(GaneumError) as error:
        axes(said)
    assert text == str(error.value)


def test_a_range_cannot_be_gone_through() -> None:
    """A grid over a range is refused with what would do it."""
    with pytest.raises(GaneumError) as error:
        grid(axes(["learning_rate=1e-4..1e-2:log"]))
    assert str(error.value) == (
        "ConfigError: train.learning_rate has no list of values to go through\n"
        "  where  --sweep\n"
        "  why    it is a range from 0.0001 to 0.01\n"
        "  try    --trials 20, which draws so many of them; or train.learning_rate=0.0001,0.001"
    )


def test_drawn_trials_reach_from_end_to_end_and_are_the_same_for_a_seed() -> None:
    """Eight draws of a logarithmic range lie one in each eighth of it (a Latin hypercube)."""
    along = axes(["learning_rate=1e-5..1e-1:log", "n_layer=1..8"])
    trials = drawn(along, 8, seed=3)
    eighths = sorted(int((math.log10(float(trial["train.learning_rate"])) + 5) / 4 * 8) for trial in trials)
    assert list(range(8)) == eighths
    assert list("12345678") == sorted(trial["model.n_layer"] for trial in trials)
    assert trials == drawn(along, 8, seed=3)
    assert trials != drawn(along, 8, seed=4)


def test_a_logarithmic_range_of_whole_numbers_reaches_both_ends() -> None:
    """1 to 64 by the logarithm: the middle is 8, and 64 is drawn too."""
    [axis] = axes(["n_layer=1..64:log"])
    assert ["1", "8", "64"] == [axis.at(share) for share in (0.0, 0.5, 0.999)]


def test_no_more_is_drawn_than_there_is() -> None:
    """Two values give two trials, however many are asked for."""
    assert ["1", "2"] == sorted(trial["seed"] for trial in drawn(axes(["seed=1,2"]), 50, seed=0))


def test_too_many_trials_are_refused() -> None:
    """As too many combinations are: each is a config to check and a directory to make."""
    with pytest.raises(GaneumError) as error:
        drawn(axes(["seed=1..100000000"]), 20_000, seed=0)
    assert "ConfigError: 20,000 trials are too many\n  where  --trials\n  try    at most 10,000" == str(error.value)


def test_names_say_what_is_another_about_a_run() -> None:
    """The keys' last words and values; numbers where that would be too long, or the same twice."""
    assert ["a-learning_rate-1e-4", "a-learning_rate-3e-4"] == named("a", grid(axes(["learning_rate=1e-4,3e-4"])))
    many = [Axis(f"train.a_rather_long_key_{n}", ("1",)) for n in range(9)]
    assert ["a-1"] == named("a", grid(many))
    alike = [{"data.directory": "x/y"}, {"data.directory": "x_y"}]
    assert ["a-1", "a-2"] == named("a", alike)
    assert all(left != right for left, right in pairwise(named("a", alike)))


def test_the_best_is_the_lowest_loss_that_is_a_number() -> None:
    """NaN is no best, and neither is a trial without a loss."""
    assert "b" == best({"a": 3.0, "b": 2.0, "c": math.nan, "d": None})
    assert best({"a": None}) is None


def test_a_trial_above_the_median_of_the_others_at_its_step_is_hopeless() -> None:
    """Optuna's MedianPruner, worked out by hand: others' best by step 20 are 2.0, 2.2, 2.4, 3.0; the median 2.3."""
    others = {1: {10: 2.5, 20: 2.0, 30: 0.1}, 2: {10: 2.2, 20: 2.9}, 3: {20: 2.4}, 4: {10: 4.0, 20: 3.0}}
    assert hopeless({**others, 9: {10: 2.5, 20: 2.31}}, 9) == (
        "hopeless: val loss 2.3100 at step 20, and 2.3000 in the middle of 4 others"
    )
    assert hopeless({**others, 9: {10: 2.29, 20: 2.5}}, 9) is None  # its best counts, not its last
    assert hopeless({**others, 9: {20: 9.0}}, 9) is None  # a first evaluation is never held against it
    del others[4]
    assert hopeless({**others, 9: {10: 9.0, 20: 9.0}}, 9) is None  # three others are too few to judge by
