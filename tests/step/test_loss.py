"""The chunked loss is cross-entropy on full logits, and never holds those."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ganeum.step.loss import linear_cross_entropy, token_nats


def problem(rows: int, width: int, vocab: int, padding: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """hidden (rows, width), weight (vocab + padding, width) whose padding would win every softmax, targets (rows,)."""
    g = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, width, generator=g, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab + padding, width, generator=g, dtype=dtype)
    weight[vocab:] *= 100
    return hidden, weight.requires_grad_(), torch.randint(vocab, (rows,), generator=g)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 33),
    width=st.integers(1, 9),
    vocab=st.integers(1, 40),
    padding=st.integers(0, 7),
    chunk=st.integers(1, 40),
    ignored=st.integers(0, 5),
    seed=st.integers(0, 999),
)
def test_it_is_torchs_cross_entropy_whatever_the_shape_and_the_chunk(
    rows: int, width: int, vocab: int, padding: int, chunk: int, ignored: int, seed: int
) -> None:
    """Value and both gradients are those of F.cross_entropy on the full logits of the real vocabulary."""
    hidden, weight, targets = problem(rows, width, vocab, padding, seed, torch.float64)
    targets[:ignored] = -1
    loss = linear_cross_entropy(hidden, weight, targets, vocab_size=vocab, chunk=chunk, scale=0.25)
    ours = torch.autograd.grad(3 * loss, (hidden, weight))
    expected = 0.25 * F.cross_entropy(hidden @ weight[:vocab].T, targets, ignore_index=-1, reduction="sum")
    theirs = torch.autograd.grad(3 * expected, (hidden, weight))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(ours, theirs)
    assert not ours[1][vocab:].any(), "padding must get no gradient at all"


def test_its_gradient_is_that_of_finite_differences() -> None:
    """gradcheck in fp64."""
    hidden, weight, targets = problem(7, 5, 11, 3, dtype=torch.float64)
    weight = (weight / 10).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda h, w: linear_cross_entropy(h, w, targets, vocab_size=11, chunk=3), (hidden, weight)
    )


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("chunk", [3, 20])
def test_a_bias_and_a_cap_are_those_of_the_full_logits(cap: float | None, chunk: int) -> None:
    """Value, and gradients of hidden states, weight and bias, through cap · tanh(logits / cap)."""
    hidden, weight, targets = problem(11, 5, 17, 3, dtype=torch.float64)
    weight = (weight / 10).detach().requires_grad_()
    bias = torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    targets[4] = -1
    inputs = (hidden, weight, bias)
    settings = {"vocab_size": 17, "chunk": chunk, "bias": bias, "cap": cap}
    loss = linear_cross_entropy(hidden, weight, targets, scale=0.5, **settings)
    logits = F.linear(hidden, weight[:17], bias[:17])
    logits = logits if cap is None else cap * torch.tanh(logits / cap)
    expected = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    torch.testing.assert_close(loss, 0.5 * expected)
    torch.testing.assert_close(torch.autograd.grad(loss, inputs), torch.autograd.grad(0.5 * expected, inputs))
    torch.testing.assert_close(token_nats(hidden, weight, targets, **settings).sum(), expected.detach())


def test_logits_need_no_weight() -> None:
    """What is given whole is only softmaxed, and is not written into."""
    logits = torch.randn(9, 7, dtype=torch.float64, requires_grad=True)
    before, targets = logits.detach().clone(), torch.arange(9) % 7
    loss = linear_cross_entropy(logits, None, targets, vocab_size=7, chunk=4)
    expected = F.cross_entropy(logits, targets, reduction="sum")
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))
    assert torch.equal(logits, before)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_in_half_precision_it_is_as_near_as_the_dtype_allows(dtype: torch.dtype, tolerance: float) -> None:
    """Against fp32: the loss within a thousandth, the gradients within a few units of the dtype's rounding."""
    hidden, weight, targets = problem(256, 64, 500, 12)
    weight = (weight / 10).detach().requires_grad_()
    loss = linear_cross_entropy(hidden, weight, targets, vocab_size=500, chunk=100, dtype=dtype, scale=1 / 256)
    ours = torch.autograd.grad(loss, (hidden, weight))
    expected = F.cross_entropy(hidden @ weight[:500].T, targets)
    theirs = torch.autograd.grad(expected, (hidden, weight))
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=0)
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine - reference).norm() < tolerance * reference.norm()


def test_evaluation_gives_the_nats_of_every_token() -> None:
    """token_nats is cross-entropy without reduction, 0 for an ignored target."""
    hidden, weight, targets = problem(20, 6, 30, 2)
    targets[4] = -1
    nats = token_nats(hidden, weight, targets, vocab_size=30, chunk=8)
    expected = F.cross_entropy(hidden @ weight[:30].T, targets, ignore_index=-1, reduction="none")
    torch.testing.assert_close(nats, expected.detach())
    assert not nats.requires_grad


def test_a_token_of_vanishing_probability_has_finite_nats() -> None:
    """exp(−500) is 0 in fp32; its loss is 500 all the same."""
    hidden, weight = torch.tensor([[1.0]]), torch.tensor([[500.0], [0.0]])
    nats = token_nats(hidden, weight, torch.tensor([1]), vocab_size=2, chunk=1)
    torch.testing.assert_close(nats, torch.tensor([500.0]))


class Largest(TorchDispatchMode):
    """The largest number of elements that any new tensor of a wide dtype has."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, Tensor) and tensor.dtype in (torch.float32, torch.float64):
                self.elements = max(self.elements, tensor.numel())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_logits_of_the_whole_batch_never_exist_in_fp32(dtype: torch.dtype) -> None:
    """512 rows × 1,000 columns in chunks of 32: no fp32 tensor is larger than one chunk, in training or evaluation."""
    hidden, weight, targets = problem(512, 8, 1_000, 24)
    with Largest() as seen:
        linear_cross_entropy(hidden, weight, targets, vocab_size=1_000, chunk=32, dtype=dtype).backward()
        token_nats(hidden, weight, targets, vocab_size=1_000, chunk=32, dtype=dtype)
    assert seen.elements == 32 * 1_024


def test_a_frozen_weight_gets_no_gradient() -> None:
    """With the output layer frozen, as under adapters, none of its size is made, and hidden's gradient is the same."""
    hidden, weight, targets = problem(64, 48, 300, 20)
    # In bf16, so that every tensor in fp32 is a gradient or a chunk.
    half: dict[str, Any] = {"vocab_size": 300, "chunk": 8, "dtype": torch.bfloat16}
    (expected,) = torch.autograd.grad(linear_cross_entropy(hidden, weight, targets, **half), hidden)
    frozen = weight.detach()
    with Largest() as seen:
        linear_cross_entropy(hidden, frozen, targets, **half).backward()
    torch.testing.assert_close(hidden.grad, expected, rtol=0, atol=0)
    assert seen.elements == 64 * 48


def test_the_gradient_of_a_weight_in_bf16_is_summed_in_fp32() -> None:
    """300 chunks of one row that each add the same: in bf16 the sum would stay at 256 of these."""
    hidden, weight = torch.ones(300, 1), torch.zeros(2, 1, dtype=torch.bfloat16, requires_grad=True)
    linear_cross_entropy(hidden, weight, torch.zeros(300, dtype=torch.int64), vocab_size=2, chunk=1).backward()
    assert weight.grad is not None
    assert weight.grad.flatten().tolist() == [-150.0, 150.0]
