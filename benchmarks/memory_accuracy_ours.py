"""How close the plan's memory comes to what torch allocates in a run's own step, for our GPT on a CPU.

    python benchmarks/memory_accuracy_ours.py                 # results/memory-accuracy-cpu.json
    python benchmarks/memory_accuracy_ours.py --only modern   # rows whose name begins so, printed alone
    python benchmarks/memory_accuracy_ours.py --write         # the table of docs/memory_plan.md from the result file

Every row takes a step as `ganeum train` does (train/start.py, step/optimizer_step.py), and then a second one under
torch's profiler, which reports each allocation and release. Measured is what lies in weights and optimizer state by
then, and the most that the second step adds to it at one time. An evaluation is a forward pass and its loss.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ganeum import hardware
from ganeum.config import Config
from ganeum.data.batch import WindowBatch
from ganeum.hardware.device import Device
from ganeum.plan import execution, memory
from ganeum.plan.architecture import ours
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train.start import start

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "memory-accuracy-cpu.json", ROOT / "docs" / "memory_plan.md"
MARK, END = "<!-- table: memory-accuracy-cpu.json -->", "<!-- end -->"
MIB = 2**20
CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)


@dataclass(frozen=True)
class Row:
    """Keys of ``model`` and ``train`` that differ from the plain row's."""

    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    evaluation: bool = False

    @property
    def config(self) -> Config:
        model = {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 256, "vocab_size": 2_048}
        train = {
            "batch_size": 4,
            "micro_batch_size": 4,
            "precision": "fp32",
            "compile": False,
            "loss_chunk": 512,
            "activation_checkpointing": "none",
        }
        return Config.model_validate(
            {"name": "row", "device": "cpu", "model": model | self.model, "train": train | self.train}
        )


MODERN = {"style": "modern", "n_kv_head": 2}
LONG, LARGE, DROPOUT = {"block_size": 1_088}, {"vocab_size": 50_257}, {"dropout": 0.1}
BF16, CAST = {"precision": "bf16"}, {"precision": "bf16", "weights": "bf16"}
ONE = {"micro_batch_size": 1}  # four micro-batches
WHOLE, SELECTIVE = {"activation_checkpointing": "whole"}, {"activation_checkpointing": "selective"}
RANK = {"lora": {"rank": 8}}

