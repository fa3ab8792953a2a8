"""A model described as parts, beside the model that transformers builds from the same config.json."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.pytorch_utils import Conv1D

from ganeum.plan import parameters
from ganeum.plan.architecture import FAMILIES, Architecture, find, from_config_json

T5 = ("t5", "mt5", "umt5")
Keys = dict[str, Any]


def built(family: str, keys: Keys) -> nn.Module:
    """The model that transformers makes of the keys, on the meta device; with an output layer of its own if they say
    so, which transformers 5 gives T5 only when it loads weights that have one."""
    keys = {key: value for key, value in keys.items() if key != "tie_word_embeddings" or family not in T5}
    config = AutoConfig.for_model(family, **keys)
    with torch.device("meta"):
        return (AutoModelForSeq2SeqLM if family in T5 else AutoModelForCausalLM).from_config(config)


def counted(model: nn.Module, architecture: Architecture) -> int:
    """Parameters of the built model; T5's own output layer is added where transformers has tied it."""
    own_head = architecture.family in T5 and not architecture.tied
    return sum(p.numel() for p in model.parameters()) + own_head * architecture.head.weights


def matrices(model: nn.Module) -> int:
    """Numbers in the linear layers, tied or not."""
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Linear, Conv1D)))


few, small = st.integers(1, 3), st.integers(1, 40)


@st.composite
def configs(draw: st.DrawFn, family: str) -> Keys:
    """A config.json of the family; keys without influence on sizes are left out."""
    heads, half = draw(few), draw(st.integers(1, 4))
    width, layers, inside, vocab = 2 * half * heads, draw(few), draw(small), draw(st.integers(60_000, 60_100))
    tied = {"tie_word_embeddings": draw(st.booleans())}
    if family in T5:
        return tied | {
            "d_model": draw(small),
            "d_kv": 2 * half,
            "d_ff": inside,
            "num_layers": layers,
            "num_decoder_layers": draw(st.none() | few),
            "num_heads": heads,
            "vocab_size": vocab,
            "feed_forward_proj": draw(st.sampled_from(["relu", "gated-gelu", "gated-silu"])),
            "relative_attention_num_buckets": draw(st.sampled_from([8, 32])),
        }
    if family in ("gpt2", "gpt_bigcode", "codegen"):
        keys = {"n_embd": width, "n_layer": layers, "n_head": heads, "n_positions": 64, "vocab_size": vocab}
        keys |= {"n_inner": draw(st.none() | small)}
        keys |= {"multi_query": draw(st.booleans())} if family == "gpt_bigcode" else {}
        return tied | keys | ({"rotary_dim": 2 * half} if family == "codegen" else {})
    if family == "mpt":
        return tied | {"d_model": width, "n_layers": layers, "n_heads": heads, "vocab_size": vocab}
    keys = {"hidden_size": width, "intermediate_size": inside, "num_hidden_layers": layers, "vocab_size": vocab}
    shared = draw(few)
    keys |= {"num_attention_heads": heads * shared, "num_key_value_heads": heads, "hidden_size": width * shared}
    if family == "phi":
        keys |= {"qk_layernorm": draw(st.booleans()), "num_key_value_heads": draw(st.sampled_from([None, heads]))}
    if family in ("llama", "qwen3", "mistral"):
        keys |= {"head_dim": draw(st.sampled_from([2, 6]))}
    if family in ("llama", "qwen3"):
        keys |= {"attention_bias": draw(st.booleans())}
    if family == "llama":
        keys |= {"mlp_bias": draw(st.booleans())}
    return tied | keys


BUILT_BY_TRANSFORMERS = sorted(set(FAMILIES) - {"replit_lm"})


