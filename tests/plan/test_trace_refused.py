"""What cannot be traced of somebody's step: refused, with its line, the reason and a way out."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganeum.errors import TraceError
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan import predict_memory
from ganeum.plan.trace.anybody import trace

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
A100 = card("A100 PCIe 40GB")


@pytest.mark.parametrize(
    ("build", "device", "suggestion"),
    [
        (lambda: nn.Linear(4, 4).cuda(), CPU, '--gpu "RTX 4090" for one; in Python gpu="RTX 4090"'),
        (lambda: nn.LazyLinear(4).cuda(), A100, "nn.Linear, with sizes, for nn.LazyLinear"),
        (lambda: torch.jit.script(nn.Linear(4, 4)).cuda(), A100, "the module itself, without torch.jit.script"),
    ],
)
def test_what_cannot_be_built_is_said_with_a_way_out(
    build: Callable[[], nn.Module], device: Device, suggestion: str
) -> None:
    """Without a card, with layers that wait for numbers, and as a script."""
    with pytest.raises(TraceError, match="build failed") as raised:
        trace(build, lambda model: model(torch.ones(2, 4)), device)
    assert raised.value.suggestion == suggestion


@pytest.mark.parametrize(
    ("build", "gpu"),
    [(lambda model: model.cuda(), "A100 PCIe 40GB"), (lambda model: nn.Sequential(model), None)],
)
def test_a_model_that_is_there_keeps_its_weights(build: Callable[[nn.Module], nn.Module], gpu: str | None) -> None:
    """Moved or run it would lose them; a copy of it may be traced."""
    model = nn.Linear(4, 4)
    before = model.weight.detach().clone()
    device = "cpu" if gpu is None else "cuda"

    def step(given: nn.Module) -> None:
        given(torch.randn(2, 4, device=device)).sum().backward()

    with pytest.raises(TraceError, match="the weights of a Linear were made before"):
        predict_memory(lambda: build(model), step, gpu=gpu)
    assert predict_memory(lambda: build(copy.deepcopy(model)), step, gpu=gpu).peak_allocated
    assert type(model.weight) is nn.Parameter
    assert torch.equal(before, model.weight)
    assert model.weight.grad is None


def test_what_torch_has_no_fake_form_of_is_refused() -> None:
    """CTC asks cuDNN whether it can do it."""
    lengths = torch.full((2,), 5)

    def step(model: nn.Module) -> None:
        scores = model(torch.randn(20, 2, 8, device="cuda")).log_softmax(-1)
        F.ctc_loss(scores, torch.ones(2, 5, dtype=torch.int64, device="cuda"), 4 * lengths, lengths)

    with pytest.raises(TraceError, match="torch has no fake form of an operation"):
        trace(lambda: nn.Linear(8, 8).cuda(), step, A100)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (lambda y: y[y > 0], "the memory of this step depends on its numbers: aten.nonzero.default"),
        (lambda y: torch.unique(y), "the memory of this step depends on its numbers: aten._unique2.default"),
    ],
)
def test_shapes_that_depend_on_numbers_are_refused(line: Callable[[Tensor], Tensor], what: str) -> None:
    """With the line that has them."""
    with pytest.raises(TraceError) as raised:
        trace(lambda: nn.Linear(4, 4).cuda(), lambda model: line(model(torch.randn(2, 4, device="cuda"))), A100)
    assert what == raised.value.what
    assert "test_trace_refused.py, line" in str(raised.value.where)
    assert "(metrics, plots, sampling)" in str(raised.value.suggestion)


def test_what_wants_an_array_is_refused() -> None:
    """numpy knows nothing of fake tensors."""
    with pytest.raises(TraceError, match="step failed") as raised:
        trace(lambda: nn.Linear(4, 4).cuda(), lambda model: numpy.mean(model.weight.detach().cpu().numpy()), A100)
    assert raised.value.why == "fake tensors have shapes and no numbers, and here the code needs some"


def test_a_step_on_the_cpu_alone_is_refused() -> None:
    """It would take no GPU memory, which is hardly what was meant."""
    with pytest.raises(TraceError, match="nothing of this step is on the GPU"):
        trace(lambda: nn.Linear(4, 4), lambda model: model(torch.randn(2, 4)).sum().backward(), A100)