ROWS: dict[str, Row] = {
    "gpt2": Row(),
    "gpt2, bf16": Row({}, BF16),
    "gpt2, cast to bf16": Row({}, CAST),
    "gpt2, biases, bf16": Row({"bias": True}, BF16),
    "gpt2, one layer": Row({"n_layer": 1}),
    "gpt2, two layers, bf16": Row({"n_layer": 2}, BF16),
    "gpt2, 12 layers, narrow": Row({"n_layer": 12, "n_embd": 128}),
    "gpt2, wide, short": Row({"n_embd": 768, "n_head": 12, "block_size": 64}),
    "gpt2, many heads": Row({"n_head": 16}, BF16),
    "gpt2, short": Row({"block_size": 32}, {"batch_size": 32, "micro_batch_size": 32}),
    "gpt2, long": Row(LONG),
    "gpt2, long, bf16": Row(LONG, BF16),
    "gpt2, dropout": Row(DROPOUT),
    "gpt2, dropout, bf16": Row(DROPOUT, BF16),
    "gpt2, dropout, checkpointing whole": Row(DROPOUT, WHOLE),
    "gpt2, dropout, one sequence": Row(DROPOUT, {"batch_size": 1, "micro_batch_size": 1}),
    "gpt2, untied": Row({"tie_embeddings": False}),
    "gpt2, untied, large vocabulary, bf16, small chunk": Row(
        LARGE | {"tie_embeddings": False}, BF16 | ONE | {"loss_chunk": 128}
    ),
    "gpt2, large vocabulary": Row(LARGE),
    "gpt2, large vocabulary, bf16": Row(LARGE, BF16),
    "gpt2, large vocabulary, small chunk": Row(LARGE, ONE | {"loss_chunk": 32}),
    "gpt2, all logits at once": Row({"vocab_size": 8_192}, {"loss_chunk": 1_024}),
    "gpt2, accumulation": Row({}, ONE),
    "gpt2, accumulation, bf16": Row({}, BF16 | ONE),
    "gpt2, batch 16": Row({}, {"batch_size": 16, "micro_batch_size": 16}),
    "gpt2, checkpointing selective": Row({}, SELECTIVE),
    "gpt2, checkpointing selective, bf16": Row({}, SELECTIVE | BF16),
    "gpt2, checkpointing whole": Row({}, WHOLE),
    "gpt2, checkpointing whole, bf16": Row({}, WHOLE | BF16),
    "gpt2, Adafactor": Row({}, ONE | {"optimizer": "adafactor"}),
    "gpt2, Adafactor, cast to bf16, large vocabulary": Row(LARGE, ONE | CAST | {"optimizer": "adafactor"}),
    "gpt2, SGD": Row({}, ONE | {"optimizer": "sgd"}),
    "gpt2, SGD without momentum": Row({}, ONE | {"optimizer": "sgd", "momentum": 0.0}),
    "gpt2, 8-bit AdamW": Row({}, ONE | {"optimizer": "adamw8bit"}),
    "gpt2, 8-bit AdamW, cast to bf16, checkpointing whole": Row({}, ONE | CAST | WHOLE | {"optimizer": "adamw8bit"}),
    "gpt2, AdamW, cast to bf16, checkpointing whole": Row({}, ONE | CAST | WHOLE),
    "gpt2, Muon, bf16": Row({}, ONE | BF16 | {"optimizer": "muon"}),
    "gpt2, LoRA": Row({}, RANK),
    "gpt2, LoRA, cast to bf16, checkpointing whole": Row({}, RANK | CAST | WHOLE),
    "modern": Row(MODERN),
    "modern, bf16": Row(MODERN, BF16),
    "modern, cast to bf16": Row(MODERN, CAST),
    "modern, wide heads": Row(MODERN | {"head_dim": 128}, BF16),
    "modern, long": Row(MODERN | LONG),
    "modern, long, bf16": Row(MODERN | LONG, BF16),
    "modern, dropout": Row(MODERN | DROPOUT),
    "modern, dropout, bf16": Row(MODERN | DROPOUT, BF16),
    "modern, dropout, one head of keys": Row(MODERN | DROPOUT | {"n_kv_head": 1}),
    "modern, large vocabulary, checkpointing whole": Row(MODERN | LARGE, WHOLE),
    "modern, Muon": Row(MODERN, ONE | {"optimizer": "muon"}),
    "modern, LoRA, bf16": Row(MODERN, RANK | BF16),
    "modern, LoRA, dropout, bf16": Row(MODERN, {"lora": {"rank": 8, "dropout": 0.1}} | BF16),
    "gpt2, a chunk and a bit": Row({"vocab_size": 20_011}, {"loss_chunk": 1_000}),
    "gpt2, evaluation, a chunk and a bit, bf16": Row({"vocab_size": 20_011}, {"loss_chunk": 1_000} | BF16, True),
    "gpt2, a length that is no multiple, checkpointing whole": Row(
        {"block_size": 333, "n_embd": 64, "n_layer": 5, "vocab_size": 257}, WHOLE | {"loss_chunk": 64}
    ),
    "gpt2, Muon, stacks of unequal size": Row({"n_layer": 5, "n_embd": 512}, ONE | {"optimizer": "muon"}),
    "gpt2, evaluation": Row(evaluation=True),
    "gpt2, evaluation, bf16": Row({}, BF16, evaluation=True),
    "gpt2, evaluation, large vocabulary, bf16": Row(LARGE, BF16, evaluation=True),
    "gpt2, evaluation, dropout, bf16": Row(DROPOUT, BF16, evaluation=True),
    "modern, evaluation, bf16": Row(MODERN, BF16, evaluation=True),
    "modern, evaluation, long, bf16": Row(MODERN | LONG, BF16, evaluation=True),
}


def batch(config: Config) -> WindowBatch:
    """A step's random tokens."""
    assert isinstance(config.model.vocab_size, int)
    tokens = torch.randint(0, config.model.vocab_size, (config.train.batch_size, config.model.block_size + 1))
    return WindowBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())


