"""FLOPs in closed form, beside torch's own counter on the real model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from ganeum.config.schema import Lora, Model
from ganeum.models import adapters, checkpointing
from ganeum.models.gpt import GPT, padded_vocab_size
from ganeum.plan import flops
from ganeum.plan.architecture import find, from_config_json, ours
from ganeum.plan.execution import Execution

ONE_BOOK = Model(
    n_layer=12, n_head=12, n_embd=768, block_size=32, bias=True, qkv_bias=False, tie_embeddings=False, vocab_size=50_257
)


def test_document_000s_step() -> None:
    """Document 000's step of 128 × 32 tokens costs 3.05 TFLOP, worked out by hand from its shapes."""
    blocks = 12 * (768 * 2304 + 768 * 768 + 768 * 3072 + 3072 * 768)
    forward = 2 * (blocks + 768 * 50_257) + 12 * 2 * (2 * 32 * 768)
    found = flops.of(ours.architecture(ONE_BOOK), Execution(length=32, micro_batch_size=128))
    assert 3 * forward * 128 * 32 == found.per_token * 4096 == found.per_step == 3_050_418_733_056
    assert found.recomputed_per_token == 0


def test_document_000s_other_step() -> None:
    """Its 128 × 128 step (where it reckons 5.3 TFLOP forward) costs 4.13 forward and 12.4 with the backward pass."""
    blocks = 12 * (768 * 2304 + 768 * 768 + 768 * 3072 + 3072 * 768)
    forward = 128 * 128 * (2 * (blocks + 768 * 50_257) + 12 * 2 * (2 * 128 * 768))
    longer = ONE_BOOK.model_copy(update={"block_size": 128})
    found = flops.of(ours.architecture(longer), Execution(length=128, micro_batch_size=16, accumulation=8))
    assert 3 * forward == found.per_step == 12_375_621_107_712
    assert forward == 128 * found.forward


SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": {"bias": True},
    "gpt2, narrow MLP": {"intermediate_size": 24},
    "modern": {"style": "modern"},
    "modern, shared keys, wide heads": {"style": "modern", "n_head": 4, "n_kv_head": 2, "head_dim": 24},
}


