"""--explain: every figure of a plan, derived with the numbers put in."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from ganeum import units
from ganeum.config.schema import Config, Data, Lora, Model, Train
from ganeum.hardware.machine import look, nvidia
from ganeum.plan import flops, parameters
from ganeum.plan.architecture import find, from_config_json, ours
from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.closed_form import plan
from ganeum.plan.execution import Execution
from ganeum.plan.page import derive
from ganeum.plan.page.explain import explain, named
from ganeum.plan.question.named import plan as plan_of
from ganeum.plan.question.use import Use

GPU = nvidia("NVIDIA GeForce RTX 4090", 23.99, 23.5, (8, 9), 0)
CPU = look("cpu")
BOOK = Model(
    n_layer=12, n_head=12, n_embd=768, block_size=32, bias=True, qkv_bias=False, tie_embeddings=False, vocab_size=50_257
)


def one_book(block_size: int) -> Config:
    """Document 000's run: 130,520 tokens, windows 4 apart, 128 at once, 20 epochs."""
    return Config(
        model=BOOK.model_copy(update={"block_size": block_size}),
        data=Data(order="epochs", stride=4),
        train=Train(batch_size=128, epochs=20),
    )


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_document_000_with_32_positions() -> None:
    """The author's run, every figure worked out by hand here; his own were 157M, 1.13 TFLOP, 251 and 642,440 steps."""
    matrices = 12 * (768 * 2304 + 768 * 768 + 2 * 768 * 3072)
    vectors = 12 * (768 + 3072 + 768 + 4 * 768) + 2 * 768
    total = 2 * 50_257 * 768 + 32 * 768 + matrices + vectors
    assert total == 162_247_680
    forward = 2 * (matrices + 50_257 * 768) + 12 * 4 * 32 * 768
    windows = (130_520 - 32 - 1) // 4 + 1
    assert (windows, windows // 128, 20 * (windows // 128)) == (32_622, 254, 5_080)
    config = one_book(32)
    text = lines(explain(config, plan(config, device=GPU, tokens=130_520, step_s=6.774)))
    for line in (
        "token_embedding vocab_size·width 50,257·768 = 38,597,376",
        "position_embedding positions·width 32·768 = 24,576",
        "attention.qkv layers·(in·out) 12·(768·2,304) = 21,233,664",
        "attention.out layers·(in·out + out) 12·(768·768 + 768) = 7,087,104",
        "mlp.up layers·(in·out + out) 12·(768·3,072 + 3,072) = 28,348,416",
        "mlp.down layers·(in·out + out) 12·(3,072·768 + 768) = 28,320,768",
        "norms layers·norms·numbers of each, and the last 12·2·(768 + 768) + (768 + 768) = 38,400",
        "head width·vocab_size 768·50,257 = 38,597,376",
        f"total their sum 38,597,376 + 24,576 + 28,320,768 + 56,669,184 + 38,400 + 38,597,376 = {total:,}",
        f"matrices, a token 2·layers·numbers in a layer 2·12·7,077,888 = {2 * matrices:,}",
        f"attention, a token layers·4·T·heads·head_dim 12·4·32·12·64 = {12 * 4 * 32 * 768:,}",
        f"output layer, a token 2·width·vocab_size 2·768·50,257 = {2 * 768 * 50_257:,}",
        f"forward and backward, a token 3·forward 3·{forward:,} = {3 * forward:,}",
        f"a step a token's·tokens 744,731,136·4,096 = {3 * forward * 4096:,} (3.05 TFLOP)",
        f"the run a step's·steps 3,050,418,733,056·5,080 = {3 * forward * 4096 * 5080:,} (15.5 PFLOP)",
        "windows (tokens - block_size - 1) // stride + 1 (130,520 - 32 - 1) // 4 + 1 = 32,622",
        "steps in an epoch windows // batch_size 32,622 // 128 = 254",
        "steps epochs·steps in an epoch, rounded up 20·254 = 5,080",
        "tokens seen steps·tokens in a step 5,080·4,096 = 20,807,680",
        "each token seen tokens seen / tokens 20,807,680 / 130,520 = 159.4 times",
        "the run steps·step time + evaluations 5,080·6.774 s + 0 s = 9 h 34 min",
    ):
        assert line in text


def test_the_manual_shows_what_is_printed() -> None:
    """The derivation in docs/arithmetic.md is that of document 000's run."""
    config = one_book(32)
    text = explain(config, plan(config, device=GPU, tokens=130_520))
    page = (Path(__file__).parents[2] / "docs" / "arithmetic.md").read_text(encoding="utf-8")
    assert text.split("\n\n")[1] in page


def test_document_000_with_128_positions() -> None:
    """The shape of the same document's first part: 96 positions more, and a step of 128 · 128 tokens."""
    config = one_book(128)
    found = plan(config, device=GPU, tokens=130_520)
    assert found["parameters"]["total"] == 162_247_680 + 96 * 768 == 162_321_408
    matrices = 12 * 12 * 768**2 + 50_257 * 768
    step = 3 * 128 * 128 * (2 * matrices + 12 * 4 * 128 * 768)
    windows = (130_520 - 128 - 1) // 4 + 1
    text = lines(explain(config, found))
    for line in (
        "position_embedding positions·width 128·768 = 98,304",
        "attention, a token layers·4·T·heads·head_dim 12·4·128·12·64 = 4,718,592",
        f"a step a token's·tokens 755,347,968·16,384 = {step:,} (12.4 TFLOP)",
        f"windows (tokens - block_size - 1) // stride + 1 (130,520 - 128 - 1) // 4 + 1 = {windows:,}",
    ):
        assert line in text


NAMED = ["gpt2", "t5-base", "mt5-small", "qwen3-0.6b", "llama-3.2-1b", "codegen-350M-mono", "phi-1", "starcoder"]
NAMED += ["mpt-7b", "qwen2.5-0.5b", "mistral-7b", "replit-code-v1-3b"]
OURS: list[dict[str, Any]] = [
    {"bias": True},
    {"bias": False, "qkv_bias": True},
    {"bias": True, "qkv_bias": False, "tie_embeddings": False, "dropout": 0.1},
    {"intermediate_size": 100},
    {"style": "modern"},
    {"style": "modern", "n_head": 8, "n_kv_head": 2, "head_dim": 32, "intermediate_size": 500},
]
ARCHITECTURES = [*map(find, NAMED), *(ours.architecture(Model(vocab_size=100, **keys)) for keys in OURS)]
UMT5 = {"model_type": "umt5", "num_layers": 2, "num_decoder_layers": 3}
ARCHITECTURES += [
    from_config_json(UMT5, name="umt5"),
    from_config_json({"model_type": "phi", "tie_word_embeddings": True, "qk_layernorm": True}, name="tied phi"),
]
WAYS: list[dict[str, Any]] = [
    {"micro_batch_size": 3, "accumulation": 2},
    {"checkpointing": "whole"},
    {"checkpointing": "selective", "lora": Lora(rank=4)},
    {"lora": Lora(rank=4, targets="attention")},
    {"purpose": "evaluation", "micro_batch_size": 5},
    {"purpose": "generation", "beams": 3, "micro_batch_size": 2},
]


def worked_out(numbers: str) -> float:
    """What Python makes of the numbers, as they stand in a line."""
    plain = numbers.replace(",", "").replace("·", "*").replace("^", "**").replace(" s", "")
    assert re.fullmatch(r"[-+*/(). \de]*(round\([-+*/. \d]*\))?", plain), plain
    return float(eval(plain))


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(way))
def test_each_line_is_true_and_none_is_missing(architecture: Architecture, way: dict[str, Any]) -> None:
    """The numbers put in, worked out by Python, give the result behind them, whatever the model and however it is run;
    and every figure that is counted has its line."""
    execution = Execution(length=24, source_length=40 if architecture.encoder_decoder else 0, **way)
    shown = [*derive.parameters(architecture, execution.lora), *derive.flops(architecture, execution)]
    for line in shown:
        assert worked_out(line.numbers) == float(line.result.split()[0].replace(",", "")), line
    results = {line.result.split()[0] for line in shown}
    counted, work = parameters.of(architecture, execution.lora), flops.of(architecture, execution)
    both = work.forward + work.backward
    figures = {*counted.by_component.values(), counted.total, counted.non_embedding, work.per_step}
    figures |= {both, work.per_token} if architecture.encoder_decoder else {work.per_token}
    assert {f"{figure:,}" for figure in figures} <= results
    if work.recomputed and not architecture.encoder_decoder:
        assert f"{work.recomputed_per_token:,}" in results