def allocations(work: Callable[[], object]) -> Iterator[int]:
    """Bytes of each allocation on the CPU, negative for a release, in their order."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    assert seen.profiler is not None
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        yield event.nbytes()


def tensors(state: Any) -> Iterator[Tensor]:
    """All that are somewhere in it."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, dict):
        yield from itertools.chain.from_iterable(map(tensors, state.values()))


def held(step: OptimizerStep) -> int:
    """Bytes of weights, buffers and optimizer state; what shares memory counts once."""
    state = [tensors(part.state_dict()) for part in step.optimizer.parts.values()]
    every = itertools.chain(step.model.parameters(), step.model.buffers(), *state)
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in every}.values())


def measured(row: Row) -> int:
    """Bytes at the step's fullest moment."""
    torch.manual_seed(0)
    step = start(row.config)
    step.model.train()
    at_once = row.config.train.micro_batch_size
    assert isinstance(at_once, int)
    step.on(batch(row.config), at_once=at_once, step=0, learning_rate=1e-3)
    second, before = batch(row.config), held(step)

    def work() -> None:
        if row.evaluation:
            step.token_nats(next(second.micro_batches(at_once)))
        else:
            step.on(second, at_once=at_once, step=1, learning_rate=1e-3)

    step.model.train(not row.evaluation)
    return before + max(itertools.accumulate(allocations(work)))


def predicted(row: Row) -> memory.Memory:
    """The plan's."""
    config = row.config
    assert isinstance(config.train.micro_batch_size, int)
    way = execution.of(config, CPU, config.train.micro_batch_size)
    if row.evaluation:
        way = replace(way, purpose="evaluation")
    return memory.of(ours.architecture(config.model), way)


def compared(name: str) -> dict[str, Any]:
    """One row of the table."""
    plan, real = predicted(ROWS[name]), measured(ROWS[name])
    return {
        "row": name,
        "predicted_mib": plan.expected / MIB,
        "at": plan.at,
        "measured_mib": real / MIB,
        "off": plan.expected / real - 1,
    }


def table(result: dict[str, Any]) -> str:
    """A result file as Markdown."""
    where, plain = result["machine"], ROWS["gpt2"].config
    model, train = plain.model, plain.train
    lines = [
        f"Where a row says nothing else: {model.n_layer} layers × {model.n_embd}, {train.batch_size} sequences of "
        f"{model.block_size} tokens, vocabulary {model.vocab_size:,}, fp32, AdamW; accumulation is over four "
        f"micro-batches, long is {LONG['block_size']:,} tokens, a large vocabulary {LARGE['vocab_size']:,}. "
        f"{where['device']}, {where['threads']} thread, torch {where['torch']}, {where['date']}.",
        "",
        "| | predicted, MiB | measured, MiB | off | fullest |",
        "|---|--:|--:|--:|---|",
    ]
    for row in result["rows"]:
        figures = f"{row['predicted_mib']:.2f} | {row['measured_mib']:.2f} | {row['off']:+.2%}"
        lines.append(f"| {row['row']} | {figures} | {row['at']} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """docs/memory_plan.md with the table as the result file has it."""
    before, rest = text.split(MARK)
    shown = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    return f"{before}{MARK}\n\n{shown}\n\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name begins so; nothing is written then")
    parser.add_argument("--write", action="store_true", help="only write the table of docs/memory_plan.md")
    given = parser.parse_args()
    if given.write:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    print(f"{'':54}  predicted   measured      off  fullest")
    rows = []
    for name in ROWS:
        if name.startswith(given.only):
            row = compared(name)
            rows.append(row)
            figures = f"{row['predicted_mib']:7.2f} MiB {row['measured_mib']:6.2f} MiB {row['off']:+8.2%}"
            print(f"{name:54} {figures}  {row['at']}", flush=True)
    if given.only:
        return
    machine = {
        "device": hardware.detect("cpu").name,
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    result = {"command": "python benchmarks/memory_accuracy_ours.py", "machine": machine, "rows": rows}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
