"""A model begins the same from the same seed, and the trial of deterministic kernels leaves no trace."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_corpus import go

from ganeum.config import Config, load
from ganeum.config.change import change
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train import randomness
from ganeum.train.start import make_deterministic, start


@pytest.fixture
def settled(yaml: Path) -> Config:
    config = load(yaml)
    return change(config, {"model.vocab_size": 257, "train.loss_chunk": 64, "train.activation_checkpointing": "none"})


@pytest.fixture(autouse=True)
def any_kernel_afterwards() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_the_trial_of_deterministic_kernels_leaves_no_trace(settled: Config) -> None:
    """Weights, gradients and random numbers to come are those of a start without it; strict mode stays on."""
    step = start(settled)
    before = {name: tensor.clone() for name, tensor in step.model.state_dict().items()}
    states = randomness.state()
    assert make_deterministic(step)
    assert torch.are_deterministic_algorithms_enabled()
    assert all(torch.equal(before[name], tensor) for name, tensor in step.model.state_dict().items())
    assert all(parameter.grad is None for parameter in step.model.parameters())
    assert torch.equal(states["torch"], randomness.state()["torch"])


def test_where_a_kernel_is_missing_torch_only_warns(settled: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training goes on, without the promise of equal bits."""
    from ganeum.train import start as module

    def without(*args: object, **options: object) -> None:
        raise RuntimeError("cumsum_cuda_kernel does not have a deterministic implementation, but you set …")

    monkeypatch.setattr(module, "linear_cross_entropy", without)
    assert not make_deterministic(start(settled))
    assert torch.is_deterministic_algorithms_warn_only_enabled()


def test_every_random_state_comes_back() -> None:
    """torch's, numpy's and Python's, from what torch.save with weights_only can hold."""
    import io
    import random

    import numpy as np

    randomness.seed_all(5)
    random.gauss(0, 1)  # keeps a second number in store
    np.random.standard_normal()
    file = io.BytesIO()
    torch.save(randomness.state(), file)
    expected = [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)]
    file.seek(0)
    randomness.restore(torch.load(file, weights_only=True))
    assert expected == [torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), random.gauss(0, 1)]


def test_a_run_leaves_torch_as_strict_as_it_was(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training, evaluating and measuring take strict mode for themselves, not for what the process does next."""
    from ganeum.train import pace, run, trial

    def strict(config: Config, **settings: Any) -> OptimizerStep:
        step = start(config, **settings)
        assert make_deterministic(step)
        return step

    for module in (run, trial):
        monkeypatch.setattr(module, "start", strict)
    monkeypatch.setattr(pace, "MEASURE_S", 0.0)
    for overrides in (["hours=0.0001"], ["hours=0.0001", "eval_only=true"]):
        go(yaml, *overrides, "sample.interval=0")
        assert not torch.are_deterministic_algorithms_enabled()
