"""Recomputing changes no bit of what is learnt, computes again what it says, and keeps what it says."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ganeum.config.schema import Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.models import checkpointing
from ganeum.models.checkpointing import Mode
from ganeum.models.gpt import GPT
from ganeum.models.kernels import mode_kept
from ganeum.plan import flops
from ganeum.plan.architecture import ours
from ganeum.plan.execution import Execution
from ganeum.step.optimizer_step import OptimizerStep

B, T, C, LAYERS = 4, 16, 32, 2


def gpt(mode: Mode, **keys: Any) -> GPT:
    torch.manual_seed(0)
    model = GPT(Model(**({"n_layer": LAYERS, "n_head": 2, "n_embd": C, "block_size": T, "vocab_size": 70} | keys)))
    checkpointing.apply(model.blocks, mode)
    return model


def batch(step: int) -> tuple[Tensor, Tensor]:
    tokens = torch.randint(70, (B, T + 1), generator=torch.Generator().manual_seed(step))
    return tokens[:, :-1], tokens[:, 1:]


def learnt(model: GPT, *, device: str = "cpu", precision: Any = "fp32", compiled: bool = False) -> dict[str, Tensor]:
    """Three steps of two micro-batches → every loss, norm and weight, and the random state afterwards."""
    step = OptimizerStep(model.to(device), Train(batch_size=2 * B), device, precision=precision, compiled=compiled)
    model.train()
    torch.manual_seed(5)
    found = dict(model.named_parameters())
    for n in range(3):
        x, y = (torch.cat(parts) for parts in zip(batch(2 * n), batch(2 * n + 1), strict=True))
        result = step.on(WindowBatch(x, y), at_once=B, step=n, learning_rate=1e-2)
        found |= {f"loss {n}": result.loss, f"norm {n}": result.grad_norm}
    return found | {"random": torch.get_rng_state()}


@pytest.mark.parametrize("mode", ["selective", "whole"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("style", ["gpt2", "modern"])
def test_every_bit_is_that_of_the_plain_run(style: str, dropout: float, precision: Any, mode: Mode) -> None:
    """Losses, norms, weights and random state, with our own attention (no dropout) and with torch's."""
    ours, plain = (learnt(gpt(m, style=style, dropout=dropout), precision=precision) for m in (mode, "none"))
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)


def products(model: GPT) -> int:
    """FLOPs of the matrix products of one forward and backward pass."""
    model.train()
    with FlopCounterMode(display=False) as counter:
        model.hidden(batch(0)[0]).sum().backward()
    return counter.get_total_flops()


ATTENTION = 4 * T * C  # the whole square, which both kernels compute at 16 tokens


@pytest.mark.parametrize("style", ["gpt2", "modern"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("mode", ["selective", "whole"])
def test_the_plan_says_what_is_computed_again(mode: Mode, dropout: float, style: str) -> None:
    """flops.recomputed_per_token, which arithmetic alone gives, is what torch counts."""
    model = gpt(mode, dropout=dropout, style=style)
    extra = products(model) - products(gpt("none", dropout=dropout, style=style))
    planned = flops.of(ours.architecture(model.config, 70), Execution(length=T, checkpointing=mode))
    assert planned.recomputed_per_token == extra / (B * T)


@pytest.mark.parametrize(
    ("mode", "dropout", "again"),
    [
        ("selective", 0.0, 2 * 4 * C * C),  # up
        ("selective", 0.1, 2 * 4 * C * C),
        ("whole", 0.0, 2 * (3 + 1 + 4) * C * C + ATTENTION),  # qkv, out, up
        ("whole", 0.1, 2 * (3 + 1 + 4 + 4) * C * C + ATTENTION),  # and down, for the dropout behind it
    ],
)
def test_it_computes_again_only_what_it_must(mode: Mode, dropout: float, again: int) -> None:
    """FLOPs of the matrix products per token and block beyond the plain run's, counted by torch."""
    extra = products(gpt(mode, dropout=dropout)) - products(gpt("none", dropout=dropout))
    assert again == extra / (LAYERS * B * T)


def kept(model: GPT) -> int:
    """Numbers that the forward pass of the blocks keeps for the backward pass, of one token in one block; weights not
    counted."""
    x, storages = torch.randn(B, T, C, requires_grad=True), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        for block in model.train().blocks:
            x = block(x, None, None)
    numbers = sum(storage.nbytes() // 4 for pointer, storage in storages.items() if pointer not in weights)
    return numbers // (LAYERS * B * T)


def test_it_keeps_what_it_says() -> None:
    """In fp32, in numbers of n_embd: 16 and the attention's weights; of these without the MLP half 7; the input."""
    attention = 2 * T  # H · T weights a token, within one block of queries
    plain, selective, whole = (kept(gpt(mode)) for mode in ("none", "selective", "whole"))
    assert 16 * C + attention == pytest.approx(plain, abs=4)  # each norm keeps two numbers more
    assert 7 * C + attention == pytest.approx(selective, abs=2)
    assert C == whole


@pytest.mark.parametrize("mode", ["selective", "whole"])
def test_without_gradients_nothing_is_recomputed(mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluation and generation never enter a checkpoint, and compute the same logits."""
    model = gpt(mode).eval()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(checkpointing, "checkpoint", refuse)
    with torch.no_grad():
        torch.testing.assert_close(model(batch(0)[0]), gpt("none").eval()(batch(0)[0]), rtol=0, atol=0)


def test_a_copy_recomputes_with_its_own_weights() -> None:
    """A deep copy of a model is independent of it."""
    model = gpt("whole")
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    other.train().hidden(batch(0)[0]).square().sum().backward()
    assert all(p.grad is None for p in model.parameters())
    assert other.blocks[0].mlp.up.weight.grad.abs().sum() > 0


@pytest.mark.slow
def test_compiled_it_learns_the_same_within_rounding() -> None:
    """Losses, norms, weights and random state within 1e-4 of the plain compiled run's: it may be fused otherwise."""
    found = []
    for mode in ("whole", "none"):
        torch.compiler.reset()  # a dropout that an earlier model in this process had makes this one's a variable
        found.append(learnt(gpt(mode, dropout=0.1), compiled=True))  # type: ignore[arg-type]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("mode", ["selective", "whole"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_too_every_bit_is_that_of_the_plain_run(precision: Any, mode: Mode) -> None:
    """With dropout, and kernels that add in a fixed order."""
    with mode_kept():
        torch.use_deterministic_algorithms(True, warn_only=True)
        ours, plain = (learnt(gpt(m, dropout=0.1), device="cuda", precision=precision) for m in (mode, "none"))
    torch.testing.assert_close(ours, plain, rtol=0, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
@pytest.mark.parametrize("mode", ["selective", "whole"])
def test_a_gpu_is_never_waited_for(mode: Mode) -> None:
    """With torch's synchronisation check as an error, a step goes through."""
    step = OptimizerStep(gpt(mode, dropout=0.1).cuda().train(), Train(batch_size=B), "cuda")
    step.on(WindowBatch(*batch(0)), step=0, learning_rate=1e-3)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step.on(WindowBatch(*batch(1)), step=1, learning_rate=1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
