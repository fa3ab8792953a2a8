"""Traced generation, which skips what lies between the first and the last token, against transformers' ``generate``."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ganeum.config import Config
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan.execution import Execution
from ganeum.plan.trace.events import Allocation, live
from ganeum.plan.trace.step import trace

transformers = pytest.importorskip("transformers")

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
CONFIGS: dict[str, Any] = {
    "T5ForConditionalGeneration": lambda: transformers.T5Config(
        d_model=128, d_ff=512, num_layers=2, num_heads=4, d_kv=32, vocab_size=1_000, decoder_start_token_id=0
    ),
    "LlamaForCausalLM": lambda: transformers.LlamaConfig(
        num_hidden_layers=2,
        hidden_size=128,
        intermediate_size=384,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=1_000,
    ),
}


def measured(kind: str, rows: int, prompt: int, new: int, beams: int) -> int:
    """Weights, and the most that ``generate`` holds besides, as torch's profiler sees it."""
    model = getattr(transformers, kind)(CONFIGS[kind]()).eval()
    ids = torch.full((rows, prompt), 5)

    def work() -> None:
        options = {"max_new_tokens": new, "min_new_tokens": new, "num_beams": beams}
        model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, pad_token_id=0, **options)

    work()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    ordered = sorted(events, key=lambda event: event.start_ns())
    weights = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in model.state_dict().values()}
    return sum(map(int, weights.values())) + max(itertools.accumulate(int(event.nbytes()) for event in ordered))


@pytest.mark.parametrize(
    ("kind", "rows", "prompt", "new", "beams", "near"),
    [
        ("T5ForConditionalGeneration", 4, 96, 64, 1, 0.002),
        ("T5ForConditionalGeneration", 4, 32, 100, 3, 0.02),
        ("LlamaForCausalLM", 8, 126, 2, 1, 0.02),  # attention's kernel on a CPU takes something for itself
    ],
)
def test_traced_generation_has_the_peak_of_a_real_one(
    kind: str, rows: int, prompt: int, new: int, beams: int, near: float, tmp_path: Path
) -> None:
    """The last token of a T5 behind its encoder, with beams too; the prompt of a Llama."""
    CONFIGS[kind]().save_pretrained(tmp_path)
    config = Config.model_validate(
        {"name": "traced", "model": {"source": str(tmp_path), "fresh": True}, "data": {"train": "none.jsonl"}}
    )
    pairs = kind.startswith("T5")
    way = Execution(
        purpose="generation",
        micro_batch_size=rows,
        length=new + 1 if pairs else prompt + new,
        source_length=prompt if pairs else 0,
        beams=beams,
        kind="cpu",
        precision="fp32",
    )
    found = trace(config, CPU, way)
    assert measured(kind, rows, prompt, new, beams) == pytest.approx(max(live(found.events)), rel=near)


@pytest.mark.parametrize("purpose", ["inference", "generation"])
def test_a_gpt_of_ours_reads_and_writes_without_an_optimizer(purpose: Any) -> None:
    """On a V100 in fp16: the weights stay, their gradients and state are never made; the cache of 40 tokens holds 256:
    2 layers of 2 × 2 × 256 × 64 numbers of two bytes, and no more."""
    config = Config.model_validate(
        {"name": "traced", "model": {"n_layer": 2, "n_head": 2, "n_embd": 64, "block_size": 512, "vocab_size": 100}}
    )
    way = Execution(purpose=purpose, micro_batch_size=2, length=40, precision="fp16", attention="efficient")
    made = [e for e in trace(config, card("V100 PCIe 16GB"), way).events if isinstance(e, Allocation)]
    assert not {"gradients", "optimizer"} & {e.kind for e in made}
    caches = [
        e.bytes for e in made if e.operation == "aten::new_empty" and e.source.startswith("ganeum/models/cache.py")
    ]
    assert caches == ([2 * 256 * 64 * 2] * 4 if purpose == "generation" else [])
