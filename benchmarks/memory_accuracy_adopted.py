"""How close the plan's memory comes to what torch allocates, for transformers' models in a step of ours on a CPU.

    python benchmarks/memory_accuracy_adopted.py            # results/memory-accuracy-adopted-cpu.json
    python benchmarks/memory_accuracy_adopted.py --only t5  # rows whose name begins so, printed alone
    python benchmarks/memory_accuracy_adopted.py --write    # the table of docs/memory_plan.md from the results

Every row takes a step as `ganeum train` does of a model of `model.source` (models/adopted.py, step/optimizer_step.py)
on rows without a free place, and then a second one under torch's profiler, as memory_accuracy_ours.py measures them.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from memory_accuracy_transformers import GATED, GPT2, LLAMA, QWEN3, STILL, T5, UNTIED, most
from torch import Tensor

from ganeum import hardware
from ganeum.config import Config
from ganeum.data.examples.collate import Full
from ganeum.hardware.device import Device
from ganeum.models import adapters, checkpointing
from ganeum.models.pretrained import adopt
from ganeum.plan import architecture, execution, memory
from ganeum.step import rounding
from ganeum.step.optimizer_step import OptimizerStep

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "memory-accuracy-adopted-cpu.json", ROOT / "docs" / "memory_plan.md"
MARK, END = f"<!-- table: {RESULTS.name} -->", "<!-- end -->"
MIB = 2**20
CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)


@dataclass(frozen=True)
class Row:
    """One step: a model's config, the rows at once, and the keys of ``train`` that differ from the plain row's."""

    family: str
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    B: int = 4
    T: int = 64
    S: int = 128
    steps: int = 1
    evaluation: bool = False


BF16, CAST = {"precision": "bf16"}, {"precision": "bf16", "weights": "bf16"}
WHOLE, SELECTIVE = {"activation_checkpointing": "whole"}, {"activation_checkpointing": "selective"}
RANK = {"lora": {"rank": 8}}
LARGE = {"vocab_size": 32_128}

ROWS: dict[str, Row] = {
    "t5": Row("t5", T5),
    "t5, no dropout": Row("t5", T5 | STILL),
    "t5, bf16": Row("t5", T5, BF16),
    "t5, cast to bf16": Row("t5", T5, CAST),
    "t5, batch 1": Row("t5", T5, B=1),
    "t5, batch 16": Row("t5", T5, B=16),
    "t5, long source": Row("t5", T5, B=2, S=512, T=32),
    "t5, long target": Row("t5", T5, B=2, S=32, T=384),
    "t5, large vocabulary": Row("t5", T5 | LARGE),
    "t5, large vocabulary, bf16": Row("t5", T5 | LARGE, BF16),
    "t5, large vocabulary, small chunk": Row("t5", T5 | LARGE, {"loss_chunk": 64}),
    "t5, accumulation": Row("t5", T5, steps=3),
    "t5, accumulation, large vocabulary, bf16": Row("t5", T5 | LARGE, BF16, B=1, steps=2),
    "t5, checkpointing whole": Row("t5", T5, WHOLE),
    "t5, checkpointing whole, bf16": Row("t5", T5, WHOLE | BF16),
    "t5, checkpointing whole, long source": Row("t5", T5, WHOLE, B=2, S=512, T=32),
    "t5, checkpointing selective": Row("t5", T5, SELECTIVE),
    "t5, checkpointing selective, bf16": Row("t5", T5, SELECTIVE | BF16),
    "t5, Adafactor": Row("t5", T5, {"optimizer": "adafactor"}),
    "t5, Adafactor, cast to bf16": Row("t5", T5 | LARGE, CAST | {"optimizer": "adafactor"}),
    "t5, 8-bit AdamW": Row("t5", T5, {"optimizer": "adamw8bit"}),
    "t5, Muon": Row("t5", T5, {"optimizer": "muon"}),
    "t5, LoRA": Row("t5", T5, RANK),
    "t5, LoRA, bf16": Row("t5", T5, RANK | BF16),
    "t5, evaluation": Row("t5", T5, evaluation=True),
    "t5, evaluation, large vocabulary, bf16": Row("t5", T5 | LARGE, BF16, evaluation=True),
    "t5 1.1": Row("t5", UNTIED),
    "t5 1.1, bf16": Row("t5", UNTIED, BF16),
    "t5 1.1, checkpointing selective": Row("t5", UNTIED, SELECTIVE),
    "mt5, bf16": Row("mt5", GATED | {"vocab_size": 25_000}, BF16, B=2, S=64, T=32),
    "gpt2": Row("gpt2", GPT2, T=128),
    "gpt2, bf16": Row("gpt2", GPT2, BF16, T=128),
    "gpt2, checkpointing whole": Row("gpt2", GPT2, WHOLE, T=128),
    "gpt2, checkpointing selective": Row("gpt2", GPT2, SELECTIVE, T=128),
    "gpt2, LoRA": Row("gpt2", GPT2, RANK, T=128),
    "gpt2, evaluation": Row("gpt2", GPT2, T=128, evaluation=True),
    "llama": Row("llama", LLAMA, T=128),
    "llama, bf16": Row("llama", LLAMA, BF16, T=128),
    "llama, cast to bf16": Row("llama", LLAMA, CAST, T=128),
    "llama, checkpointing selective, bf16": Row("llama", LLAMA, SELECTIVE | BF16, T=128),
    "qwen3": Row("qwen3", QWEN3, T=128),
    "qwen3, checkpointing whole, bf16": Row("qwen3", QWEN3, WHOLE | BF16, T=128),
}


def config_of(row: Row, source: Path) -> Config:
    """The run's, with everything settled."""
    pairs = row.family in ("t5", "mt5")
    train = {
        "batch_size": row.B * row.steps,
        "micro_batch_size": row.B,
        "precision": "fp32",
        "compile": False,
        "loss_chunk": 512,
        "activation_checkpointing": "none",
        "max_iters": 2,
    }
    data = {"max_length": row.S if pairs else row.T, "max_target_length": row.T, "kind": "auto" if pairs else "texts"}
    return Config.model_validate(
        {
            "name": "row",
            "device": "cpu",
            "model": {"source": str(source), "fresh": True},
            "data": data,
            "train": train | row.train,
        }
    )