TRAININGS = [
    Train(batch_size=3, epochs=2),
    Train(batch_size=4, max_iters=7),
    Train(batch_size=4, tokens=1e5),
    Train(batch_size=4, hours=0.5),
    Train(batch_size=4, max_iters=7, lora=Lora(rank=4), activation_checkpointing="whole"),
    Train(batch_size=4, max_iters=7, weights="bf16", optimizer="adamw8bit"),
]


@pytest.mark.parametrize("train", TRAININGS, ids=lambda train: str(train.model_dump(exclude_defaults=True)))
@pytest.mark.parametrize("keys", OURS[3:5], ids=str)
@pytest.mark.parametrize("device", [GPU, CPU], ids=["GPU", "CPU"])
def test_each_line_of_a_whole_plan_is_true(device: Any, keys: dict[str, Any], train: Train) -> None:
    """So do those of windows, steps, memory and time."""
    config = Config(model=Model(vocab_size=100, **keys), data=Data(order="epochs"), train=train)
    found = plan(config, device=device, tokens=50_000, step_s=0.25)
    sections = explain(config, found).split("\n\n")
    assert ["Parameters", "FLOPs", "Length", "Batch", "Memory", "Time"][: len(sections)] == [
        section.splitlines()[0] for section in sections
    ]
    checked = 0
    for line in "\n".join(sections).splitlines():
        parts = [part.strip() for part in re.split(r"  +", line.strip())]
        if len(parts) != 4 or "FLOP" in parts[2] or "s" in parts[2].replace("round", ""):
            continue
        result = parts[3].removeprefix("= ").split()[0].replace(",", "")
        digits = len(result.partition(".")[2])
        expected = worked_out(parts[2])
        if parts[0] == "tokens a parameter":
            assert math.isclose(expected, float(result), rel_tol=1e-3)
        elif parts[0] != "tensors":  # a sum of rounded parts
            assert round(expected, digits) == float(result), line
        checked += 1
    assert checked >= 30


