"""A whole run with each optimizer: interrupted and gone on with, sampled from, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import go

from ganeum.models import weights
from ganeum.train import samples

KINDS = [
    ("train.optimizer=muon",),
    ("train.optimizer=adafactor",),
    ("train.optimizer=sgd", "train.optimizer_offload=true"),
    ("train.weights=bf16", "train.precision=auto"),
    ("train.optimizer=muon", "train.weights=bf16", "train.precision=bf16", "train.parametrization=mup"),
]


def outcome(name: str) -> dict[str, torch.Tensor]:
    return load_file(f"results/{name}/checkpoints/step-00000020/model.safetensors")


@pytest.mark.parametrize("keys", KINDS, ids=lambda keys: " ".join(keys).replace("train.", ""))
def test_an_interrupted_run_ends_with_the_same_weights(
    keys: tuple[str, ...], yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after step 10, with a checkpoint of step 8: bit for bit those of a run that was not, and they learnt."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    summary, _ = go(yaml, "name=whole", *keys)
    with monkeypatch.context() as patched:
        patched.setattr(samples, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            go(yaml, *keys)
    go(yaml, *keys)
    torch.testing.assert_close(outcome("tiny"), outcome("whole"), rtol=0, atol=0)
    assert summary["best_val_loss"] < 5.54  # ln 257 = 5.549


def test_a_run_goes_on_recomputing_what_it_kept(yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is needed at step 10: activation checkpointing may begin there, is said, and changes no bit."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    go(yaml, "name=whole")
    with monkeypatch.context() as patched:
        patched.setattr(samples, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            go(yaml)
    _, said = go(yaml, "train.activation_checkpointing=whole")
    assert "train.activation_checkpointing is whole from here on, and was none\n" in said
    torch.testing.assert_close(outcome("tiny"), outcome("whole"), rtol=0, atol=0)


def test_a_run_in_bf16_keeps_and_gives_bf16(yaml: Path) -> None:
    """Its checkpoint holds bf16, and the model that is read from it, in fp32, holds the same numbers."""
    go(yaml, "train.weights=bf16", "train.precision=bf16")
    kept = outcome("tiny")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    model = weights.restore("tiny")
    for name, tensor in weights.to_file_state(model).items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, kept[name].float())
