"""Batches from the memory map."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ganeum.config.schema import Data
from ganeum.data.batches import Batches, validation_windows
from ganeum.errors import DataError

COUNTING = np.arange(1000, dtype=np.uint16)  # a token is its own place


def test_targets_are_the_inputs_shifted_by_one() -> None:
    """Each row is a run of consecutive tokens; its target is the next token at every place."""
    x, y = Batches(COUNTING, Data(), block_size=16, batch_size=8, seed=1).batch(0)
    assert x.shape == y.shape == (8, 16)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x + 1, y)
    assert torch.equal(x[:, :1] + torch.arange(16), x)


@given(stride=st.integers(1, 40), batch=st.integers(1, 9), epoch=st.integers(0, 5))
def test_an_epoch_shows_every_window_once(stride: int, batch: int, epoch: int) -> None:
    """In one epoch no window comes twice, all lie `stride` apart, and fewer than a batch are left for later."""
    batches = Batches(COUNTING, Data(order="epochs", stride=stride), 32, batch, seed=3)
    steps = batches.steps_per_epoch
    seen = [int(s) for step in range(epoch * steps, (epoch + 1) * steps) for s in batches.batch(step)[0][:, 0]]
    windows = list(range(0, 1000 - 32, stride))
    assert len(seen) == len(set(seen))
    assert set(seen) <= set(windows)
    assert len(windows) - len(seen) < batch


def test_document_000_trains_on_254_batches_an_epoch() -> None:
    """order: epochs with stride 4, length 32 and batch 128 over 130,520 tokens."""
    tokens = np.zeros(130_520, np.uint16)
    assert Batches(tokens, Data(order="epochs", stride=4), 32, 128, 0).steps_per_epoch == 254


@pytest.mark.parametrize("order", ["random", "epochs"])
def test_resuming_needs_only_the_step(order: str) -> None:
    """A batch is a function of (seed, step): asked for alone, out of order or again, it is the same."""
    data = Data(order=order)
    first = Batches(COUNTING, data, 16, 4, seed=9)
    walked = [first.batch(step)[0] for step in range(40)]
    torch.manual_seed(123)
    np.random.seed(5)
    resumed = Batches(COUNTING, data, 16, 4, seed=9)
    assert all(torch.equal(walked[step], resumed.batch(step)[0]) for step in (39, 17, 0, 17))
    assert not torch.equal(walked[0], Batches(COUNTING, data, 16, 4, seed=10).batch(0)[0])


def test_neither_the_corpus_nor_the_map_is_copied(tmp_path: Path) -> None:
    """Batches hold a view of the file; what is written there later is what a batch shows."""
    COUNTING.tofile(tmp_path / "train.bin")
    tokens = np.memmap(tmp_path / "train.bin", np.uint16, "r+")
    batches = Batches(tokens, Data(), 16, 4, seed=1)
    assert np.shares_memory(batches._views, tokens)
    tokens[:] = 7
    assert (batches.batch(0)[0] == 7).all()


def test_random_order_ignores_stride() -> None:
    """Random offsets fall anywhere, not only on multiples of a stride."""
    x, _ = Batches(COUNTING, Data(stride=16), 16, 64, seed=1).batch(0)
    assert len({int(start) % 16 for start in x[:, 0]}) > 8


@given(n=st.integers(17, 400), wanted=st.integers(1, 500))
def test_validation_windows_are_fixed_apart_and_spread(n: int, wanted: int) -> None:
    """No token is predicted twice, at most the wanted size is taken (one window at least), up to both ends."""
    x, y = validation_windows(COUNTING[:n], 16, wanted)
    starts = x[:, 0].tolist()
    assert torch.equal(x + 1, y)
    assert len(set(y.flatten().tolist())) == y.numel()
    assert len(starts) == min((n - 1) // 16, max(1, wanted // 16))
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert n - 1 - (starts[-1] + 16) < 16 * (1 + (n - 1) // 16 / len(starts))


def test_all_validation_windows() -> None:
    """`all` takes every window: 62 of 16 tokens in 1,000, the last token only as a target."""
    assert validation_windows(COUNTING, 16, "all")[0].shape == (62, 16)


def test_a_corpus_shorter_than_a_window_is_refused(tmp_path: Path) -> None:
    """16 tokens cannot fill a window of 16 and its last target."""
    COUNTING[:16].tofile(tmp_path / "train.bin")
    tokens = np.memmap(tmp_path / "train.bin", np.uint16, "r")
    with pytest.raises(DataError) as error:
        Batches(tokens, Data(), 16, 4, seed=1)
    assert str(error.value) == (
        "DataError: 16 tokens are fewer than one window of model.block_size 16\n"
        f"  where  {tmp_path}/train.bin\n"
        "  why    a window is 16 inputs and one more token as the last target\n"
        "  try    more text, or model.block_size: 15 at most"
    )


def test_fewer_windows_than_a_batch_are_refused() -> None:
    """An epoch without a full batch would never end."""
    with pytest.raises(DataError) as error:
        Batches(COUNTING, Data(order="epochs"), 256, 4, seed=1)
    assert str(error.value) == (
        "DataError: one batch is 4 windows, but there are only 3\n"
        "  why    `order: epochs` never repeats a window within a pass, and 1,000 tokens make 3 windows of 256 "
        "at a stride of 256\n"
        "  try    train.batch_size: 3, a smaller data.stride, or data.order: random"
    )
