"""Each weight is moved by what it should be: matrices by Muon, queries apart from keys, and each exactly once."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from ganeum.config.schema import Lora, Model, Train
from ganeum.errors import MissingExtra
from ganeum.models import adapters
from ganeum.models.gpt import GPT
from ganeum.step import optimizers
from ganeum.step.optimizers import FusedAdamW, Optimizer, Ruled

CPU = torch.device("cpu")
GROUPED = Model(style="modern", n_layer=2, n_head=4, n_kv_head=2, n_embd=32, block_size=16, vocab_size=70)


def built(model: GPT, **keys: Any) -> Optimizer:
    return Optimizer(model, Train(**keys), CPU, torch.float32)


def moved(model: GPT, optimizer: Optimizer) -> dict[str, Tensor]:
    """The change of every weight in one update at a rate of 0.01, from random gradients."""
    for n, parameter in enumerate(model.parameters()):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(n))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer.step(0.01, torch.tensor(1.0), torch.tensor(False))
    return {name: parameter.detach() - before[name] for name, parameter in model.named_parameters()}


def test_weight_decay_is_on_matrices_and_embeddings_only() -> None:
    """nanoGPT's rule: two dimensions and more; every parameter is in one group, the tied head once."""
    model = GPT(Model(n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=70))
    part = built(model, weight_decay=0.1).parts["adamw"]
    assert isinstance(part, FusedAdamW)
    decayed, kept = part.adamw.param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in kept["params"]} == {1}
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "adafactor", "sgd"])
@pytest.mark.parametrize("weights", ["fp32", "bf16"])
def test_every_weight_moves(optimizer: Any, weights: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No element of a used weight is left out, also where a weight is cut into several pieces."""
    monkeypatch.setattr(optimizers, "PIECE", 256)
    monkeypatch.setattr(optimizers, "STACK", 3 * 32 * 32)
    torch.manual_seed(0)
    model = GPT(GROUPED)
    for name, change in moved(model, built(model, optimizer=optimizer, weights=weights, weight_decay=0.0)).items():
        assert (change != 0).all(), name


def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into pieces of 256 elements, or stacks of three matrices, an update is the same."""
    found = []
    for piece, stack in ((1 << 22, 1 << 24), (256, 3 * 32 * 32)):
        monkeypatch.setattr(optimizers, "PIECE", piece)
        monkeypatch.setattr(optimizers, "STACK", stack)
        for kind in ("sgd", "muon", "adafactor"):
            torch.manual_seed(0)
            model = GPT(GROUPED)
            found.append(moved(model, built(model, optimizer=kind)))
    torch.testing.assert_close(found[:3], found[3:])


def test_muon_moves_matrices_and_adamw_the_rest() -> None:
    """Those of the blocks: 4 blocks' worth of out, gate, up, down and packed queries, keys and values; AdamW gets the
    embedding, the untied head and the norms."""
    model = GPT(GROUPED.model_copy(update={"tie_embeddings": False}))
    parts = built(model, optimizer="muon").parts
    muon, adamw = parts["muon"], parts["adamw"]
    assert isinstance(muon, Ruled)
    assert isinstance(adamw, FusedAdamW)
    by_muon = {id(parameter) for piece in muon.pieces for parameter, _ in piece.parts}
    by_adamw = {id(p) for group in adamw.adamw.param_groups for p in group["params"]}
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[i].split(".", 2)[2] for i in by_muon} == {
        f"{name}.weight" for name in ("attention.qkv", "attention.out", "mlp.gate", "mlp.up", "mlp.down")
    }
    assert by_muon.isdisjoint(by_adamw)
    assert by_muon | by_adamw == set(names)


def test_queries_keys_and_values_are_matrices_of_their_own() -> None:
    """32 rows of queries, 16 of keys, 16 of values: each part's update is torch.optim.Muon's of that part alone."""
    torch.manual_seed(0)
    model = GPT(GROUPED)
    weight = model.blocks[0].attention.qkv.weight
    start = weight.detach().clone()
    moved(model, built(model, optimizer="muon", weight_decay=0.1))
    assert weight.grad is not None
    for rows in (slice(0, 32), slice(32, 48), slice(48, 64)):
        alone = torch.nn.Parameter(start[rows].clone())
        alone.grad = weight.grad[rows]
        torch.optim.Muon([alone], 0.01, 0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw").step()
        torch.testing.assert_close(weight[rows], alone, rtol=0, atol=2e-4)  # theirs is in bf16: 2 % of an update


def test_adapters_are_matrices_too() -> None:
    """Under Muon both matrices of an adapter, which multiply every token; what B writes into queries, keys and values
    moves as torch.optim.Muon would move each alone."""
    pytest.importorskip("peft")
    torch.manual_seed(0)
    model = GPT(GROUPED)
    adapters.attach(model, Lora(rank=4))
    optimizer = built(model, optimizer="muon", weight_decay=0.1)
    assert list(optimizer.parts) == ["muon"]
    b = model.blocks[0].attention.qkv.lora_B["default"].weight  # (64, 4)
    moved(model, optimizer)
    assert b.grad is not None
    for rows in (slice(0, 32), slice(32, 48), slice(48, 64)):
        alone = torch.nn.Parameter(torch.zeros_like(b[rows]))
        alone.grad = b.grad[rows]
        torch.optim.Muon([alone], 0.01, 0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw").step()
        torch.testing.assert_close(b[rows], alone, rtol=0, atol=2e-4)  # theirs is in bf16: 2 % of an update


def test_learning_rates_follow_the_parametrization() -> None:
    """At 64 wide and 2 deep, and 1,024 tokens in a batch, AdamW's first update is √(1/16) · rate for the embedding,
    four times that for a matrix, and twice that again for one that writes to the stream."""
    torch.manual_seed(0)
    model = GPT(Model(n_layer=2, n_head=2, n_embd=64, block_size=16, vocab_size=70))
    change = moved(model, built(model, parametrization="mup", batch_size=64, weight_decay=0.0))
    found = {name: change[name].abs().median().item() for name in change}
    assert found["token_embedding.weight"] == pytest.approx(0.01 / 4, rel=1e-3)
    assert found["blocks.0.mlp.up.weight"] == pytest.approx(0.01 / 4 * 4, rel=1e-3)
    assert found["blocks.0.mlp.down.weight"] == pytest.approx(0.01 / 4 * 4 * 2, rel=1e-3)
    assert found["norm.weight"] == pytest.approx(0.01 / 4 * 4, rel=1e-3)


def test_frozen_weights_have_no_state() -> None:
    """Only what is trained is moved and remembered."""
    model = GPT(GROUPED).requires_grad_(False)
    model.blocks[0].mlp.up.weight.requires_grad_(True)
    for kind in ("adamw", "muon"):
        optimizer = built(model, optimizer=kind)
        assert [p.shape for p in optimizer.parameters] == [model.blocks[0].mlp.up.weight.shape]
        assert len(optimizer.parts) == 1


def test_a_missing_torchao_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the pip line, before anything else happens."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as caught:
        built(GPT(GROUPED), optimizer="adamw8bit")
    assert str(caught.value) == (
        "MissingExtra: train.optimizer is adamw8bit, and the package torchao is not installed\n"
        '  try    pip install "ganeum[8bit]", or train.optimizer=adamw'
    )


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
def test_torchao_is_loaded_without_a_word() -> None:
    """Whatever it has to say of kernels that are not used here; in a process of its own."""
    code = "from ganeum.step.eight_bit import AdamW8bit; AdamW8bit(0.9, 0.95)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
