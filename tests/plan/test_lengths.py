"""How long a run is, from its config and its data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ganeum.config.schema import Config, Data, Model, Train
from ganeum.plan.lengths import lengths

BOOK = 130_520


def config(train: Train, *, order: str = "epochs", stride: int | str = 4, block_size: int = 32) -> Config:
    return Config(model=Model(block_size=block_size), data=Data(order=order, stride=stride), train=train)  # type: ignore[arg-type]


def test_document_000s_run() -> None:
    """Its log says 254 steps an epoch and ends after 20 epochs: 5,080 steps, not the 642,440 it reckons."""
    found = lengths(config(Train(batch_size=128, epochs=20)), BOOK)
    assert (32_622, 254, 5_080) == (found.windows, found.steps_per_epoch, found.steps)
    assert (5_080 * 128 * 32, 128 * 32) == (found.tokens_seen, found.tokens_per_step)
    assert pytest.approx(159.4, abs=0.05) == found.repeats_per_token


@given(n=st.integers(1, 500), block=st.integers(1, 40), stride=st.integers(1, 50), batch=st.integers(1, 9))
def test_windows_are_those_that_can_be_listed(n: int, block: int, stride: int, batch: int) -> None:
    """The count of windows is that of the starts from which a window and its last target still fit."""
    found = lengths(config(Train(batch_size=batch, epochs=1), stride=stride, block_size=block), n)
    starts = [start for start in range(0, n, stride) if start + block + 1 <= n]
    assert len(starts) == found.windows
    assert len(starts) // batch == found.steps_per_epoch == found.steps


@pytest.mark.parametrize(
    ("expected", "train"),
    [
        (7, Train(batch_size=4, max_iters=7)),
        (8, Train(batch_size=4, tokens=1_000)),  # 128 tokens a step: 7.8 steps
        (0, Train(batch_size=4, max_iters=7, eval_only=True)),
        (None, Train(batch_size=4, hours=1)),  # how fast it is must be measured first
        (None, Train(batch_size=4)),
    ],
)
def test_every_way_to_say_a_length(expected: int | None, train: Train) -> None:
    """Steps and tokens need no data; hours need the speed."""
    assert expected == lengths(config(train), None).steps


def test_hours_become_steps_with_a_measured_step() -> None:
    """An hour of steps of 2.5 s is 1,440 steps."""
    assert 1_440 == lengths(config(Train(hours=1)), None, step_s=2.5).steps


def test_epochs_need_the_data() -> None:
    """Without the data an epoch has no length, and nothing is made up."""
    found = lengths(config(Train(batch_size=4, epochs=3)), None)
    assert (None, None, None, None) == (found.windows, found.steps_per_epoch, found.steps, found.repeats_per_token)


def test_random_order_counts_epochs_without_overlap() -> None:
    """In random order an epoch is as many sequences as cover the text once, whatever stride says: 130,519 / 32."""
    found = lengths(config(Train(batch_size=1, epochs=1), order="random", stride=4), BOOK)
    assert 4_078 == found.windows == found.steps
    assert pytest.approx(1.0, abs=1e-3) == found.repeats_per_token
