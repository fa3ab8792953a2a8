"""Each rule moves a weight as the library that it is known from does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ganeum.step.eight_bit import AdamW8bit
from ganeum.step.rules import SGD, Adafactor, AdamW, Muon, Pace, Rule, orthogonal

RATE, DECAY, UPDATES = 0.01, 0.1, 5


def gradient(shape: tuple[int, ...], n: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 + n)) * (n + 1)


def start(shape: tuple[int, ...]) -> Tensor:
    return gradient(shape, 0).flip(0) / 10


def ours(rule: Rule, shape: tuple[int, ...], decay: float = DECAY) -> Tensor:
    """Five updates of a stack of one."""
    weight = start(shape)[None]
    state = rule.start(weight)
    for n in range(UPDATES):
        weight, state = rule(weight, gradient(shape, n)[None], state, Pace(RATE, decay, torch.tensor(n + 1.0)))
    return weight[0]


def theirs(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], shape: tuple[int, ...]) -> Tensor:
    weight = nn.Parameter(start(shape))
    optimizer = make([weight])
    for n in range(UPDATES):
        weight.grad = gradient(shape, n)
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("shape", [(24, 16), (16,)])
@pytest.mark.parametrize(
    ("rule", "reference"),
    [
        (AdamW(0.9, 0.95), lambda p: torch.optim.AdamW(p, RATE, (0.9, 0.95), weight_decay=DECAY)),
        (SGD(0.9), lambda p: torch.optim.SGD(p, RATE, momentum=0.9, weight_decay=DECAY)),
        (SGD(0.0), lambda p: torch.optim.SGD(p, RATE, weight_decay=DECAY)),
        (Adafactor(), lambda p: torch.optim.Adafactor(p, RATE, weight_decay=DECAY)),
    ],
    ids=["adamw", "sgd with momentum", "sgd", "adafactor"],
)
def test_five_updates_are_torchs(rule: Rule, reference: Any, shape: tuple[int, ...]) -> None:
    """Matrix and vector end where torch's own optimizer takes them, within fp32's rounding."""
    torch.testing.assert_close(ours(rule, shape), theirs(reference, shape), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(24, 16), (7, 40)])
@pytest.mark.parametrize("rows", [1, 3, 5, 24])
def test_adafactor_by_rows_is_adafactor(shape: tuple[int, int], rows: int) -> None:
    """Five updates of a matrix, some of its rows at a time, end where those of the whole do, its state too."""
    rule = Adafactor()
    whole, cut = start(shape)[None], start(shape)[None]
    states = [rule.start(whole), rule.start(cut)]
    for n in range(UPDATES):
        pace = Pace(RATE, DECAY, torch.tensor(n + 1.0))
        whole, states[0] = rule(whole, gradient(shape, n)[None], states[0], pace)
        pairs = list(zip(cut.split(rows, dim=1), gradient(shape, n)[None].split(rows, dim=1), strict=True))
        moved, states[1] = rule.by_rows([partial(tuple, pair) for pair in pairs], states[1], pace)
        cut = torch.cat(list(moved), dim=1)
    torch.testing.assert_close((cut, states[1]), (whole, states[0]), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
def test_muon_is_torchs_with_the_size_of_adamw(shape: tuple[int, int]) -> None:
    """torch.optim.Muon computes in bf16; so does ours when told, and gives the same weights."""
    expected = theirs(lambda p: torch.optim.Muon(p, RATE, DECAY, momentum=0.95, adjust_lr_fn="match_rms_adamw"), shape)
    torch.testing.assert_close(ours(Muon(0.95, torch.bfloat16), shape), expected, rtol=1e-6, atol=1e-6)


def test_a_stack_is_its_matrices_one_by_one() -> None:
    """Three matrices orthogonalised together are each as alone."""
    stack = torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(0))
    alone = torch.stack([orthogonal(matrix[None])[0] for matrix in stack])
    torch.testing.assert_close(orthogonal(stack), alone)


def test_singular_values_end_near_one() -> None:
    """Those of a random 64 × 64 matrix, from 16 down to 0.1 and less, come to between 0.6 and 1.3; but for the
    smallest, which five steps cannot lift so far (Jordan et al. 2024)."""
    matrix = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonal(matrix[None])[0])
    assert values.max() < 1.3
    assert (values > 0.6).float().mean() > 0.95


def test_muon_moves_as_far_as_adamw() -> None:
    """The first AdamW update has a root mean square of the learning rate; Muon's 0.2 of it is what AdamW's settle at
    (Liu et al. 2025, section 2.2)."""
    for shape in ((64, 64), (256, 64), (64, 256)):
        weight = torch.zeros(1, *shape)
        rule = Muon(0.95, torch.float32)
        moved, _ = rule(weight, gradient(shape, 0)[None], rule.start(weight), Pace(1.0, 0.0, torch.tensor(1.0)))
        assert moved.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.15)


def test_eight_bits_are_torchaos() -> None:
    """torchao's AdamW8bit gives the same weights; what it rounds on the way, ours rounds to the same level."""
    pytest.importorskip("torchao")
    from torchao.optim import AdamW8bit as Reference

    shape = (64, 128)
    with torch.compiler.set_stance("force_eager"):
        expected = theirs(lambda p: Reference(p, RATE, (0.9, 0.95), weight_decay=DECAY), shape)
    result = ours(AdamW8bit(0.9, 0.95), shape)
    # A value half-way between two levels may fall to either side by fp32's rounding: a few weights of 8,192.
    assert (result - expected).abs().gt(1e-5).float().mean() < 2e-3
    torch.testing.assert_close(result, expected, rtol=0, atol=RATE)


def test_eight_bits_are_as_near_as_their_levels() -> None:
    """What is packed and unpacked is off by at most 3 % of its block's largest, and its state takes 2 bytes and 2 / 64
    a weight: 2 codes, and 2 scales of 4 bytes for 256."""
    pytest.importorskip("torchao")
    rule = AdamW8bit(0.9, 0.95)
    weight = gradient((64, 128), 0)[None]
    state = rule.start(weight)
    assert sum(t.numel() * t.element_size() for t in state.values()) == 8_192 * 2 + 8_192 // 256 * 8
    values = {"mean": weight, "square": weight.square()}
    packed = rule._packed(values)
    for name, value in values.items():
        blocks = value.reshape(-1, 256)
        largest = blocks.abs().amax(-1, keepdim=True)
        assert ((rule._unpack(name, packed) - blocks).abs() <= 0.03 * largest).all()
