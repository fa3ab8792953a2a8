"""What only a GPU can show: no waiting, every precision, compiling. Left out where torch finds none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.config.schema import Model, Train
from ganeum.models.gpt import GPT
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train.start import make_deterministic

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")]


@pytest.fixture(autouse=True)
def any_kernel_afterwards() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def losses(steps: int, device: str, precision: Any, compiled: bool = False, deterministic: bool = False) -> list[float]:
    torch.manual_seed(0)
    model = GPT(Model(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=300)).to(device)
    step = OptimizerStep(model, Train(batch_size=8), device, precision=precision, compiled=compiled)
    if deterministic:
        make_deterministic(step)
    found = [step([batch()], step=n, learning_rate=1e-2).loss for n in range(steps)]
    return [loss.item() for loss in found]


def batch() -> tuple[Tensor, Tensor]:
    tokens = torch.randint(300, (8, 65), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_it_learns_on_a_gpu_what_it_learns_on_a_cpu(precision: Any) -> None:
    """The losses of six steps agree within 3 %, in every precision that the GPU computes (emulated bf16 too)."""
    assert losses(6, "cuda", precision) == pytest.approx(losses(6, "cpu", "fp32"), rel=0.03)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_compiled_step_learns_the_same(deterministic: bool) -> None:
    """Within fp32's rounding; also as training runs it, with kernels that add in a fixed order."""
    expected = losses(4, "cuda", "fp32")
    assert losses(4, "cuda", "fp32", compiled=True, deterministic=deterministic) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_never_waits_for_the_gpu(precision: Any, deterministic: bool) -> None:
    """With torch's synchronisation check as an error, two micro-batches and the update go through; also as training
    runs them, with kernels that add in a fixed order."""
    torch.manual_seed(0)
    model = GPT(Model(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=300)).cuda()
    step = OptimizerStep(model, Train(batch_size=16), "cuda", precision=precision)
    if deterministic:
        make_deterministic(step)
    step([batch(), batch()], step=0, learning_rate=1e-3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = step([batch(), batch()], step=1, learning_rate=1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.loss.isfinite()
