"""Traced steps of transformers' models against the same steps really taken."""

from __future__ import annotations

import gc
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from ganeum.config import Config
from ganeum.data.examples.collate import Full
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.plan import execution
from ganeum.plan.execution import Execution
from ganeum.plan.trace.events import live
from ganeum.plan.trace.step import trace
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train.start import start

transformers = pytest.importorskip("transformers")

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
T5: dict[str, Any] = {
    "d_model": 128,
    "d_ff": 512,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "d_kv": 32,
    "vocab_size": 1_000,
    "decoder_start_token_id": 0,
}
LLAMA: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1_000,
}
MODELS: dict[str, Any] = {
    "t5": lambda: transformers.T5Config(**T5),
    "mt5": lambda: transformers.MT5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "gpt2": lambda: transformers.GPT2Config(n_layer=2, n_head=4, n_embd=128, vocab_size=1_000),
    "llama": lambda: transformers.LlamaConfig(**LLAMA),
    "bart": lambda: transformers.BartConfig(
        encoder_layers=2,
        decoder_layers=2,
        d_model=128,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        vocab_size=1_000,
        forced_eos_token_id=None,
    ),
    "opt": lambda: transformers.OPTConfig(
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=384,
        vocab_size=1_000,
        word_embed_proj_dim=128,
    ),
    "falcon": lambda: transformers.FalconConfig(
        hidden_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=1_000
    ),
}
WHOLE = {"activation_checkpointing": "whole"}
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "t5": ("t5", {}, "buckets"),
    "t5, packed, checkpointing whole": ("t5", WHOLE, "packed"),
    "mt5, Adafactor, accumulation": ("mt5", {"optimizer": "adafactor", "micro_batch_size": 2}, "buckets"),
    "gpt2, checkpointing selective": ("gpt2", {"activation_checkpointing": "selective"}, "buckets"),
    "llama": ("llama", {}, "buckets"),
    "bart": ("bart", {}, "buckets"),
    "opt": ("opt", {}, "buckets"),
    "falcon": ("falcon", {}, "buckets"),
}


def config_of(name: str, train: dict[str, Any], batching: str, where: Path) -> Config:
    MODELS[name]().save_pretrained(where)
    fixed = {"batch_size": 4, "micro_batch_size": 4, "precision": "fp32", "compile": False, "loss_chunk": 512}
    return Config.model_validate(
        {
            "name": "traced",
            "device": "cpu",
            "model": {"source": str(where), "fresh": True},
            "data": {"train": "none.jsonl", "max_length": 96, "max_target_length": 64, "batching": batching},
            "train": fixed | {"activation_checkpointing": "none"} | train,
        }
    )


def held(step: OptimizerStep) -> int:
    """Bytes of weights, buffers and optimizer state."""

    def tensors(state: Any) -> list[torch.Tensor]:
        if isinstance(state, torch.Tensor):
            return [state]
        return [t for value in state.values() for t in tensors(value)] if isinstance(state, dict) else []

    state = [tensors(part.state_dict()) for part in step.optimizer.parts.values()]
    every = itertools.chain(step.model.parameters(), step.model.buffers(), *state)
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in every}.values())


def measured(config: Config, way: Execution) -> int:
    """Bytes at the fullest moment of the second step, or of an evaluation after two steps."""
    step = start(config)
    whole = Full(config.train.batch_size, (way.source_length, way.length), config.data.batching == "packed")
    at_once = way.micro_batch_size
    step.model.train()
    step.on(whole, at_once=at_once, step=0, learning_rate=1e-3)
    before = held(step)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step.on(whole, at_once=at_once, step=1, learning_rate=1e-3)
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    ordered = sorted(events, key=lambda event: event.start_ns())
    return before + max(itertools.accumulate(int(event.nbytes()) for event in ordered))


@pytest.mark.parametrize("name", CASES)
def test_a_traced_step_of_their_models_has_the_peak_of_a_real_one(name: str, tmp_path: Path) -> None:
    """On a CPU, within 0.1 %."""
    config = config_of(*CASES[name], tmp_path)
    assert isinstance(config.train.micro_batch_size, int)
    way = execution.of(config, CPU, config.train.micro_batch_size)
    found = trace(config, CPU, way)
    assert measured(config, way) == pytest.approx(max(list(live(found.events))[found.steps[1] :]), rel=1e-3)


def test_a_bias_on_the_scores_goes_to_the_kernel_that_takes_one(tmp_path: Path) -> None:
    """T5 in bf16: no flash, on any card; two steps of 2 layers with itself and 2 that look across too, 6 in all."""
    config = config_of("t5", {"precision": "bf16"}, "buckets", tmp_path)
    gpu = card("A100 PCIe 40GB")
    assert {"efficient": 12} == trace(config, gpu, execution.of(config, gpu, 4)).settings["attention"]
