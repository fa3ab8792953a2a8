"""The arithmetic and the order of windows."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeum.data.order import Offsets, Permutation
from ganeum.data.windows import Windows


def test_document_000_has_254_steps_an_epoch() -> None:
    """130,520 tokens, length 32, stride 4, batch 128: 32,622 windows and 254 full batches, as its log shows."""
    book = Windows(130_520, 32, 4)
    assert (32_622, 254) == (book.count, book.steps_per_epoch(128))


@given(n=st.integers(0, 500), block=st.integers(1, 40), stride=st.integers(1, 50))
def test_windows_are_those_of_the_plain_loop(n: int, block: int, stride: int) -> None:
    """The windows are those of `for i in range(0, len(ids) - max_length, stride)`, and each ends inside the tokens."""
    windows = Windows(n, block, stride)
    loop = list(range(0, n - block, stride))
    assert loop == windows.starts(np.arange(windows.count)).tolist()
    assert all(start + block + 1 <= n for start in loop)


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 2**40))
def test_an_epoch_is_a_permutation(count: int, seed: int, epoch: int) -> None:
    """Every window comes exactly once an epoch, whatever their number, the seed and the epoch."""
    order = Permutation(count, seed, epoch).at(np.arange(count))
    assert list(range(count)) == sorted(order.tolist())


@given(count=st.integers(2, 10**12), places=st.lists(st.integers(0, 10**12), min_size=1, max_size=20))
def test_a_permutation_is_the_same_at_any_place_alone_or_among_others(count: int, places: list[int]) -> None:
    """A place of the order has one value, whichever places are asked for together, and it is in range."""
    order = Permutation(count, seed=7, epoch=3)
    index = np.array(places) % count
    together = order.at(index)
    assert together.tolist() == [order.at(index[i : i + 1]).item() for i in range(len(index))]
    assert together.min() >= 0
    assert together.max() < count


def test_epochs_and_seeds_have_their_own_orders() -> None:
    """Two epochs, or two seeds, share about as many places as chance lets them: 1 on average, of 10,000."""
    index = np.arange(10_000)
    first = Permutation(10_000, 1, 0).at(index)
    for other in (Permutation(10_000, 1, 1), Permutation(10_000, 2, 0)):
        assert (first == other.at(index)).sum() < 10


def test_a_shuffled_order_has_no_trend() -> None:
    """Neighbours in the order are as far apart as in a true shuffle: a third of the range on average, and both ways."""
    order = Permutation(100_000, 5, 0).at(np.arange(100_000))
    steps = np.diff(order)
    assert abs(np.abs(steps).mean() / 100_000 - 1 / 3) < 0.01
    assert abs((steps > 0).mean() - 0.5) < 0.01


@given(n=st.integers(2, 10**11), seed=st.integers(0, 2**63), step=st.integers(0, 2**40))
def test_random_offsets_leave_room_for_a_window(n: int, seed: int, step: int) -> None:
    """Every offset leaves block_size + 1 tokens after it, and the same step gives the same offsets."""
    block = min(n - 1, 256)
    offsets = Offsets(n, block, seed).at(step, 64)
    assert offsets.min() >= 0
    assert offsets.max() + block + 1 <= n
    assert offsets.tolist() == Offsets(n, block, seed).at(step, 64).tolist()


@settings(max_examples=5)
@given(seed=st.integers(0, 2**63))
def test_every_offset_is_drawn(seed: int) -> None:
    """With 8 tokens and windows of 3 the offsets are 0 to 4, each about a fifth of the time."""
    drawn = np.concatenate([Offsets(8, 3, seed).at(step, 50) for step in range(100)])
    assert np.allclose(np.bincount(drawn, minlength=5) / 5000, 0.2, atol=0.04)
    assert drawn.max() == 4


def test_offsets_are_philox_words() -> None:
    """The draw is Philox 4×64-10 with key (seed, 0) and counter (0, 0, 0, step), as numpy's own generator gives it."""
    words = np.random.Philox(key=1337, counter=[0, 0, 0, 42]).random_raw(3)
    assert [int(word) % (1000 - 10) for word in words] == Offsets(1000, 10, 1337).at(42, 3).tolist()
