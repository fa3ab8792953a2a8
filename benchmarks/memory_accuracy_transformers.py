"""How close the plan's memory comes to what torch allocates, for models of transformers on a CPU.

    python benchmarks/memory_accuracy_transformers.py            # results/memory-accuracy-transformers-cpu.json
    python benchmarks/memory_accuracy_transformers.py --only t5  # rows whose name begins so, printed alone
    python benchmarks/memory_accuracy_transformers.py --write    # the table of docs/memory_plan.md from the results

Every row runs a step as the Trainer does (forward, loss, backward for each micro-batch, clipped gradients, update), and
then once more under torch's profiler, which reports each allocation and release. Measured is what lies in weights and
optimizer state by then, and the most that the second step adds to it. An evaluation is a forward pass with its loss.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from ganeum import hardware
from ganeum.config.schema import Lora
from ganeum.plan import memory
from ganeum.plan.architecture import from_config_json
from ganeum.plan.execution import Execution

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "memory-accuracy-transformers-cpu.json"
PAGE = ROOT / "docs" / "memory_plan.md"
MARK, END = f"<!-- table: {RESULTS.name} -->", "<!-- end -->"
MIB = 2**20


@dataclass(frozen=True)
class Row:
    """One step: a model's config, and how it runs."""

    family: str
    config: dict[str, Any] = field(default_factory=dict)
    B: int = 4
    T: int = 64
    S: int = 128
    precision: str = "fp32"
    weights: str = "fp32"
    optimizer: str = "adamw"
    purpose: str = "training"
    attention: str = "sdpa"
    checkpointing: bool = False
    accumulation: int = 1
    rank: int | None = None
    adapter_dropout: float = 0.0


