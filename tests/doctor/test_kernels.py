"""Functions written in Python are known for what one kernel of torch's computes, by their numbers alone."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_training import Sound, Tiny, apart
from tiny_training import loaded as loaded
from tiny_training import one_thread as one_thread
from torch import Tensor, nn
from torch.nn import functional as F

from ganeum.doctor.measured import by_turns, cores, kernels
from ganeum.doctor.measured.remedies import told

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked")


class Layer(nn.Module):
    """LayerNorm as lessons write it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.shift, self.eps = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width)), 1e-6

    def forward(self, x: Tensor) -> Tensor:
        middle = x.mean(-1, keepdim=True)
        return self.gain * (x - middle) / torch.sqrt(((x - middle) ** 2).mean(-1, keepdim=True) + self.eps) + self.shift


class MeanSquare(nn.Module):
    """RMSNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


class Nearly(nn.Module):
    """RMSNorm whose epsilon stands in its line alone: of numbers near 1 a larger one gives nearly the same."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Sample(nn.Module):
    """LayerNorm by the deviation of a sample, which no kernel computes."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def erf_gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0)))


def swish(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def quick_gelu(x: Tensor) -> Tensor:
    """An approximation that torch has no kernel for."""
    return x * torch.sigmoid(1.702 * x)


def changed(x: Tensor) -> Tensor:
    """As torch's GELU on a step's tensors, and not elsewhere."""
    return F.gelu(x) if float(x.detach().abs().max()) < 1.2 else x * 0


def modelled(part: Callable[[Tensor], Tensor]) -> Callable[[], Tiny]:
    """A model with that around each block."""

    def make() -> Tiny:
        model = Tiny()
        if isinstance(part, nn.Module):
            model.part = part
        model.around = lambda block, x: part(block(x))
        return model

    return make


def name_of(called: kernels.Called) -> str | None:
    found = kernels.known_as(called)
    return None if found is None else found[0]


def known(part: Callable[[Tensor], Tensor]) -> list[str | None]:
    def look() -> list[str | None]:
        training = Sound(model=modelled(part)).build()
        return [name_of(called) for called in kernels._called(training) if called.code is code]

    code = (part.forward if isinstance(part, nn.Module) else part).__code__  # type: ignore[attr-defined]
    return apart(look)


@pytest.mark.parametrize(
    ("part", "kernel"),
    [
        (Layer(16), "layer_norm(x, …)"),
        (MeanSquare(16), "rms_norm(x, …)"),
        (Nearly(), "rms_norm(x, …)"),
        (tanh_gelu, 'gelu(x, approximate="tanh")'),
        (erf_gelu, "gelu(x)"),
        (swish, "silu(x)"),
    ],
)
def test_what_it_computes_says_what_it_is(part: Callable[[Tensor], Tensor], kernel: str) -> None:
    """Once for the one shape that both blocks have."""
    assert known(part) == [kernel]


@pytest.mark.parametrize("part", [Sample(), quick_gelu, changed])
def test_what_computes_something_else_is_nothing(part: Callable[[Tensor], Tensor]) -> None:
    assert known(part) == [None]


def one_hot(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy as its formula says it."""
    chances = torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True)
    return -(F.one_hot(labels, logits.shape[-1]) * torch.log(chances)).sum(-1).mean()


def shifted(logits: Tensor, labels: Tensor) -> Tensor:
    chances = logits[:, :-1].log_softmax(-1)
    return -chances.gather(-1, labels[:, 1:, None]).mean()


def smoothed(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), label_smoothing=0.1)


@pytest.mark.parametrize(
    ("loss", "kernel"),
    [(one_hot, "cross_entropy(logits, labels)"), (shifted, "cross_entropy(logits, labels)"), (smoothed, None)],
)
def test_a_loss_by_hand_is_known(loss: Callable[[Tensor, Tensor], Tensor], kernel: str | None) -> None:
    logits, labels = torch.randn(2, 6, 48, requires_grad=True), torch.randint(48, (2, 6))
    shape = torch.Size(())
    called = kernels.Called(loss, (logits.detach(), labels), shape, frozenset())
    assert name_of(called) == kernel