@pytest.mark.parametrize("family", BUILT_BY_TRANSFORMERS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_counts_are_those_of_transformers(family: str, data: st.DataObject) -> None:
    """Whatever the config.json, parameters and matrices are as many as in the model that transformers builds."""
    keys = data.draw(configs(family))
    model = built(family, keys)
    architecture = from_config_json({**keys, "model_type": family}, name="any")
    found = parameters.of(architecture)
    assert counted(model, architecture) == found.total == sum(found.by_component.values())
    assert matrices(model) == found.matmul


@pytest.mark.parametrize("family", BUILT_BY_TRANSFORMERS)
def test_what_a_config_leaves_out_has_transformers_default(family: str) -> None:
    """A config.json that says nothing but its model_type is the same model here and there."""
    architecture = from_config_json({"model_type": family}, name="any")
    model = built(family, {})
    assert counted(model, architecture) == parameters.of(architecture).total
    config = AutoConfig.for_model(family)
    longest = {"mpt": "max_seq_len", "t5": "", "mt5": "", "umt5": ""}.get(family, "max_position_embeddings")
    assert (getattr(config, longest) if longest else None) == architecture.longest


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
        ("t5-small", 60_506_624),
        ("t5-base", 222_903_552),
        ("t5-11b", 11_307_321_344),
        ("t5-v1_1-base", 247_577_856),
        ("flan-t5-xl", 2_849_757_184),
        ("mt5-small", 300_176_768),
        ("mt5-base", 582_401_280),
        ("mt5-large", 1_229_581_312),
        ("mT5_multilingual_XLSum", 582_401_280),
        ("codegen-350M-mono", 356_712_448),
        ("phi-1", 1_418_270_720),
        ("phi-2", 2_779_683_840),
        ("starcoder", 15_517_456_384),
        ("mpt-7b", 6_649_286_656),
        ("llama-2-7b", 6_738_415_616),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-1b", 1_235_814_400),
        ("tinyllama-1.1b", 1_100_048_384),
        ("mistral-7b", 7_241_732_096),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-8b", 8_190_735_360),
    ],
)
def test_published_totals(name: str, expected: int) -> None:
    """Well-known models have the parameters that the hub shows for their weights."""
    assert expected == parameters.of(find(name)).total


def test_replits_code_model_by_hand() -> None:
    """replit-code-v1-3b: 32 layers of 12 · 2,560² and two norms, a last norm, and a tied vocabulary of 32,768."""
    expected = 32 * (12 * 2560**2 + 2 * 2560) + 2560 + 32_768 * 2560
    assert expected == 2_600_634_880 == parameters.of(find("replit-code-v1-3b")).total


def test_the_korean_summarizer_by_hand() -> None:
    """Document 002's "220M" T5 has 275,579,136: T5 1.1 base, with 50,358 tokens and an output layer of its own.

    Twelve layers each: encoder 4 · 768² attention + 3 · 768 · 2,048 gated MLP, decoder the same with 4 · 768² more to
    look across; 2 norms a layer and 3, two last ones; 32 relative positions for 12 heads in each stream.
    """
    encoder = 12 * (4 * 768**2 + 3 * 768 * 2048 + 2 * 768) + 768 + 32 * 12
    decoder = 12 * (8 * 768**2 + 3 * 768 * 2048 + 3 * 768) + 768 + 32 * 12
    expected = 2 * 50_358 * 768 + encoder + decoder
    assert expected == 275_579_136 == parameters.of(find("eenzeenee/t5-base-korean-summarization")).total


def test_streams_are_told_apart() -> None:
    """T5-base, by hand: as many numbers in the decoder's cross-attention as in either self-attention, 12 · 4 · 768²."""
    parts = parameters.of(find("t5-base")).by_component
    attention, mlp = 12 * 4 * 768**2, 12 * 2 * 768 * 3072
    assert parts == {
        "token_embedding": 32_128 * 768,
        "encoder.attention": attention,
        "encoder.mlp": mlp,
        "decoder.attention": attention,
        "decoder.cross_attention": attention,
        "decoder.mlp": mlp,
        "norms": 12 * 2 * 768 + 12 * 3 * 768 + 2 * 768,
        "relative_positions": 2 * 32 * 12,
        "head": 0,
    }
