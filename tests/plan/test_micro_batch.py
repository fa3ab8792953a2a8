"""How many sequences at once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ganeum.config.schema import Config, Model, Train
from ganeum.hardware.device import Device
from ganeum.plan import micro_batch


def config(batch_size: int, **model: object) -> Config:
    shape = {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1024, "vocab_size": 50_257}
    return Config(model=Model(**shape | model), train=Train(batch_size=batch_size))  # type: ignore[arg-type]


def gpu(usable_gib: float) -> Device:
    return Device("a GPU", "cuda", memory_gib=usable_gib, usable_gib=usable_gib, capability=(8, 0))


CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)


@settings(deadline=None)
@given(batch=st.integers(1, 512), usable=st.floats(0.1, 200))
def test_it_divides_and_fits(batch: int, usable: float) -> None:
    """The choice divides the batch and fits by the upper bound, or is 1 and says that it does not fit."""
    run = config(batch)
    size, reason = micro_batch.choose(run, gpu(usable))
    assert batch % size == 0
    needed = micro_batch.needed(run, gpu(usable), size)
    fits = needed.high + needed.framework <= usable * 2**30
    assert fits or (size == 1 and reason.startswith("even one sequence needs about"))


@settings(deadline=None)
@given(batch=st.integers(1, 512), usable=st.floats(2, 100), more=st.floats(1, 3))
def test_more_memory_never_makes_it_smaller(batch: int, usable: float, more: float) -> None:
    """A larger device takes at least as many sequences."""
    run = config(batch)
    assert micro_batch.choose(run, gpu(usable))[0] <= micro_batch.choose(run, gpu(usable * more))[0]


@pytest.mark.parametrize(("expected", "block_size"), [(4, 1024), (64, 64), (1, 8192)])
def test_a_cpu_takes_4096_tokens(expected: int, block_size: int) -> None:
    """On a CPU it is 4,096 tokens at once where the batch is larger than that, and at least one sequence."""
    size, reason = micro_batch.choose(config(64, n_layer=1, block_size=block_size), CPU)
    assert expected == size
    assert (expected == 64) == reason.startswith("the whole batch fits at once")


def test_an_evaluation_takes_more_sequences_than_a_step() -> None:
    """Where memory bounds the micro-batch of a large model, an evaluation takes a multiple of it that fits; a CPU, busy
    with 4,096 tokens, takes as many as in training."""
    run = config(64)
    size, _ = micro_batch.choose(run, gpu(4))
    settled = run.model_copy(update={"train": run.train.model_copy(update={"micro_batch_size": size})})
    more, reason = micro_batch.choose_for_evaluation(settled, gpu(4))
    assert more > size
    assert more % size == 0
    assert reason.startswith(f"{more // size} times the micro-batch, without a backward pass: about ")
    assert micro_batch.needed_to_evaluate(settled, gpu(4), more).high <= 4 * 2**30
    small = config(64, n_layer=1)
    settled = small.model_copy(update={"train": small.train.model_copy(update={"micro_batch_size": 4})})
    assert (4, "as training: more bring no speed") == micro_batch.choose_for_evaluation(settled, CPU)