def our_model(shape: str, **keys: Any) -> Model:
    return Model(**{"n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 16} | SHAPES[shape] | keys)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("vocab_size", [128, 100])
def test_torch_counts_the_same(tied: bool, vocab_size: int, shape: str) -> None:
    """FlopCounterMode sees exactly the closed form's work, forward and backward, and that of the padding's rows.

    Attention is run as plain products here, in one block of queries: torch's counter adds to fused kernels the scores
    that their backward pass computes again, and blocks of queries leave out most of the masked half. The first block's
    input needs a gradient (the embeddings learn), so no product is left out.
    """
    model = our_model(shape, tie_embeddings=tied, vocab_size=vocab_size)
    B, T = 3, model.block_size
    tokens, targets = torch.randint(0, vocab_size, (B, T)), torch.randint(0, vocab_size, (B, T))
    built = GPT(model)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        logits = built(tokens)
        forward = counter.get_total_flops()
        F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    expected = flops.of(ours.architecture(model), Execution(length=T, micro_batch_size=B))
    padding = 2 * (padded_vocab_size(vocab_size) - vocab_size) * model.n_embd
    assert forward == B * T * (expected.forward_per_token + padding)
    assert counter.get_total_flops() == B * T * (expected.per_token + 3 * padding)


@pytest.mark.parametrize("shape", ["gpt2", "modern"])
@pytest.mark.parametrize("targets", ["all", "attention", None])
@pytest.mark.parametrize("mode", ["none", "selective", "whole"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_torch_counts_adapters_and_recomputation_the_same(shape: str, targets: Any, mode: Any, dropout: float) -> None:
    """With adapters, frozen matrices need half of the backward work, and none where they read the frozen embedding;
    checkpointing repeats products up to the last one that is needed."""
    model = our_model(shape, vocab_size=128, dropout=dropout)
    lora = Lora(rank=4, targets=targets) if targets else Lora()
    built = GPT(model)
    adapters.attach(built, lora)
    checkpointing.apply(built.blocks, mode)
    built.train()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        built(torch.randint(0, 128, (3, 16))).sum().backward()
    execution = Execution(length=16, micro_batch_size=3, checkpointing=mode, lora=lora)
    expected = flops.of(ours.architecture(model), execution)
    assert counter.get_total_flops() == expected.per_step + expected.recomputed_per_step


T5 = ("t5", "mt5", "umt5")
DROPOUT = {"t5": "dropout_rate", "mt5": "dropout_rate", "umt5": "dropout_rate"}
DROPOUT |= {"gpt2": "resid_pdrop", "gpt_bigcode": "resid_pdrop", "codegen": "resid_pdrop", "phi": "resid_pdrop"}


@st.composite
def runs(draw: st.DrawFn, family: str) -> tuple[dict[str, Any], Execution]:
    """A config.json of the family and a way to run it."""
    size = st.integers(1, 12)
    heads, shared, half, layers = (draw(st.integers(1, 3)) for _ in range(4))
    heads *= 4 if family == "codegen" else 1  # its heads come in fours
    half *= 2 if family == "phi" else 1  # half of a head is turned, in pairs
    width, inside = 2 * half * heads * shared, draw(size)
    if family in T5:
        keys: dict[str, Any] = {"d_model": width, "d_kv": 2 * half, "d_ff": inside, "num_heads": heads}
        keys |= {"num_layers": layers, "num_decoder_layers": draw(st.integers(1, 3))}
        keys |= {"feed_forward_proj": draw(st.sampled_from(["relu", "gated-gelu"]))}
    elif family in ("gpt2", "gpt_bigcode", "codegen"):
        keys = {"n_embd": width, "n_layer": layers, "n_head": heads, "n_inner": inside}
        keys |= {"multi_query": draw(st.booleans())} if family == "gpt_bigcode" else {}
        keys |= {"rotary_dim": 2 * half} if family == "codegen" else {}
    elif family == "mpt":
        keys = {"d_model": width, "n_layers": layers, "n_heads": heads}
    else:
        keys = {"hidden_size": width, "intermediate_size": inside, "num_hidden_layers": layers}
        keys |= {"num_attention_heads": heads * shared, "num_key_value_heads": heads}
    if family in DROPOUT:
        keys[DROPOUT[family]] = draw(st.sampled_from([0.0, 0.1]))
    execution = Execution(
        length=draw(st.integers(2, 9)),
        source_length=draw(st.integers(2, 9)) if family in T5 else 0,
        micro_batch_size=draw(st.integers(1, 3)),
        checkpointing=draw(st.sampled_from(["none", "whole"])),
        lora=draw(st.sampled_from([Lora(), Lora(rank=2), Lora(rank=3, targets="attention")])),
    )
    return {**keys, "vocab_size": draw(st.integers(40, 60))}, execution


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")  # its new name is newer than 5.0
@pytest.mark.parametrize(
    "family",
    ["codegen", "gpt2", "gpt_bigcode", "llama", "mistral", "mpt", "mt5", "phi", "qwen2", "qwen3", "t5", "umt5"],
)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_torch_counts_the_same_of_transformers_models(family: str, data: st.DataObject) -> None:
    """Whatever the shape and the two lengths, forward, backward and recomputed work are what torch counts.

    Attention is eager: fused kernels are counted with the scores that their backward pass computes again.
    """
    keys, execution = data.draw(runs(family))
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    kind = AutoModelForSeq2SeqLM if family in T5 else AutoModelForCausalLM
    model = kind.from_config(AutoConfig.for_model(family, **keys, **special), attn_implementation="eager").train()
    if execution.checkpointing == "whole":
        model.gradient_checkpointing_enable()
    adapters.attach(model, execution.lora)
    if execution.lora.rank is not None:
        for name, weight in model.named_parameters():
            weight.requires_grad_("lora_" in name)
    tokens = torch.randint(1, 40, (execution.micro_batch_size, execution.length))
    names = {"input_ids": tokens}
    if family in T5:
        source = torch.randint(1, 40, (execution.micro_batch_size, execution.source_length))
        names = {"input_ids": source, "decoder_input_ids": tokens}
    with FlopCounterMode(display=False) as counter:
        logits = model(**names, use_cache=False).logits
        forward = counter.get_total_flops()
        logits.sum().backward()
    expected = flops.of(from_config_json({**keys, "model_type": family}, name="any"), execution)
    assert forward == execution.micro_batch_size * expected.forward
    assert counter.get_total_flops() == expected.per_step + expected.recomputed_per_step


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("family", ["gpt2", "t5"])
def test_torch_counts_generation_the_same(family: str, beams: int) -> None:
    """Token by token with a KV cache, a token meets itself and those before it; the source is read once, and what is
    looked across at is made once a beam."""
    T, S = 7, 11 if family == "t5" else 0
    if family == "t5":
        keys: dict[str, Any] = {"d_model": 24, "d_kv": 6, "d_ff": 40, "num_layers": 2, "num_heads": 4, "vocab_size": 50}
        model = AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model("t5", **keys), attn_implementation="eager")
    else:
        keys = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 50}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **keys), attn_implementation="eager")
    model.eval()
    cache, given = None, {}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        if S:
            given["encoder_outputs"] = model.encoder(torch.randint(1, 50, (1, S)))
            given["encoder_outputs"]["last_hidden_state"] = given["encoder_outputs"][0].repeat(beams, 1, 1)
        for _ in range(T):
            token = torch.randint(1, 50, (beams, 1))
            name = "decoder_input_ids" if S else "input_ids"
            cache = model(**{name: token}, **given, past_key_values=cache, use_cache=True).past_key_values
    execution = Execution(purpose="generation", length=T, source_length=S, beams=beams)
    expected = flops.of(from_config_json({**keys, "model_type": family}, name="any"), execution)
    assert counter.get_total_flops() == expected.per_step == expected.forward


@pytest.mark.parametrize("purpose", ["evaluation", "inference"])
def test_what_is_not_trained_has_no_backward_pass(purpose: Any) -> None:
    """Evaluation and inference cost a third of training, and recompute nothing."""
    execution = Execution(purpose=purpose, length=64, micro_batch_size=2, accumulation=5, checkpointing="whole")
    found = flops.of(find("gpt2"), execution)
    trained = flops.of(find("gpt2"), Execution(length=64, micro_batch_size=2))
    assert found.per_step * 3 == trained.per_step
    assert (found.backward, found.recomputed) == (0, 0)


def test_a_decoder_tokens_share_of_two_streams_by_hand() -> None:
    """T5-base, 512 tokens read and 128 written: the parts of a sequence, and per_token is the whole over 128."""
    C, inside, S, T = 768, 3072, 512, 128
    forward = {
        "encoder matrices": 12 * 2 * S * (4 * C**2 + 2 * C * inside),
        "encoder attention": 12 * 4 * S * S * C,
        "matrices": 12 * 2 * (T * (6 * C**2 + 2 * C * inside) + S * 2 * C**2),
        "attention": 12 * 4 * T * T * C,
        "cross attention": 12 * 4 * T * S * C,
        "head": 2 * T * C * 32_128,
    }
    found = flops.of(find("t5-base"), Execution(length=T, source_length=S))
    assert forward == found.by_part
    assert 3 * sum(forward.values()) == found.per_step
    assert found.per_token == found.per_step / T