T5 = {"d_model": 128, "d_kv": 32, "num_heads": 4, "d_ff": 512, "num_layers": 3, "vocab_size": 4_000}
GATED = T5 | {"feed_forward_proj": "gated-gelu", "d_ff": 320}
UNTIED = GATED | {"tie_word_embeddings": False}
STILL, BF16, CAST = {"dropout_rate": 0.0}, {"precision": "bf16"}, {"precision": "bf16", "weights": "bf16"}
GPT2 = {"n_embd": 128, "n_layer": 3, "n_head": 4, "n_positions": 256, "vocab_size": 4_000}
LLAMA = {
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 352,
    "vocab_size": 4_000,
    "max_position_embeddings": 256,
}
QWEN3 = LLAMA | {"head_dim": 48, "tie_word_embeddings": True}
PHI = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
CODEGEN = GPT2 | {"n_ctx": 256, "rotary_dim": 16, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
MPT = {"d_model": 128, "n_layers": 3, "n_heads": 4, "max_seq_len": 256, "vocab_size": 4_000}

ROWS: dict[str, Row] = {
    "t5": Row("t5", T5),
    "t5, no dropout": Row("t5", T5 | STILL),
    "t5, batch 1": Row("t5", T5, B=1),
    "t5, batch 16": Row("t5", T5, B=16),
    "t5, long source": Row("t5", T5, B=2, S=512, T=32),
    "t5, long target": Row("t5", T5, B=2, S=32, T=384),
    "t5, more decoder": Row("t5", T5 | {"num_layers": 1, "num_decoder_layers": 5}),
    "t5, wider": Row("t5", T5 | {"d_model": 384, "num_heads": 6, "d_kv": 64, "d_ff": 1_536}, B=2),
    "t5, large vocabulary": Row("t5", T5 | {"vocab_size": 32_128}, B=2),
    "t5, large vocabulary, one short sequence": Row("t5", T5 | {"vocab_size": 32_128}, B=1, S=16, T=8),
    "t5, eager": Row("t5", T5, attention="eager"),
    "t5, eager, no dropout": Row("t5", T5 | STILL, attention="eager"),
    "t5, bf16": Row("t5", T5, **BF16),
    "t5, bf16, no dropout": Row("t5", T5 | STILL, **BF16),
    "t5, bf16, eager": Row("t5", T5, attention="eager", **BF16),
    "t5, cast to bf16": Row("t5", T5, **CAST),
    "t5, cast to bf16, no dropout": Row("t5", T5 | STILL, **CAST),
    "t5, accumulation": Row("t5", T5, accumulation=3),
    "t5, accumulation, large vocabulary": Row("t5", T5 | {"vocab_size": 32_128}, B=1, S=16, T=8, accumulation=2),
    "t5, checkpointing": Row("t5", T5, checkpointing=True),
    "t5, checkpointing, long source": Row("t5", T5, checkpointing=True, B=2, S=512, T=32),
    "t5, checkpointing, no dropout, bf16": Row("t5", T5 | STILL, checkpointing=True, **BF16),
    "t5, checkpointing, cast to bf16": Row("t5", T5, checkpointing=True, **CAST),
    "t5, checkpointing, one layer": Row("t5", T5 | {"num_layers": 1}, checkpointing=True, B=2, S=512, T=32),
    "t5, checkpointing, wide MLP, one sequence": Row(
        "t5", GATED | {"d_ff": 1_024} | STILL, checkpointing=True, B=1, S=512
    ),
    "t5, checkpointing, more decoder": Row(
        "t5", T5 | {"num_layers": 1, "num_decoder_layers": 5}, checkpointing=True, S=64, T=256
    ),
    "t5, checkpointing, eager, bf16": Row("t5", T5, checkpointing=True, attention="eager", B=1, S=512, **BF16),
    "t5, Adafactor": Row("t5", T5, optimizer="adafactor"),
    "t5, Adafactor, large vocabulary": Row(
        "t5", T5 | {"vocab_size": 32_128}, B=1, S=16, T=8, optimizer="adafactor", **CAST
    ),
    "t5, SGD": Row("t5", T5, optimizer="sgd"),
    "t5, LoRA": Row("t5", T5, rank=8),
    "t5, LoRA, bf16": Row("t5", T5, rank=8, **BF16),
    "t5, LoRA, adapters' dropout": Row("t5", T5, rank=8, adapter_dropout=0.1),
    "t5, LoRA, adapters' dropout, bf16": Row("t5", T5, rank=8, adapter_dropout=0.1, **BF16),
    "t5, evaluation": Row("t5", T5, purpose="evaluation"),
    "t5, evaluation, long source": Row("t5", T5, purpose="evaluation", B=2, S=512, T=32),
    "t5, evaluation, bf16": Row("t5", T5, purpose="evaluation", **BF16),
    "t5, evaluation, eager": Row("t5", T5, purpose="evaluation", attention="eager", S=384),
    "t5 1.1": Row("t5", UNTIED),
    "t5 1.1, bf16": Row("t5", UNTIED, **BF16),
    "t5 1.1, cast to bf16": Row("t5", UNTIED, **CAST),
    "t5 1.1, checkpointing": Row("t5", UNTIED, checkpointing=True),
    "t5 1.1, Adafactor, cast to bf16": Row("t5", UNTIED, optimizer="adafactor", **CAST),
    "mt5": Row("mt5", UNTIED | {"vocab_size": 25_000}, B=2, S=64, T=32),
    "mt5, bf16": Row("mt5", UNTIED | {"vocab_size": 25_000}, B=2, S=64, T=32, **BF16),
    "mt5, checkpointing, bf16, accumulation": Row(
        "mt5", UNTIED | {"vocab_size": 25_000}, B=1, S=64, T=32, checkpointing=True, accumulation=2, **BF16
    ),
    "gpt2": Row("gpt2", GPT2, T=128),
    "gpt2, bf16": Row("gpt2", GPT2, T=128, **BF16),
    "gpt2, cast to bf16": Row("gpt2", GPT2, T=128, **CAST),
    "gpt2, eager": Row("gpt2", GPT2, T=128, attention="eager"),
    "gpt2, checkpointing": Row("gpt2", GPT2 | {"vocab_size": 300}, T=256, checkpointing=True),
    "gpt2, LoRA": Row("gpt2", GPT2, T=128, rank=8),
    "gpt2, evaluation": Row("gpt2", GPT2, T=128, purpose="evaluation"),
    "llama": Row("llama", LLAMA, T=128),
    "llama, bf16": Row("llama", LLAMA, T=128, **BF16),
    "llama, checkpointing": Row("llama", LLAMA | {"vocab_size": 300}, T=256, checkpointing=True),
    "llama, LoRA, cast to bf16": Row("llama", LLAMA, T=128, rank=8, **CAST),
    "qwen3": Row("qwen3", QWEN3, T=128),
    "qwen3, bf16": Row("qwen3", QWEN3, T=128, **BF16),
    "qwen3, evaluation, bf16": Row("qwen3", QWEN3, T=128, purpose="evaluation", **BF16),
    "codegen": Row("codegen", CODEGEN, T=128),
    "codegen, bf16": Row("codegen", CODEGEN, T=128, **BF16),
    "codegen, cast to bf16, checkpointing": Row("codegen", CODEGEN, T=128, checkpointing=True, **CAST),
    "phi": Row("phi", PHI, T=128),
    "phi, bf16": Row("phi", PHI, T=128, **BF16),
    "gpt_bigcode": Row("gpt_bigcode", GPT2, T=128),
    "gpt_bigcode, bf16": Row("gpt_bigcode", GPT2, T=128, **BF16),
    "mpt": Row("mpt", MPT, T=128),
    "mpt, cast to bf16": Row("mpt", MPT, T=128, **CAST),
}


def build(row: Row) -> nn.Module:
    """The model, of random weights."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(row.family, **row.config)
    if row.family in ("t5", "mt5"):
        config.decoder_start_token_id = 0
        model = transformers.AutoModelForSeq2SeqLM.from_config(config, attn_implementation=row.attention)
        if not row.config.get("tie_word_embeddings", True):  # as a checkpoint of version 1.1 is loaded
            model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    else:
        known = {} if row.family in ("codegen", "mpt") else {"attn_implementation": row.attention}
        model = transformers.AutoModelForCausalLM.from_config(config, **known)
    model.config.use_cache = False  # as the Trainer sets it
    model.to(torch.bfloat16 if row.weights == "bf16" else torch.float32)
    if row.checkpointing:
        model.gradient_checkpointing_enable()
    if row.rank:
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=row.rank, lora_dropout=row.adapter_dropout, target_modules="all-linear")
        model = get_peft_model(model, lora)
    return model.train(row.purpose == "training")


def optimizer(row: Row, model: nn.Module) -> torch.optim.Optimizer:
    """Those that the Trainer takes."""
    learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if row.optimizer == "adafactor":
        return transformers.Adafactor(learnt, lr=1e-3, scale_parameter=False, relative_step=False)
    if row.optimizer == "sgd":
        return torch.optim.SGD(learnt, lr=1e-3, momentum=0.95)
    return torch.optim.AdamW(learnt, lr=1e-3, fused=True)


def batch(row: Row) -> dict[str, Tensor]:
    """Random tokens; sources of different lengths."""
    ids = torch.randint(2, 300, (row.B, row.S if row.family in ("t5", "mt5") else row.T))
    mask = torch.ones_like(ids)
    if row.family in ("t5", "mt5"):
        mask[:, -3:] = 0
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(2, 300, (row.B, row.T))}
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


def step_of(row: Row, model: nn.Module, moves: torch.optim.Optimizer) -> Callable[[], None]:
    """What is measured."""
    inputs = batch(row)
    autocast = row.precision == "bf16" and row.weights == "fp32"

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16) if autocast else contextlib.nullcontext():
            found: Tensor = model(**inputs).loss
        return found

    def train() -> None:
        for _ in range(row.accumulation):
            loss().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        moves.step()
        moves.zero_grad()

    def evaluate() -> None:
        with torch.no_grad():
            loss()

    return train if row.purpose == "training" else evaluate


def allocations(work: Callable[[], object]) -> Iterator[int]:
    """Bytes of each allocation on the CPU, negative for a release, in their order."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        work()
    events = seen.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted((event for event in events if event.name() == "[memory]"), key=lambda event: event.start_ns()):
        yield event.nbytes()


def most(work: Callable[[], object]) -> int:
    """The most bytes that ``work`` adds to what is there, at one time."""
    now = fullest = 0
    for size in allocations(work):
        now += size
        fullest = max(fullest, now)
    return fullest


def measured(row: Row) -> int:
    """Bytes at the step's fullest moment."""
    model = build(row)
    moves = optimizer(row, model)
    step = step_of(row, model, moves)
    step()
    held = {parameter.data_ptr(): parameter.nbytes for parameter in model.parameters()}
    state = [value.nbytes for of in moves.state.values() for value in of.values() if isinstance(value, Tensor)]
    return sum(held.values()) + sum(state) + most(step)


def predicted(row: Row) -> memory.Memory:
    """The plan's."""
    config = transformers.AutoConfig.for_model(row.family, **row.config).to_dict() | row.config
    execution = Execution(
        purpose="training" if row.purpose == "training" else "evaluation",
        micro_batch_size=row.B,
        length=row.T,
        source_length=row.S if row.family in ("t5", "mt5") else 0,
        accumulation=row.accumulation,
        kind="cpu",
        precision=row.precision,  # type: ignore[arg-type]
        weights=row.weights,  # type: ignore[arg-type]
        optimizer=row.optimizer if row.purpose == "training" else "sgd",  # type: ignore[arg-type]
        momentum=0.95 if row.purpose == "training" else 0.0,  # an evaluation alone: no state is there
        checkpointing="whole" if row.checkpointing else "none",
        attention="eager" if row.attention == "eager" else "efficient",
        lora=Lora(rank=row.rank, dropout=row.adapter_dropout),
    )
    return memory.of(from_config_json(config, name=row.family, source="benchmark"), execution)


def compared(name: str) -> dict[str, Any]:
    """One row of the table."""
    row, found = ROWS[name], {}
    found["row"] = name
    plan = predicted(row)
    found["predicted_mib"], found["at"] = plan.expected / MIB, plan.at
    found["measured_mib"] = measured(row) / MIB
    found["off"] = found["predicted_mib"] / found["measured_mib"] - 1
    return found


def table() -> str:
    """The results as the page shows them."""
    found = json.loads(RESULTS.read_text())
    lines = ["| | predicted, MiB | measured, MiB | off | fullest |", "|---|--:|--:|--:|---|"]
    for row in found["rows"]:
        figures = f"{row['predicted_mib']:.2f} | {row['measured_mib']:.2f} | {row['off']:+.2%}"
        lines.append(f"| {row['row']} | {figures} | {row['at']} |")
    where = found["machine"]
    versions = f"torch {where['torch']}, transformers {where['transformers']}, {where['date']}"
    return f"{where['device']}, {versions}.\n\n" + "\n".join(lines)


def write() -> None:
    """Puts the table into the page."""
    before, rest = PAGE.read_text().split(MARK)
    PAGE.write_text(f"{before}{MARK}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name begins so; nothing is written then")
    parser.add_argument("--write", action="store_true", help="the table of docs/memory_plan.md from the results")
    given = parser.parse_args()
    if given.write:
        return write()
    transformers.logging.set_verbosity_error()
    print(f"{'':45}  predicted   measured      off  fullest")
    rows = []
    for name in ROWS:
        if name.startswith(given.only):
            row = compared(name)
            rows.append(row)
            figures = f"{row['predicted_mib']:7.2f} MiB {row['measured_mib']:6.2f} MiB {row['off']:+8.2%}"
            print(f"{name:45} {figures}  {row['at']}", flush=True)
    if given.only:
        return
    machine = {
        "device": hardware.detect("cpu").name,
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": date.today().isoformat(),
    }
    command = "python benchmarks/memory_accuracy_transformers.py"
    RESULTS.write_text(json.dumps({"command": command, "machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
