"""The rows of memory_accuracy.py on a GPU: predicted in a process that does not see it, then measured.

A row's step is taken three times as `ganeum train` takes it, in this process, whose cached memory is given back before
each row; compared is what torch's allocator has reserved and given out at most since then. For the rows of
:data:`LARGEST` the allocator is held to a smaller card's memory: the largest micro-batch that was predicted must go
through, and the next whole size above 1.05 times it must not.
"""

from __future__ import annotations

import gc
import json
import math
import platform
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

from ganeum import hardware
from ganeum.config import Config
from ganeum.data.batch import WindowBatch
from ganeum.data.examples.collate import Full
from ganeum.hardware.device import Device
from ganeum.models.adopted import Adopted
from ganeum.plan import execution
from ganeum.plan.execution import Execution
from ganeum.plan.trace import exact
from ganeum.plan.trace.child import Child, NotTraced
from ganeum.train.start import start

MIB, GIB = 2**20, 2**30
STEPS = 3
BOUND = 0.03


@dataclass(frozen=True)
class Row:
    """One step. ``source``: sizes of a model of transformers' with its ``family``, where it is not ours."""

    model: dict[str, Any]
    train: dict[str, Any] = field(default_factory=dict)
    B: int = 8
    T: int = 1024
    S: int = 512
    accumulation: int = 1
    family: str = ""

    def config(self, directory: Path) -> Config:
        """The run's, with everything settled; ``directory`` gets a ``config.json`` where there is need of one."""
        train = {
            "batch_size": self.B * self.accumulation,
            "micro_batch_size": self.B,
            "precision": "bf16",
            "compile": False,
            "loss_chunk": 2_048,
            "activation_checkpointing": "none",
            "expandable_segments": False,
            "max_iters": STEPS,
        } | self.train
        if not self.family:
            model = {
                "n_layer": 12,
                "n_head": 12,
                "n_embd": 768,
                "vocab_size": 50_257,
                "block_size": self.T,
            } | self.model
            return Config.model_validate({"name": "row", "device": "cuda", "model": model, "train": train})
        transformers.AutoConfig.for_model(self.family, **self.model).save_pretrained(directory)
        pairs = self.family in ("t5", "mt5")
        data = {
            "max_length": self.S if pairs else self.T,
            "max_target_length": self.T,
            "kind": "auto" if pairs else "texts",
        }
        source = {"source": str(directory / "config.json"), "fresh": True}
        return Config.model_validate({"name": "row", "device": "cuda", "model": source, "data": data, "train": train})


