"""A traced step against the same step really taken: torch's profiler sees the same bytes at the same time."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ganeum.config import Config
from ganeum.config.change import change
from ganeum.data.batch import WindowBatch
from ganeum.hardware.device import Device
from ganeum.plan import execution
from ganeum.plan.trace.events import Allocation, Trace, live
from ganeum.plan.trace.step import trace
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train.evaluate import ValidationSet
from ganeum.train.start import start

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
NEAR = 1e-3
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "gpt2": ({}, {}),
    "gpt2, biases, accumulation": ({"bias": True}, {"micro_batch_size": 1}),
    "gpt2, dropout, checkpointing whole": ({"dropout": 0.1}, {"activation_checkpointing": "whole"}),
    "gpt2, bf16, checkpointing selective": (
        {},
        {"precision": "bf16", "batch_size": 4, "micro_batch_size": 4, "activation_checkpointing": "selective"},
    ),
    "modern, bf16, Muon": ({"style": "modern", "n_kv_head": 2}, {"precision": "bf16", "optimizer": "muon"}),
    "gpt2, Adafactor": ({}, {"optimizer": "adafactor", "micro_batch_size": 1}),
    "gpt2, SGD, long": ({"block_size": 1088}, {"optimizer": "sgd", "batch_size": 1, "micro_batch_size": 1}),
}


def config_of(model: dict[str, Any], train: dict[str, Any]) -> Config:
    return Config.model_validate(
        {
            "name": "traced",
            "device": "cpu",
            "model": {"n_layer": 2, "n_head": 4, "n_embd": 256, "block_size": 256, "vocab_size": 2_048} | model,
            "train": {
                "batch_size": 2,
                "micro_batch_size": 2,
                "precision": "fp32",
                "compile": False,
                "loss_chunk": 512,
                "activation_checkpointing": "none",
            }
            | train,
        }
    )


def tensors(state: Any) -> Iterator[Tensor]:
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        yield from itertools.chain.from_iterable(map(tensors, state.values()))


def held(step: OptimizerStep) -> int:
    """Bytes of weights, buffers and optimizer state."""
    state = [tensors(part.state_dict()) for part in step.optimizer.parts.values()]
    every = itertools.chain(step.model.parameters(), step.model.buffers(), *state)
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in every}.values())


def measured(config: Config) -> int:
    """Bytes at the second step's fullest moment, as torch's profiler sees allocations and releases."""
    step = start(config)
    step.model.train()
    tokens = torch.zeros(config.train.batch_size, config.model.block_size, dtype=torch.int64)
    whole, at_once = WindowBatch(tokens, tokens), config.train.micro_batch_size
    assert isinstance(at_once, int)
    step.on(whole, at_once=at_once, step=0, learning_rate=1e-3)
    return held(step) + most(lambda: step.on(whole, at_once=at_once, step=1, learning_rate=1e-3))


def most(work: Callable[[], object]) -> int:
    """Bytes at its fullest moment, above what was there before."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    ordered = sorted(events, key=lambda event: event.start_ns())
    return max(itertools.accumulate(int(event.nbytes()) for event in ordered))


def peak(found: Trace) -> int:
    """Bytes at the second step's fullest moment. What lies there before it are weights, state and nothing else."""
    return max(list(live(found.events))[found.steps[1] :])


@pytest.mark.parametrize("name", CASES)
def test_a_traced_step_has_the_peak_of_a_real_one(name: str) -> None:
    """On a CPU, within 0.1 %: the same operations, the same sizes, the same lives."""
    config = config_of(*CASES[name])
    assert isinstance(config.train.micro_batch_size, int)
    way = execution.of(config, CPU, config.train.micro_batch_size)
    assert measured(config) == pytest.approx(peak(trace(config, CPU, way)), rel=NEAR)


def test_between_its_steps_a_run_evaluates_and_writes() -> None:
    """At sizes of their own, which may need more than a step: as much as an evaluation really takes. What the run does
    then is as before."""
    config = change(config_of({}, {"eval_batch_size": 16, "eval_tokens": "all"}), {"sample.num_samples": 3})
    found = trace(config, CPU, execution.of(config, CPU, 2), between=True)
    heights = list(live(found.events))
    _, second, between, last = found.steps
    written = next(n for n, e in enumerate(found.events) if isinstance(e, Allocation) and e.phase == "generation")
    step, tokens = start(config), torch.zeros(16, 256, dtype=torch.int64)
    step.on(WindowBatch(tokens, tokens).first(2), at_once=2, step=0, learning_rate=1e-3)
    evaluation = held(step) + most(lambda: ValidationSet(WindowBatch(tokens, tokens), None).evaluate(step, 16))
    assert max(heights[between:written]) == pytest.approx(evaluation, rel=NEAR)
    assert max(heights[second:between]) == max(heights[last:]) < max(heights[between:written])
    assert max(heights[written:last]) < max(heights[last:])
    silent = change(config, {"sample.interval": 0, "train.eval_tokens": 512})
    fewer = trace(silent, CPU, execution.of(silent, CPU, 2), between=True)
    assert {e.phase for e in fewer.events if isinstance(e, Allocation)} >= {"evaluation"}
    assert not any(e.phase == "generation" for e in fewer.events if isinstance(e, Allocation))
    assert max(live(fewer.events)) == max(heights[last:])


def test_what_is_recorded_says_what_it_is_for() -> None:
    """AdamW on N weights: 4 N bytes of weights, 8 N and two scalars a tensor of state, both there to the end."""
    config = config_of({}, {})
    found = trace(config, CPU, execution.of(config, CPU, 2))
    model = start(config).model
    numbers = sum(p.numel() for p in model.parameters())
    gone = {event.key for event in found.events if not isinstance(event, Allocation)}
    there = [event for event in found.events if isinstance(event, Allocation) and event.key not in gone]
    by_kind = {kind: sum(e.bytes for e in there if e.kind == kind) for kind in {e.kind for e in there}}
    assert 4 * numbers == by_kind["weights"]
    assert 8 * numbers <= by_kind["optimizer"] <= 8 * numbers + 8 * len(list(model.parameters()))
    assert "gradients" not in by_kind
    assert {"blocks.0.mlp", "blocks.1.attention"} <= {e.layer for e in found.events if isinstance(e, Allocation)}


def test_a_backward_operation_has_the_layer_and_line_of_its_forward_operation() -> None:
    """GELU's backward pass allocates for the line that called GELU."""
    config = config_of({}, {})
    found = trace(config, CPU, execution.of(config, CPU, 2))
    backward = [
        (event.layer, event.source.rpartition(":")[0], event.phase)
        for event in found.events
        if isinstance(event, Allocation) and event.operation == "aten::gelu_backward"
    ]
    assert {(f"blocks.{n}.mlp", "ganeum/models/gpt.py", "backward") for n in (0, 1)} == set(backward)
