"""The parameters of a model, counted before there is one."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, Qwen3Config, Qwen3ForCausalLM

from ganeum.config.schema import Lora, Model
from ganeum.models import adapters
from ganeum.models.gpt import GPT
from ganeum.plan import parameters
from ganeum.plan.architecture import from_config_json, ours

GPT2 = 50_257
ONE_BOOK = {
    "n_layer": 12,
    "n_head": 12,
    "n_embd": 768,
    "block_size": 32,
    "bias": True,
    "qkv_bias": False,
    "tie_embeddings": False,
}


@pytest.mark.parametrize(
    ("expected", "model"),
    [
        pytest.param(162_247_680, Model(**ONE_BOOK), id="document 000, 32 positions"),
        pytest.param(162_321_408, Model(**ONE_BOOK | {"block_size": 128}), id="document 000, 128 positions"),
        pytest.param(
            124_439_808, Model(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True), id="gpt2 on the hub"
        ),
        pytest.param(
            354_823_168, Model(n_layer=24, n_head=16, n_embd=1024, block_size=1024, bias=True), id="gpt2-medium"
        ),
    ],
)
def test_published_counts(expected: int, model: Model) -> None:
    """Models whose size is published come out at that size."""
    assert expected == parameters.of(ours.architecture(model, GPT2)).total


def qwen3(**keys: int | bool) -> tuple[Model, Qwen3Config]:
    """One model in our words and in transformers'; `keys`: of transformers, as on the hub."""
    theirs = Qwen3Config(head_dim=128, num_key_value_heads=8, vocab_size=151_936, **keys)
    mine = Model(
        style="modern",
        n_layer=theirs.num_hidden_layers,
        n_head=theirs.num_attention_heads,
        n_kv_head=8,
        head_dim=128,
        n_embd=theirs.hidden_size,
        intermediate_size=theirs.intermediate_size,
        tie_embeddings=theirs.tie_word_embeddings,
    )
    return mine, theirs


QWEN3 = {
    "0.6B": (28, 16, 1024, 3072, True),
    "1.7B": (28, 16, 2048, 6144, True),
    "4B": (36, 32, 2560, 9728, True),
    "8B": (36, 32, 4096, 12_288, False),
}


@pytest.mark.parametrize("name", QWEN3)
def test_qwen3s_counts(name: str) -> None:
    """The models of the hub have the parameters that transformers counts in them (0.6B: 596,049,920)."""
    keys = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "tie_word_embeddings")
    mine, theirs = qwen3(**dict(zip(keys, QWEN3[name], strict=True)))
    with torch.device("meta"):
        model = Qwen3ForCausalLM(theirs)
    model.tie_weights()
    expected = sum(p.numel() for p in model.parameters())
    counted = parameters.of(ours.architecture(mine, 151_936))
    assert expected == counted.total
    if name == "0.6B":  # its model card: "0.6B", "Number of Paramaters (Non-Embedding): 0.44B"
        assert counted.total == 596_049_920
        assert counted.non_embedding == pytest.approx(0.44e9, rel=0.01)


models = st.builds(
    lambda n_head, head_dim, **rest: Model(n_head=n_head, n_embd=n_head * head_dim, **rest),
    n_head=st.integers(1, 4),
    head_dim=st.integers(1, 6),
    n_layer=st.integers(1, 3),
    block_size=st.integers(1, 20),
    bias=st.booleans(),
    qkv_bias=st.sampled_from([None, True, False]),
    tie_embeddings=st.booleans(),
    vocab_size=st.integers(1, 200),
    intermediate_size=st.none() | st.integers(1, 50),
)
modern = st.builds(
    lambda n_kv_head, groups, half, **rest: Model(
        style="modern", n_head=n_kv_head * groups, n_kv_head=n_kv_head, head_dim=2 * half, **rest
    ),
    n_kv_head=st.integers(1, 3),
    groups=st.integers(1, 3),
    half=st.integers(1, 4),
    n_embd=st.integers(1, 20),
    n_layer=st.integers(1, 3),
    tie_embeddings=st.booleans(),
    vocab_size=st.integers(1, 200),
    intermediate_size=st.none() | st.integers(1, 50),
)


@settings(max_examples=60, deadline=None)
@given(models | modern)
def test_counts_are_those_of_the_built_model(model: Model) -> None:
    """Whatever the config, the closed form is what torch counts, less the rows that pad the vocabulary."""
    assert isinstance(model.vocab_size, int)
    built = GPT(model)
    padding = (built.token_embedding.num_embeddings - model.vocab_size) * model.n_embd
    tables = 1 if model.tie_embeddings else 2
    counted = parameters.of(ours.architecture(model))
    blocks = sum(p.numel() for p in [*built.blocks.parameters(), *built.norm.parameters()])
    matrices = sum(p.numel() for p in built.blocks.parameters() if p.dim() == 2)
    assert sum(p.numel() for p in built.parameters()) - tables * padding == counted.total == counted.trainable
    assert blocks == counted.non_embedding
    assert matrices + model.vocab_size * model.n_embd == counted.matmul
    assert counted.total == sum(counted.by_component.values())


@settings(max_examples=30, deadline=None)
@given(models | modern)
def test_matrices_are_those_of_a_block(model: Model) -> None:
    """The parts of our own model have the name and the (in, out) of every linear layer in a block."""
    linear = {name: part for name, part in GPT(model).blocks[0].named_modules() if isinstance(part, torch.nn.Linear)}
    expected = {name: (part.in_features, part.out_features, part.bias is not None) for name, part in linear.items()}
    (block,) = ours.architecture(model).blocks
    assert expected == {part.name: (part.inputs, part.outputs, part.bias) for part in block.linears}


SMALL = {
    "gpt2": {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 60},
    "llama": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 60,
    },
    "codegen": {"n_embd": 24, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "vocab_size": 60},
    "t5": {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4, "vocab_size": 60},
}


@pytest.mark.parametrize("targets", ["all", "attention"])
@pytest.mark.parametrize("family", SMALL)
def test_adapters_are_those_that_peft_adds(family: str, targets: Literal["all", "attention"]) -> None:
    """What is trained under adapters has the size that peft gives them on transformers' model of the config."""
    config = AutoConfig.for_model(family, **SMALL[family], bos_token_id=0, eos_token_id=0)
    built = (AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM).from_config(config)
    lora = Lora(rank=3, targets=targets)
    found = parameters.of(from_config_json({**SMALL[family], "model_type": family}, name="any"), lora)
    adapters.attach(built, lora)
    for name, part in built.named_parameters():
        part.requires_grad_("lora_" in name)
    assert adapters.trained(built) == found.trainable == found.by_component["adapters"]
    assert sum(part.numel() for part in built.parameters()) == found.total