def measured(row: Row, config: Config) -> int:
    """Bytes at the fullest moment of a step, or of an evaluation."""
    train = config.train
    assert config.model.source
    network = adopt(config.model.source, fresh=True)
    if train.weights == "bf16":
        rounding.to_bf16(network)
    if train.lora.rank is not None:
        adapters.attach(network, train.lora)
    checkpointing.apply(network.blocks, train.activation_checkpointing)  # type: ignore[arg-type]
    network.train(not row.evaluation)
    step = OptimizerStep(
        network,
        train,
        "cpu",
        precision=train.precision,  # type: ignore[arg-type]
        loss_chunk=train.loss_chunk,  # type: ignore[arg-type]
        compiled=False,
    )
    pairs = network.encoder_decoder
    whole = Full(row.B * row.steps, (row.S if pairs else 0, row.T), False)

    def once() -> None:
        if row.evaluation:
            for batch in whole.micro_batches(row.B):
                step.token_nats(batch)
        else:
            step.on(whole, step=0, learning_rate=1e-4, at_once=row.B)

    once()
    held = {parameter.data_ptr(): parameter.nbytes for parameter in network.parameters()}
    state = [tensor.nbytes for tensor in _tensors(step.optimizer.state_dict())]
    return sum(held.values()) + sum(state) * (not row.evaluation) + most(once)


def _tensors(tree: Any) -> list[Tensor]:
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return [tree] if isinstance(tree, Tensor) else [tensor for part in inside for tensor in _tensors(part)]


def compared(name: str) -> dict[str, Any]:
    """One row of the table."""
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory) / "config.json"
        theirs = transformers.AutoConfig.for_model(row.family, **row.model)
        theirs.save_pretrained(directory)
        config = config_of(row, source)
        purpose: execution.Purpose = "evaluation" if row.evaluation else "training"
        plan = memory.of(architecture.of(config), execution.of(config, CPU, row.B, purpose=purpose))
        predicted = plan.expected - (plan.parts.get("optimizer", 0.0) if row.evaluation else 0.0)
        found = measured(row, config)
    return {
        "row": name,
        "predicted_mib": predicted / MIB,
        "measured_mib": found / MIB,
        "off": predicted / found - 1,
        "at": plan.at,
    }


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="rows whose name begins so; nothing is written then")
    parser.add_argument("--write", action="store_true", help="the table of docs/memory_plan.md from the results")
    given = parser.parse_args()
    if given.write:
        before, rest = PAGE.read_text().split(MARK)
        PAGE.write_text(f"{before}{MARK}\n\n{table()}\n\n{END}{rest.split(END, 1)[1]}")
        return
    transformers.logging.set_verbosity_error()
    rows = []
    for name in ROWS:
        if name.startswith(given.only):
            rows.append(row := compared(name))
            figures = f"{row['predicted_mib']:8.2f} MiB {row['measured_mib']:8.2f} MiB {row['off']:+8.2%}"
            print(f"{name:45} {figures}  {row['at']}", flush=True)
    if given.only:
        return
    machine = {
        "device": hardware.detect("cpu").name,
        "threads": torch.get_num_threads(),
        "cores": psutil.cpu_count(logical=False),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
    RESULTS.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