def test_a_model_by_its_name() -> None:
    """The plan of T5-base is derived from the choices that it made: its lengths, its batch, its bytes."""
    architecture, use = find("t5-base"), Use(batch_size=8, tokens=1e6)
    found = plan_of(architecture, use, GPU)
    text = lines(named(architecture, use, found))
    steps = math.ceil(1e6 / (8 * 128))
    for line in (
        "encoder attention, a sequence layers·4·S·heads·head_dim·S 12·4·512·12·64·512 = 9,663,676,416",
        f"tokens seen steps·tokens in a step {steps:,}·1,024 = {steps * 1024:,}",
        "weights numbers, padding too·bytes of each / 2³⁰ 222,903,552·4 / 2^30 = 0.830 GiB",
        f"total their sum {' + '.join(f'{part:,}' for part in found['parameters']['by_component'].values() if part)}"
        " = 222,903,552",
    ):
        assert line in text


def test_the_least_is_that_of_all_devices() -> None:
    """Four cards have four peaks: the run cannot take less than what they need together, and takes more."""
    architecture, use = find("gpt2"), Use(batch_size=64, devices=4, tokens=1e9)
    found = plan_of(architecture, use, GPU)
    least = found["flops"]["total"] / (4 * found["device"]["peak_flops_per_second"])
    assert least < 3600 * found["time"]["hours"]
    (line,) = (line for line in lines(named(architecture, use, found)) if line.startswith("the least it can take"))
    assert line.startswith("the least it can take FLOPs of the run / peak of all devices ")
    assert line.endswith(f" = {units.duration(least)}")


def test_adapters_are_derived() -> None:
    """GPT-2 with adapters of rank 8 on all matrices: by hand 12 · 8 · (768 + 2,304 + 768 + 768 + 3 · 768 + …)."""
    sides = (768 + 2304) + (768 + 768) + (768 + 3072) + (3072 + 768)
    text = lines(derive.section("", derive.parameters(find("gpt2"), Lora(rank=8))))
    expected = f"adapters layers·rank·(in + out) of their matrices 12·8·{sides:,} = {12 * 8 * sides:,}"
    assert expected in text
