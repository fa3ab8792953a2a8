"""Adapters sit on any model's linear layers, begin as nothing, are all that is trained, and merge into weights."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from ganeum.config.schema import Lora, Model
from ganeum.errors import CheckpointError, ConfigError, MissingExtra
from ganeum.models import adapters
from ganeum.models.gpt import GPT
from ganeum.models.weights import load_file_state, to_file_state

pytest.importorskip("peft", reason="the extra `lora` is not installed")
LORA = Lora(rank=4, alpha=12.0)
TOKENS = torch.arange(24).view(2, 12)


def gpt(style: str = "gpt2") -> GPT:
    torch.manual_seed(0)
    return GPT(Model(style=style, n_layer=2, n_head=2, n_embd=32, block_size=16, vocab_size=70)).eval()  # type: ignore[arg-type]


def qwen3() -> nn.Module:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    return Qwen3ForCausalLM(Qwen3Config(num_hidden_layers=2, head_dim=16, vocab_size=70, **sizes)).eval()


def t5() -> nn.Module:
    from transformers import T5Config, T5ForConditionalGeneration

    torch.manual_seed(0)
    config = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, vocab_size=70, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def output(model: nn.Module) -> Tensor:
    if isinstance(model, GPT):
        return model(TOKENS)
    more = {"decoder_input_ids": TOKENS} if model.config.is_encoder_decoder else {}
    return model(input_ids=TOKENS, **more).logits


def shake(model: nn.Module) -> None:
    """As if trained: B is no longer zero."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))


# in + out of every linear layer in the blocks, by hand; of these attention's.
GPT2 = 2 * ((32 + 96) + (32 + 32) + (32 + 128) + (128 + 32)), 2 * ((32 + 96) + (32 + 32))
MODERN = 2 * ((32 + 96) + (32 + 32) + 3 * (32 + 128)), 2 * ((32 + 96) + (32 + 32))  # 8/3 · 32 up to 128
QWEN3 = 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)), 2 * (2 * (32 + 32) + 2 * (32 + 16))
T5 = 3 * 4 * (32 + 32) + 2 * 2 * (32 + 48), 3 * 4 * (32 + 32)


@pytest.mark.parametrize(
    ("build", "widths"),
    [(gpt, GPT2), (lambda: gpt("modern"), MODERN), (qwen3, QWEN3), (t5, T5)],
    ids=["gpt2", "modern", "Qwen3", "T5"],
)
def test_it_begins_as_the_model_was_and_trains_only_adapters(build, widths) -> None:  # type: ignore[no-untyped-def]
    """The same logits but for rounding; rank · (in + out) numbers to train for each linear layer but the output
    layer; after a backward pass only they have a gradient."""
    expected = output(build())
    for which, width in zip(("all", "attention"), widths, strict=True):
        model = build()
        adapters.attach(model, Lora(rank=4, targets=which))
        torch.testing.assert_close(output(model), expected, rtol=0, atol=1e-5)
        output(model).sum().backward()
        assert adapters.trained(model) == 4 * width
        assert {name.split(".")[-3] for name, p in model.named_parameters() if p.grad is not None} == {
            "lora_A",
            "lora_B",
        }


@pytest.mark.parametrize("style", ["gpt2", "modern"])
def test_merged_weights_compute_the_same(style: str) -> None:
    """A plain model with the merged weights has the logits of the one with adapters, but for 1e-5."""
    model, plain = gpt(style), gpt(style)
    adapters.attach(model, LORA)
    shake(model)
    load_file_state(plain, adapters.merged(to_file_state(model), LORA, where="here"))
    torch.testing.assert_close(plain(TOKENS), model.eval()(TOKENS), rtol=0, atol=1e-5)
    assert (plain(TOKENS) - gpt(style)(TOKENS)).abs().max() > 0.01


def test_merging_is_the_papers_formula() -> None:
    """W + alpha / rank · B A, worked out by hand; what has no adapter stays the same tensor."""
    state = {
        "x.weight": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "x.lora_A.weight": torch.tensor([[1.0, 10.0]]),
        "x.lora_B.weight": torch.tensor([[1.0], [2.0]]),
        "y.weight": torch.ones(1),
    }
    found = adapters.merged(state, Lora(rank=1, alpha=0.5), where="here")
    assert found.keys() == {"x.weight", "y.weight"}
    assert [[1.5, 7.0], [4.0, 14.0]] == found["x.weight"].tolist()
    assert found["y.weight"] is state["y.weight"]


def test_weights_in_bf16_are_merged_in_fp32() -> None:
    """1 + 2⁻¹² is no number of bf16; rounded to it, the adapter would be lost."""
    state = {"x.weight": torch.ones(1, 1), "x.lora_A.weight": torch.ones(1, 1), "x.lora_B.weight": torch.ones(1, 1)}
    half = {name: tensor.bfloat16() for name, tensor in state.items()}
    assert adapters.merged(half, Lora(rank=1, alpha=2**-12), where="here")["x.weight"].item() == 1 + 2**-12


def test_files_name_layers_as_without_adapters() -> None:
    """All of the plain model's names are there, and lora_A and lora_B beside those of the layers."""
    model = gpt()
    adapters.attach(model, LORA)
    found = to_file_state(model).keys()
    assert to_file_state(gpt()).keys() <= found
    assert {name for name in found if name.startswith("blocks.0.mlp.up")} == {
        "blocks.0.mlp.up.weight",
        "blocks.0.mlp.up.lora_A.weight",
        "blocks.0.mlp.up.lora_B.weight",
    }


def test_without_alpha_weights_with_adapters_are_refused() -> None:
    """A checkpoint that was taken out of its run does not tell alpha."""
    with pytest.raises(CheckpointError) as caught:
        adapters.merged({"x.lora_A.weight": torch.ones(1, 1)}, None, where="copied/step-00000010")
    assert str(caught.value) == (
        "CheckpointError: these weights have adapters, and nothing tells by how much they count\n"
        "  where  copied/step-00000010\n"
        "  why    train.lora.alpha is in the run's config.yaml, two directories above a checkpoint\n"
        "  try    the checkpoint in its run's directory, or an export of it"
    )


def test_a_model_without_linear_layers_is_refused() -> None:
    """There is nothing to put adapters on."""
    with pytest.raises(ConfigError) as caught:
        adapters.attach(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), Lora(rank=1, targets="attention"))
    assert str(caught.value) == (
        "ConfigError: train.lora.targets is attention, but the model has no such linear layers\n"
        "  why    adapters sit on linear layers other than the output layer\n"
        "  try    train.lora.targets: all"
    )


def test_peft_is_loaded_without_a_word() -> None:
    """Nor a word of what it loads itself; in a process of its own."""
    code = (
        "from ganeum.config.schema import Lora; from ganeum.models.adapters import attach; import torch; "
        "attach(torch.nn.Sequential(torch.nn.Linear(2, 2)), Lora(rank=1))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_missing_peft_is_named_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what the key was that needs it."""
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra) as caught:
        adapters.attach(gpt(), Lora(rank=8))
    assert str(caught.value) == (
        "MissingExtra: train.lora.rank=8 needs the package peft\n  try    pip install 'ganeum[lora]'"
    )