def each_token(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits.log_softmax(-1).gather(-1, labels[..., None])[..., 0]


def each_shifted(logits: Tensor, labels: Tensor) -> Tensor:
    return -logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:, None])[..., 0]


@pytest.mark.parametrize(("loss", "places"), [(each_token, 6), (each_shifted, 5)])
def test_a_loss_of_each_token_is_known_and_its_kernel_gives_as_many(loss: Any, places: int) -> None:
    logits, labels = torch.randn(2, 6, 48), torch.randint(48, (2, 6))
    found = kernels.known_as(kernels.Called(loss, (logits, labels), torch.Size((2, places)), frozenset()))
    assert found is not None
    assert found[1](logits).shape == (2, places)


def test_ids_that_are_no_classes_are_never_tried_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU that would end the process."""
    tried: list[Any] = []
    monkeypatch.setattr(kernels.functional, "cross_entropy", lambda *given, **_: tried.append(given))
    hidden, ids = torch.randn(2, 6, 16), torch.full((2, 6), 40)
    called = kernels.Called(lambda x, _: x.sum(), (hidden, ids), torch.Size(()), frozenset())
    assert kernels.known_as(called) is None
    assert not tried


def test_what_is_bound_later_does_not_end_a_step() -> None:
    """A function within another, called before a name of the other's that it may use has a value."""

    def part(x: Tensor) -> Tensor:
        def inner(y: Tensor, ready: bool) -> Tensor:
            return y * (later if ready else 1.0)

        x = inner(x, False)
        later = 2.0
        return inner(x, True)

    assert known(part) == [None]


def test_a_slow_one_is_told_with_its_line_and_what_it_calls_is_not() -> None:
    """Twenty times over what is done once: `deep` is told, and not `tanh_gelu` within it; each block calls it."""

    def deep(x: Tensor) -> Tensor:
        for _ in range(20):
            tanh_gelu(x)
        return tanh_gelu(x)

    every = apart(lambda: kernels.of(Sound(model=modelled(deep)).build()))
    assert not any(one["name"] == "tanh_gelu" for one in every)
    found = every[0]
    assert (found["calls"], found["kernel"]) == (2, 'torch.nn.functional.gelu(x, approximate="tanh")')
    assert found["name"].endswith("deep")
    assert found["where"].startswith("test_kernels.py, line ")
    assert 0 < found["interval"][0] <= found["seconds"] <= found["interval"][1]


def test_a_function_that_calls_the_kernel_has_nothing_to_save() -> None:
    """The loss of the training calls torch's own."""
    found = apart(lambda: kernels.of(Sound().build()))
    assert [one["name"] for one in found] == ["loss_of"]
    assert told({"device": "cpu", "kernels": [one | {"step_s": 0.05} for one in found]}) == []


FOUND: dict[str, Any] = {"name": "f", "where": "a.py, line 1", "kernel": "torch.nn.functional.silu(x)", "calls": 2}


@pytest.mark.parametrize(
    ("saved", "said"),
    [((0.0012, 0.001, 0.0014), "warning"), ((0.0003, 0.00025, 0.0004), "note"), ((0.0003, -0.0001, 0.001), None)],
)
def test_what_they_save_together_decides(saved: tuple[float, float, float], said: str | None) -> None:
    """Of a step of 10 ms, two functions that save half of it each."""
    half = {"seconds": saved[0] / 2, "interval": (saved[1] / 2, saved[2] / 2), "step_s": 0.01}
    found = told({"device": "cpu", "kernels": [FOUND | half, FOUND | half]})
    assert [finding.severity for finding in found] == ([] if said is None else [said])
    assert all(finding.size == pytest.approx(saved[0] / 0.01) for finding in found)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer looks; and by the clock of the thread that steps: other programs that take the core take none of its
    time."""
    monkeypatch.setattr(by_turns, "time", SimpleNamespace(perf_counter=time.thread_time))
    monkeypatch.setattr(by_turns, "cores", SimpleNamespace(waited=lambda: None, difference=cores.difference))
    monkeypatch.setattr(by_turns, "LONGEST_S", 0.1)
