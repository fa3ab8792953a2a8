"""What generation takes: the cache against the bytes of transformers' own, the fullest moment against the profiler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from test_memory_transformers import ACCURACY
from torch import Tensor, nn

from ganeum.config.schema import Model
from ganeum.models import cache
from ganeum.plan import memory
from ganeum.plan.architecture import find, from_config_json, ours
from ganeum.plan.execution import Execution
from ganeum.plan.memory import generation

SMALL = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": 1_000}
LLAMA = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 160,
    "vocab_size": 1_000,
}
T5 = {"d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128, "num_layers": 2}
MODELS: dict[str, dict[str, Any]] = {
    "t5": T5 | {"vocab_size": 1_000},
    "mt5": T5 | {"vocab_size": 1_000, "feed_forward_proj": "gated-gelu"},
    "gpt2": SMALL,
    "llama": LLAMA,
    "qwen3": LLAMA | {"head_dim": 24},
    "gpt_bigcode": SMALL,
    "codegen": SMALL | {"n_ctx": 256, "rotary_dim": 8},
    "phi": {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"},
}
B, PROMPT, NEW, SOURCE = 3, 60, 20, 50


def build(family: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **MODELS[family])
    if family in ("t5", "mt5"):
        config.decoder_start_token_id = 0
        model = transformers.AutoModelForSeq2SeqLM.from_config(config)
    else:
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = None, 0  # to the very end
    return model.to(dtype).eval()


def generate(model: nn.Module, family: str, beams: int) -> Any:
    ids = torch.randint(2, 900, (B, SOURCE if family in ("t5", "mt5") else PROMPT))
    mask = torch.ones_like(ids)
    mask[:, -3:] = 0 if family in ("t5", "mt5") else 1
    with torch.no_grad():
        return model.generate(
            ids, attention_mask=mask, max_new_tokens=NEW, num_beams=beams, return_dict_in_generate=True
        )


def planned(family: str, beams: int, dtype: torch.dtype) -> tuple[Any, Execution]:
    config = transformers.AutoConfig.for_model(family, **MODELS[family]).to_dict() | MODELS[family]
    across = family in ("t5", "mt5")
    narrow = dtype == torch.bfloat16
    return from_config_json(config, name=family, source="test"), Execution(
        purpose="generation",
        micro_batch_size=B,
        length=(1 if across else PROMPT) + NEW,
        source_length=SOURCE if across else 0,
        beams=beams,
        kind="cpu",
        precision="bf16" if narrow else "fp32",
        weights="bf16" if narrow else "fp32",
        attention="efficient",
    )


def held(past: Any) -> int:
    """Bytes of a DynamicCache, or of both in an EncoderDecoderCache."""
    if hasattr(past, "cross_attention_cache"):
        return held(past.self_attention_cache) + held(past.cross_attention_cache)
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in past.layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", MODELS)
def test_the_cache_is_as_large_as_that_of_transformers(family: str, beams: int, dtype: torch.dtype) -> None:
    """To the byte, after generate: own and cross attention, grouped and shared keys, beams, half precision."""
    past = generate(build(family, dtype), family, beams).past_key_values
    assert generation.cache_bytes(*planned(family, beams, dtype)) == held(past)


@pytest.mark.parametrize(("family", "beams"), [*((family, 1) for family in MODELS), ("t5", 3), ("gpt2", 3)])
def test_generation_takes_what_was_planned(family: str, beams: int) -> None:
    """The fullest moment of generate is within 5 % of the profiler's."""
    model = build(family, torch.float32)
    generate(model, family, beams)
    weights = sum(parameter.nbytes for parameter in model.parameters())
    measured = weights + ACCURACY.most(lambda: generate(model, family, beams))
    architecture, execution = planned(family, beams, torch.float32)
    prompt = None if architecture.encoder_decoder else PROMPT
    parts, _ = generation.fullest(architecture, execution, prompt)
    assert sum(parts.values()) == pytest.approx(measured, rel=0.05)


def test_llama_2_keeps_half_a_mebibyte_a_token() -> None:
    """2 · 32 layers · 4,096 numbers · 2 bytes = 512 KiB (Kwon et al. 2023, arXiv 2309.06180, section 3, says 800 KB of
    OPT-13B: 2 · 40 · 5,120 · 2)."""
    execution = Execution(purpose="generation", length=4_097, precision="fp16", weights="fp16")
    assert generation.cache_bytes(find("llama-2-7b"), execution) == 4_096 * 512 * 1_024


def test_our_own_cache_has_the_room_that_it_makes() -> None:
    """models/cache.py doubles from 256 tokens and never holds more than the context: 300 tokens take room for 512."""
    model = Model(n_layer=2, n_head=2, n_embd=32, block_size=600, vocab_size=64)
    real = cache.Cache(model)
    for layer in range(2):
        real.extend(layer, *(torch.zeros(B, 2, 256, 16) for _ in range(2)))
    real.length = 256
    for layer in range(2):
        real.extend(layer, *(torch.zeros(B, 2, 44, 16) for _ in range(2)))
    tensors: list[Tensor] = [tensor for tensor in (*real.keys, *real.values) if tensor is not None]
    execution = Execution(purpose="generation", micro_batch_size=B, length=301, precision="fp32")
    assert generation.cache_bytes(ours.architecture(model), execution) == sum(tensor.nbytes for tensor in tensors)


def test_beams_multiply_the_cache_and_the_plan_says_so() -> None:
    """Four beams of T5 keep four times the keys; the plan of a generation names the cache."""
    how: dict[str, Any] = {"purpose": "generation", "length": 257, "source_length": 512, "micro_batch_size": 2}
    one, four = (generation.cache_bytes(find("t5-base"), Execution(**how, beams=beams)) for beams in (1, 4))
    assert four == 4 * one == 4 * 2 * 12 * 2 * (256 + 512) * 768 * 2
    assert memory.of(find("t5-base"), Execution(**how, beams=4)).parts["cache"] == four
