"""Learning rates, worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeum.config.schema import Train
from ganeum.step.schedule import learning_rate, min_learning_rate, warmup_iters


def train(**keys: Any) -> Train:
    return Train(**({"learning_rate": 6e-4, "min_learning_rate": 6e-5, "warmup_iters": 100} | keys))


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 6e-4 * 1 / 101),
        (99, 6e-4 * 100 / 101),
        (100, 6e-4),
        (350, 6e-5 + 0.5 * (1 + math.cos(math.pi * 250 / 900)) * 5.4e-4),
        (550, 3.3e-4),
        (1_000, 6e-5),
        (5_000, 6e-5),
    ],
)
def test_cosine_is_nanogpts(step: int, expected: float) -> None:
    """The values of nanoGPT's get_lr with warmup_iters 100, lr_decay_iters 1,000: (it+1)/(warmup+1), then cosine."""
    assert learning_rate(step, train(), 1_000) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "expected"), [(100, 6e-4), (799, 6e-4), (800, 6e-4), (900, 3.3e-4), (1_000, 6e-5)])
def test_wsd_is_flat_then_a_straight_line(step: int, expected: float) -> None:
    """With decay_share 0.2 of 1,000 steps it falls from step 800 on; half-way it is the mean of both ends."""
    assert learning_rate(step, train(schedule="wsd"), 1_000) == pytest.approx(expected)


def test_constant_stays_at_the_peak() -> None:
    """After the warm-up nothing changes, also beyond the end."""
    rates = {learning_rate(step, train(schedule="constant"), 1_000) for step in (100, 999, 1_000, 9_999)}
    assert rates == {6e-4}


@pytest.mark.parametrize(("total", "expected"), [(10, 5), (100, 10), (5_000, 100), (1_000_000, 2_000)])
def test_auto_warmup_is_two_percent_within_bounds(total: int, expected: int) -> None:
    """2 % of all, at least 10, at most 2,000, never more than half."""
    assert warmup_iters(train(warmup_iters="auto"), total) == expected


def test_a_share_of_all_steps_is_rounded_up() -> None:
    """3 % of 1,010 steps are 31, as Hugging Face's warmup_ratio counts."""
    assert warmup_iters(train(warmup_iters=0.03), 1_010) == 31


def test_auto_minimum_is_a_tenth() -> None:
    """6e-4 ends at 6e-5."""
    assert min_learning_rate(train(min_learning_rate="auto")) == pytest.approx(6e-5)


@given(
    step=st.integers(0, 3_000),
    total=st.integers(1, 2_000),
    warmup=st.integers(0, 2_500) | st.just("auto"),
    schedule=st.sampled_from(["cosine", "wsd", "constant"]),
    share=st.floats(0, 1),
)
def test_it_is_always_positive_and_never_above_the_peak(
    step: int, total: int, warmup: Any, schedule: Any, share: float
) -> None:
    """Whatever the lengths, even a warm-up longer than the run."""
    rate = learning_rate(step, train(warmup_iters=warmup, schedule=schedule, decay_share=share), total)
    assert 0 < rate <= 6e-4 * (1 + 1e-12)


def test_a_tenth_is_written_as_one() -> None:
    """3e-3 / 10 is 0.0003, without the rounding of binary numbers behind it."""
    assert repr(min_learning_rate(train(learning_rate=3e-3, min_learning_rate="auto"))) == "0.0003"
