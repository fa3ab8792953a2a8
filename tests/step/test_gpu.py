"""What only a GPU can show: no waiting, every precision, compiling. Left out where torch finds none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.config.schema import Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.models.gpt import GPT
from ganeum.step import rounding
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
    found = [step.on(WindowBatch(*batch()), step=n, learning_rate=1e-2).loss for n in range(steps)]
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
    step.on(WindowBatch(*(torch.cat((t, t)) for t in batch())), at_once=8, step=0, learning_rate=1e-3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        result = step.on(WindowBatch(*(torch.cat((t, t)) for t in batch())), at_once=8, step=1, learning_rate=1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert result.loss.isfinite()


KINDS = [
    {"optimizer": "muon"},
    {"optimizer": "adafactor"},
    {"optimizer": "sgd"},
    {"weights": "bf16"},
    {"optimizer_offload": True},
    {"optimizer": "muon", "optimizer_offload": True, "weights": "bf16", "parametrization": "mup"},
    pytest.param(
        {"optimizer": "adamw8bit"}, marks=pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is missing")
    ),
]


def stepping(keys: dict[str, Any], device: str = "cuda", precision: Any = "bf16") -> OptimizerStep:
    torch.manual_seed(0)
    model = GPT(Model(n_layer=2, n_head=2, n_embd=64, block_size=64, vocab_size=300)).to(device)
    if keys.get("weights") == "bf16":
        rounding.to_bf16(model)
    return OptimizerStep(model, Train(batch_size=8, **keys), device, precision=precision)


@pytest.mark.parametrize("keys", KINDS, ids=str)
def test_no_optimizer_waits_for_the_gpu(keys: dict[str, Any]) -> None:
    """Nor do weights in bf16, nor state on the CPU; and a bad batch changes neither weights nor state."""
    step = stepping(keys)
    step.on(WindowBatch(*batch()), step=0, learning_rate=1e-3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.on(WindowBatch(*batch()), step=1, learning_rate=1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    before = copy.deepcopy((step.model.state_dict(), step.optimizer.state_dict()))
    good, step.hidden = step.hidden, lambda **inputs: good(**inputs) * torch.nan
    step.on(WindowBatch(*batch()), step=2, learning_rate=1e-3)
    after = copy.deepcopy((step.model.state_dict(), step.optimizer.state_dict()))
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("keys", [keys for keys in KINDS if isinstance(keys, dict)], ids=str)
def test_every_optimizer_learns_on_a_gpu_what_it_learns_on_a_cpu(keys: dict[str, Any]) -> None:
    """The losses of six steps agree within 3 %."""
    found = []
    for device in ("cpu", "cuda"):
        step = stepping(keys, device)
        found.append([step.on(WindowBatch(*batch()), step=n, learning_rate=3e-3).loss.item() for n in range(6)])
    assert found[1] == pytest.approx(found[0], rel=0.03)


def test_state_on_the_cpu_lies_there_and_changes_little() -> None:
    """In fp32 six steps end with the losses of torch's fused AdamW within 1e-4, and the GPU holds two fp32 values a
    weight less."""
    found, held = [], []
    for offload in (False, True):
        torch.cuda.synchronize()
        start = torch.cuda.memory_allocated()
        step = stepping({"optimizer_offload": offload}, precision="fp32")
        found.append([step.on(WindowBatch(*batch()), step=n, learning_rate=3e-3).loss.item() for n in range(6)])
        held.append(torch.cuda.memory_allocated() - start)
        weights = sum(p.numel() for p in step.model.parameters())
        del step
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert held[0] - held[1] > 0.9 * 8 * weights


def test_state_on_the_cpu_is_resumed_bit_for_bit() -> None:
    """Six steps, and three + state + three, end with the same weights."""
    keys = {"optimizer_offload": True}
    straight = stepping(keys)
    for n in range(6):
        straight([batch()], step=n, learning_rate=1e-3)
        if n == 2:
            saved = copy.deepcopy((straight.model.state_dict(), straight.state_dict()))
    resumed = stepping(keys)
    resumed.model.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    for n in range(3, 6):
        resumed([batch()], step=n, learning_rate=1e-3)
    torch.testing.assert_close(resumed.model.state_dict(), straight.model.state_dict(), rtol=0, atol=0)
