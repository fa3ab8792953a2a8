"""The plan's memory of transformers' models against what torch allocates in the same step on a CPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from ganeum.config.schema import Lora
from ganeum.plan import memory
from ganeum.plan.architecture import find
from ganeum.plan.execution import Execution
from ganeum.plan.memory import transformers

ROOT = Path(__file__).parent.parent.parent


def benchmark() -> ModuleType:
    path = ROOT / "benchmarks" / "memory_accuracy_transformers.py"
    spec = importlib.util.spec_from_file_location("memory_accuracy_transformers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


ACCURACY = benchmark()
QUICK = [
    "t5",
    "t5, large vocabulary, one short sequence",
    "t5, eager",
    "t5, bf16",
    "t5, cast to bf16, no dropout",
    "t5, accumulation",
    "t5, checkpointing",
    "t5, checkpointing, one layer",
    "t5, checkpointing, wide MLP, one sequence",
    "t5, checkpointing, eager, bf16",
    "t5, Adafactor, large vocabulary",
    "t5, LoRA, bf16",
    "t5, LoRA, adapters' dropout, bf16",
    "t5, evaluation",
    "t5 1.1",
    "mt5, checkpointing, bf16, accumulation",
    "gpt2, bf16",
    "llama, checkpointing",
    "llama, LoRA, cast to bf16",
    "qwen3, bf16",
    "codegen",
    "phi",
    "gpt_bigcode, bf16",
    "mpt",
]


@pytest.mark.parametrize("name", QUICK)
def test_a_step_takes_what_was_planned(name: str) -> None:
    """The expected bytes are within 2 % of the profiler's, weights and optimizer state included."""
    row = ACCURACY.ROWS[name]
    assert ACCURACY.predicted(row).expected == pytest.approx(ACCURACY.measured(row), rel=0.02)


def test_every_measured_step_was_planned_within_five_percent() -> None:
    """The benchmark's rows, of which at least 30 are T5's, all have a result, and none is more than 5 % off."""
    results = json.loads(ACCURACY.RESULTS.read_text())["rows"]
    assert {row["row"] for row in results} == set(ACCURACY.ROWS)
    assert sum(row["row"].startswith(("t5", "mt5")) for row in results) >= 30
    assert [row for row in results if abs(row["off"]) > 0.05] == []


def gib(name: str, **how: object) -> float:
    return memory.of(find(name), Execution(**how)).expected / 2**30  # type: ignore[arg-type]


def test_gpt2_in_fp32_on_a_gpu_keeps_what_was_added_up_by_hand() -> None:
    """GPT-2 without dropout, batch 1, 1,024 tokens, Korthikanti's way (arXiv 2205.05198, section 4.1) but with flash
    and gelu_new written out: a layer keeps, in numbers of 4 bytes, C each into two norms, into qkv, out of attention
    and into the MLP, 3C of q, k, v, and of 4C six: into the power, tanh, both factors, and into the last matrix."""
    B, T, C, V, layers = 1, 1_024, 768, 50_257, 12
    gelu = 4 * C * 5  # x, half of it, tanh, 1 + tanh, their product
    layer = 4 * B * T * (2 * C + 1 * C + 3 * C + C + C + gelu)
    small = layers * 4 * B * T * (2 * 2 + 12)  # means and deviations of two norms, flash's sums of 12 heads
    ends = 4 * B * T * (2 * C) + 8 * B * T  # into the final norm and out of it
    parts, at = transformers.fullest(
        replace(find("gpt2"), dropout=0.0),
        Execution(micro_batch_size=B, length=T, kind="cuda", precision="fp32", attention="flash"),
    )
    assert at == "backward of loss"
    kept = parts["attention"] + parts["mlp"] + parts["norms"] + parts["embedding"]
    assert kept == pytest.approx(layers * layer + small + ends, rel=0.01)
    assert parts["logits"] + parts["workspace"] == pytest.approx(3 * 4 * B * T * V, rel=0.01)


def test_cuda_keeps_dropout_masks_in_bytes() -> None:
    """A CPU's mask is as wide as what it masks: T5's MLP alone drops 4 bytes a number there, 1 on a GPU."""
    how = {"micro_batch_size": 8, "length": 128, "source_length": 512, "precision": "fp32", "attention": "eager"}
    assert gib("t5-base", kind="cuda", **how) < gib("t5-base", kind="cpu", **how)


def test_memory_grows_by_the_same_for_every_sequence() -> None:
    """As long as the fullest moment is the same, bytes are a constant and so many for each sequence."""
    four, eight, twelve = (
        gib("mt5-base", micro_batch_size=B, length=256, source_length=512, kind="cuda") for B in (4, 8, 12)
    )
    assert twelve - eight == pytest.approx(eight - four, rel=1e-3)


def test_each_lever_takes_less() -> None:
    """Checkpointing, adapters, quantized weights, 8-bit state and ZeRO each take less than the plain step of Llama."""
    how = {"micro_batch_size": 1, "length": 2_048, "kind": "cuda", "precision": "bf16"}
    plain = gib("qwen3-0.6b", **how)
    levers: list[dict[str, object]] = [
        {"checkpointing": "whole"},
        {"optimizer": "adamw8bit"},
        {"optimizer": "adafactor"},
        {"lora": Lora(rank=8)},
        {"lora": Lora(rank=8), "weights": "nf4"},
        {"zero_stage": 2, "offload": "optimizer"},
        {"zero_stage": 3, "devices": 8},
    ]
    assert [lever for lever in levers if gib("qwen3-0.6b", **how | lever) >= plain] == []


def test_inference_needs_no_more_than_evaluation() -> None:
    """The same without the optimizer's state and without a loss over all logits."""
    how = {"micro_batch_size": 4, "length": 512, "kind": "cuda", "precision": "bf16"}
    assert gib("gpt2", purpose="inference", **how) < gib("gpt2", purpose="evaluation", **how)


def test_zero_2_keeps_its_share_of_every_layers_gradient() -> None:
    """GPT-2's 124,439,808 gradients in two bytes, of which one of two devices keeps half when the update begins."""
    how = Execution(length=8, precision="fp16", zero_stage=2, devices=2)
    parts, at = transformers.fullest(find("gpt2"), how)
    assert at == "update"
    assert parts["gradients"] == pytest.approx(124_439_808 * 2 / 2)
