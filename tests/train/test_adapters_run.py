"""A run that trains adapters: its directory is enough to go on, to sample and to export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_corpus import go

from ganeum.cli import main
from ganeum.config import load
from ganeum.errors import RunError
from ganeum.models.export import export_peft
from ganeum.models.weights import load_file_state, restore
from ganeum.train.start import start

pytest.importorskip("peft", reason="the extra `lora` is not installed")
LORA = (
    "train.init_from=base",
    "train.lora.rank=4",
    "train.lora.dropout=0.1",
    "train.schedule=constant",
    "train.warmup_iters=1",
)


@pytest.fixture
def base(yaml: Path) -> Path:
    go(yaml, "name=base", "train.max_iters=4")
    return yaml


def weights(name: str, step: int) -> dict[str, torch.Tensor]:
    return load_file(f"results/{name}/checkpoints/step-{step:08}/model.safetensors")


def test_only_adapters_move_and_the_plan_counts_them(base: Path) -> None:
    """After 20 steps every other tensor is the base run's, bit for bit, and plan.json tells how many are trained:
    rank · (in + out) for the four matrices of two blocks."""
    go(base, "name=tuned", *LORA)
    before, after = weights("base", 4), weights("tuned", 20)
    adapters = {name for name in after if ".lora_" in name}
    torch.testing.assert_close({name: after[name] for name in before}, before, rtol=0, atol=0)
    assert after.keys() == before.keys() | adapters
    assert all(after[name].abs().max() > 0 for name in adapters)
    trainable = 4 * 2 * ((32 + 96) + (32 + 32) + (32 + 128) + (128 + 32))
    assert trainable == sum(after[name].numel() for name in adapters)
    assert trainable == json.loads(Path("results/tuned/plan.json").read_text())["parameters"]["trainable"]


def test_it_goes_on_bit_for_bit_without_the_run_it_came_from(base: Path) -> None:
    """12 steps, the base run thrown away, and 8 more are 20 steps; checkpointing as well changes nothing."""
    go(base, "name=straight", *LORA)
    go(base, "name=resumed", "train.max_iters=12", "train.activation_checkpointing=whole", *LORA)
    Path("results/base").rename("gone")
    go(base, "name=resumed", "train.max_iters=20", "train.activation_checkpointing=whole", *LORA)
    torch.testing.assert_close(weights("resumed", 20), weights("straight", 20), rtol=0, atol=0)


def test_what_is_read_from_it_is_merged(base: Path) -> None:
    """`restore`, which sample and export read runs by, gives a plain model with the adapters' logits within 1e-5."""
    go(base, "name=tuned", *LORA)
    trained = start(load(Path("results/tuned/config.yaml"))).model.eval()
    load_file_state(trained, weights("tuned", 20))
    tokens = torch.arange(32)[None]
    plain = restore("results/tuned/checkpoints/step-00000020")
    assert not any("lora" in name for name in plain.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain(tokens), trained(tokens), rtol=0, atol=1e-5)
        assert (plain(tokens) - restore("base")(tokens)).abs().max() > 0.01


@pytest.mark.parametrize("style", ["gpt2", "modern"])
def test_peft_puts_the_exported_adapters_on_the_exported_base(style: str, yaml: Path) -> None:
    """transformers' model of the base run with peft's adapters computes the merged model's logits within 1e-5."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    go(yaml, "name=base", "train.max_iters=4", f"model.style={style}")
    go(yaml, "name=tuned", f"model.style={style}", *LORA)
    for words in (["base", "base-hf"], ["tuned", "tuned-peft", "--format", "peft"]):
        with pytest.raises(SystemExit) as end:
            main(["export", *words])
        assert end.value.code == 0
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("base-hf"), "tuned-peft").eval()
    tokens = torch.arange(32)[None]
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, restore("tuned")(tokens), rtol=0, atol=1e-5)


def test_a_run_without_adapters_has_none_to_export(yaml: Path) -> None:
    """Said with what to export instead."""
    go(yaml, "name=base", "train.max_iters=4")
    with pytest.raises(RunError) as caught:
        export_peft(Path("results/base/checkpoints/step-00000004"), Path("out"))
    assert str(caught.value) == (
        "RunError: there are no adapters to export\n"
        "  where  results/base/checkpoints/step-00000004\n"
        "  why    the run trained every weight (train.lora.rank: null)\n"
        "  try    ganeum export --format hf"
    )