MODERN: dict[str, Any] = {"style": "modern", "n_kv_head": 4}
SMALL: dict[str, Any] = {"n_layer": 6, "n_head": 6, "n_embd": 384, "vocab_size": 8_192}
MEDIUM: dict[str, Any] = {"n_layer": 24, "n_head": 16, "n_embd": 1024}
T5_SIZES = {"vocab_size": 32_128, "d_kv": 64, "decoder_start_token_id": 0}
T5_SMALL = T5_SIZES | {"d_model": 512, "d_ff": 2048, "num_layers": 6, "num_heads": 8}
T5_BASE = T5_SIZES | {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
MT5_SMALL = T5_SIZES | {
    "vocab_size": 250_112,
    "d_model": 512,
    "d_ff": 1024,
    "num_layers": 8,
    "num_heads": 6,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}
FP32, FP16, CAST = {"precision": "fp32"}, {"precision": "fp16"}, {"weights": "bf16"}
WHOLE, SELECTIVE = {"activation_checkpointing": "whole"}, {"activation_checkpointing": "selective"}
COMPILED, EXPANDABLE = {"compile": True}, {"expandable_segments": True}


def _optimizer(name: str) -> dict[str, str]:
    return {"optimizer": name}


ROWS: dict[str, Row] = {
    "gpt2 124M": Row({}),
    "gpt2 124M, batch 1": Row({}, B=1),
    "gpt2 124M, batch 3": Row({}, B=3),
    "gpt2 124M, batch 16": Row({}, B=16),
    "gpt2 124M, 256 tokens": Row({}, B=32, T=256),
    "gpt2 124M, 4,096 tokens": Row({}, B=2, T=4096),
    "gpt2 124M, 1,000 tokens": Row({}, B=5, T=1000),
    "gpt2 124M, fp32": Row({}, FP32),
    "gpt2 124M, tf32": Row({}, {"precision": "tf32"}),
    "gpt2 124M, fp16": Row({}, FP16),
    "gpt2 124M, cast to bf16": Row({}, CAST),
    "gpt2 124M, dropout": Row({"dropout": 0.1}),
    "gpt2 124M, biases": Row({"bias": True}),
    "gpt2 124M, untied": Row({"tie_embeddings": False}),
    "gpt2 124M, accumulation": Row({}, accumulation=4),
    "gpt2 124M, checkpointing whole": Row({}, WHOLE),
    "gpt2 124M, checkpointing selective": Row({}, SELECTIVE),
    "gpt2 124M, checkpointing whole, batch 32": Row({}, WHOLE, B=32),
    "gpt2 124M, Muon": Row({}, _optimizer("muon")),
    "gpt2 124M, Adafactor": Row({}, _optimizer("adafactor")),
    "gpt2 124M, SGD": Row({}, _optimizer("sgd")),
    "gpt2 124M, LoRA": Row({}, {"lora": {"rank": 16}}),
    "gpt2 124M, small chunk": Row({}, {"loss_chunk": 512}),
    "gpt2 124M, expandable": Row({}, EXPANDABLE),
    "gpt2 124M, expandable, checkpointing whole": Row({}, EXPANDABLE | WHOLE, B=16),
    "gpt2 350M": Row(MEDIUM, B=4),
    "gpt2 350M, checkpointing whole, Adafactor": Row(MEDIUM, WHOLE | _optimizer("adafactor"), B=8),
    "modern 124M": Row(MODERN),
    "modern 124M, Muon, accumulation": Row(MODERN, _optimizer("muon"), accumulation=2),
    "modern 124M, fp32": Row(MODERN, FP32, B=4),
    "modern 124M, checkpointing selective, 2,048 tokens": Row(MODERN, SELECTIVE, B=4, T=2048),
    "modern 124M, dropout": Row(MODERN | {"dropout": 0.1}, B=4),
    "small, compiled": Row(SMALL, COMPILED, B=32, T=256),
    "small modern, compiled": Row(SMALL | {"style": "modern"}, COMPILED, B=32, T=256),
    "small, compiled, checkpointing whole": Row(SMALL, COMPILED | WHOLE, B=32, T=256),
    "t5-small": Row(T5_SMALL, T=128, family="t5"),
    "t5-small, fp32": Row(T5_SMALL, FP32, T=128, family="t5"),
    "t5-base": Row(T5_BASE, T=128, family="t5"),
    "t5-base, Adafactor": Row(T5_BASE, _optimizer("adafactor"), T=128, family="t5"),
    "t5-base, checkpointing whole": Row(T5_BASE, WHOLE, B=16, T=128, family="t5"),
    "t5-base, LoRA": Row(T5_BASE, {"lora": {"rank": 8}}, T=128, family="t5"),
    "t5-base, short": Row(T5_BASE, B=32, T=32, S=64, family="t5"),
    "mt5-small": Row(MT5_SMALL, B=4, T=64, S=256, family="mt5"),
    "mt5-small, Adafactor": Row(MT5_SMALL, _optimizer("adafactor"), B=4, T=64, S=256, family="mt5"),
    "mt5-small, cast to bf16, checkpointing whole": Row(MT5_SMALL, CAST | WHOLE, B=8, T=64, S=256, family="mt5"),
}
# Row, and GiB that the allocator may take.
LARGEST: dict[str, tuple[str, float]] = {
    "gpt2 124M on 8 GiB": ("gpt2 124M", 8.0),
    "gpt2 124M on 16 GiB": ("gpt2 124M", 16.0),
    "modern 124M on 12 GiB": ("modern 124M", 12.0),
    "gpt2 124M, checkpointing whole, on 10 GiB": ("gpt2 124M, checkpointing whole", 10.0),
    "t5-base on 16 GiB": ("t5-base", 16.0),
}


def taken(config: Config, way: Execution) -> dict[str, float]:
    """What torch's allocator reserved and gave out at most in :data:`STEPS` steps, bytes, and a step's seconds.

    Raises:
        torch.OutOfMemoryError: there is not enough.
    """
    _clean()
    torch.cuda.reset_peak_memory_stats()
    step = start(config)
    step.model.train()
    count = config.train.batch_size
    whole: Any
    if isinstance(step.model, Adopted):
        whole = Full(count, (way.source_length, way.length), False)
    else:
        assert isinstance(config.model.vocab_size, int)
        ids = torch.randint(config.model.vocab_size, (count, way.length))
        whole = WindowBatch(ids, ids)
    for number in range(STEPS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        step.on(whole, at_once=way.micro_batch_size, step=number, learning_rate=1e-4)
    torch.cuda.synchronize()
    return {
        "reserved": float(torch.cuda.max_memory_reserved()),
        "allocated": float(torch.cuda.max_memory_allocated()),
        "step_s": time.perf_counter() - began,
    }


def _clean() -> None:
    """As a fresh process's allocator, apart from CUDA's context."""
    torch._dynamo.reset()
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()


def compared(name: str, child: Child, device: Device) -> dict[str, Any]:
    """One row of the table; ``failed``: why there is no figure."""
    row = ROWS[name]
    with tempfile.TemporaryDirectory() as directory:
        config = row.config(Path(directory))
        way = execution.of(config, device, row.B)
        try:
            found = exact.of(child, config, device, way)
        except NotTraced as reason:
            return {"row": name, "failed": f"not traced: {reason}"}
        try:
            real = taken(config, way)
        except torch.OutOfMemoryError as error:
            return {"row": name, "failed": str(error).splitlines()[0]}
        finally:
            _clean()
    reserved, allocated = found.replayed.peak_reserved, found.replayed.peak_allocated
    return {
        "row": name,
        "predicted_mib": reserved / MIB,
        "measured_mib": real["reserved"] / MIB,
        "off": reserved / real["reserved"] - 1,
        "allocated_off": allocated / real["allocated"] - 1,
        "traced_s": found.seconds,
        "step_s": real["step_s"],
    }


def limited(name: str, child: Child, device: Device) -> dict[str, Any]:
    """One row of the largest micro-batches: predicted for a card with so much memory, then tried with so much."""
    base, gib = LARGEST[name]
    row = ROWS[base]
    card = replace(device, name=f"{device.name}, {gib:g} GiB of it", memory_gib=gib, usable_gib=gib)

    def goes_through(config: Config, way: Execution, size: int) -> bool:
        changed = config.model_copy(
            update={"train": config.train.model_copy(update={"batch_size": size, "micro_batch_size": size})}
        )
        try:
            taken(changed, replace(way, micro_batch_size=size))
        except torch.OutOfMemoryError:
            return False
        finally:
            _clean()
        return True

    with tempfile.TemporaryDirectory() as directory:
        config = row.config(Path(directory))
        way = execution.of(config, card, row.B)
        try:
            most = exact.largest(child, config, card, way, row.B)
        except NotTraced as reason:
            return {"row": name, "failed": f"not traced: {reason}"}
        above = math.floor(1.05 * most) + 1
        total = torch.cuda.get_device_properties(device.index).total_memory
        torch.cuda.set_per_process_memory_fraction(gib * GIB / total)
        try:
            runs, runs_above = goes_through(config, way, most), goes_through(config, way, above)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    return {"row": name, "largest": most, "runs": runs, "above": above, "above_runs": runs_above}


def run(results: Path, *, only: str, limit_s: float) -> None:
    """Every row, most of them in seconds; written as they come, so that a run that is cut short leaves what it has."""
    began, device = time.monotonic(), hardware.detect("cuda")
    rows, largest = list[dict[str, Any]](), list[dict[str, Any]]()
    results.parent.mkdir(parents=True, exist_ok=True)
    with Child() as child:
        for table, found, one in ((ROWS, rows, compared), (LARGEST, largest, limited)):
            for name in table:
                if not name.startswith(only):
                    continue
                if time.monotonic() - began > limit_s:
                    found.append({"row": name, "failed": "the time was used up"})
                    continue
                found.append(one(name, child, device))
                print(json.dumps(found[-1]), flush=True)
                if not only:
                    results.write_text(json.dumps(_result(device, rows, largest), indent=1) + "\n", encoding="utf-8")


def _result(device: Device, rows: list[dict[str, Any]], largest: list[dict[str, Any]]) -> dict[str, Any]:
    machine = {
        "device": device.name,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "date": date.today().isoformat(),
    }
    command = "python benchmarks/memory_accuracy.py --device cuda"
    return {"command": command, "machine": machine, "rows": rows, "largest": largest}


def section(found: dict[str, Any]) -> list[str]:
    """The result file as docs/accuracy.md shows it."""
    where, rows = found["machine"], [row for row in found["rows"] if "failed" not in row]
    errors = sorted(abs(row["off"]) for row in rows)
    text = [
        f"{where['device']}, torch {where['torch']}, CUDA {where['cuda']}, {where['date']}: peak reserved of "
        f"{len(rows)} rows, {errors[len(errors) // 2]:.2%} off in the middle, {errors[-1]:.1%} at most, "
        f"{sum(error <= BOUND for error in errors)} within {BOUND:.0%}.",
        "",
        "| | predicted, MiB | measured | reserved off | allocated off | traced in s |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        if "failed" in row:
            text.append(f"| {row['row']} | {row['failed']} | | | | |")
            continue
        off = f"{row['off']:+.2%} | {row['allocated_off']:+.2%}"
        sizes = f"{row['predicted_mib']:,.0f} | {row['measured_mib']:,.0f}"
        text.append(f"| {row['row']} | {sizes} | {off} | {row['traced_s']:.1f} |")
    text += [
        "",
        "With the allocator held to a smaller card's memory:",
        "",
        "| | largest predicted | runs | next above 1.05 times | runs |",
        "|---|--:|---|--:|---|",
    ]
    for row in found["largest"]:
        if "failed" in row:
            text.append(f"| {row['row']} | {row['failed']} | | | |")
            continue
        said = {True: "yes", False: "no"}
        text.append(
            f"| {row['row']} | {row['largest']} | {said[row['runs']]} | {row['above']} | {said[row['above_runs']]} |"
        )
    return text
