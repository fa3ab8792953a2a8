"""What each memory lever saves and costs: peak memory, step time and loss beside the plain run's, by turns.

    python benchmarks/memory.py                    # benchmarks/results/memory-cpu.json, or memory-cuda.json on a GPU
    python benchmarks/memory.py --write            # the tables of docs/memory.md from these files

Every row is a run's own step (train/start.py) on the same batches, in a process of its own. Peak memory: on a GPU the
allocator's; on a CPU the process's resident memory at its fullest in the steps (VmHWM, reset before them) over what it
held before there was a model. Time is the median step's, divided by the plain row's of the same round; of several
rounds the median. The loss is that of the last step, which every row takes at the same seed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from ganeum import hardware
from ganeum.config import Config
from ganeum.data.batch import WindowBatch
from ganeum.plan import execution, memory
from ganeum.plan.architecture import ours
from ganeum.plan.execution import LOSS_CHUNK
from ganeum.step import precision
from ganeum.step.allocator import choose_expandable_segments
from ganeum.train.start import start

ROOT = Path(__file__).parent.parent
PAGE, RESULTS = ROOT / "docs" / "memory.md", ROOT / "benchmarks" / "results"
MARK, END = "<!-- table: {} -->", "<!-- end -->"
GIB = 2**30

SIZES = {
    "cpu": {"n_layer": 8, "n_head": 8, "n_embd": 512, "block_size": 512, "vocab_size": 8_192, "batch": 4},
    "cuda": {"n_layer": 12, "n_head": 12, "n_embd": 768, "block_size": 1_024, "vocab_size": 50_257, "batch": 8},
}
EVERYTHING = {"train.activation_checkpointing": "whole", "train.weights": "bf16", "train.optimizer": "adamw8bit"}
# Row → keys that differ from the plain row; words for numbers depend on the size and become these in `configure`.
LEVERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "logits of the whole batch at once": {"train.loss_chunk": "whole batch"},
    "gradient accumulation, 4 micro-batches": {"train.micro_batch_size": "quarter"},
    "half the length": {"model.block_size": "half"},
    "activation checkpointing, selective": {"train.activation_checkpointing": "selective"},
    "activation checkpointing, whole": {"train.activation_checkpointing": "whole"},
    "weights in bf16": {"train.weights": "bf16"},
    "optimizer state in 8 bits": {"train.optimizer": "adamw8bit"},
    "Muon": {"train.optimizer": "muon"},
    "Adafactor": {"train.optimizer": "adafactor"},
    "optimizer state on the CPU": {"train.optimizer_offload": True},
    "LoRA, rank 8": {"train.lora.rank": 8},
    "expandable segments off": {"train.expandable_segments": False},
    "whole + accumulation": {"train.activation_checkpointing": "whole", "train.micro_batch_size": "quarter"},
    "whole + bf16 weights + 8 bits + accumulation": EVERYTHING | {"train.micro_batch_size": "quarter"},
    "LoRA + whole + bf16 weights + accumulation": EVERYTHING
    | {"train.lora.rank": 8, "train.optimizer": "adamw", "train.micro_batch_size": "quarter"},
}
ONLY_ON_A_GPU = ("optimizer state on the CPU", "expandable segments off")


def configure(given: argparse.Namespace, lever: str) -> Config:
    """The row's config, with nothing left ``auto`` that its step needs."""
    size, device = dict(SIZES[given.device]), torch.device(given.device)
    batch = size.pop("batch")
    values = {
        "whole batch": batch * size["block_size"],
        "quarter": max(1, batch // 4),
        "half": size["block_size"] // 2,
    }
    tree: dict[str, Any] = {
        "name": "memory",
        "device": given.device,
        "model": size,
        "train": {
            "batch_size": batch,
            "micro_batch_size": batch,
            "precision": precision.choose("auto", device)[0],
            "compile": False,
            "loss_chunk": LOSS_CHUNK[device.type],
            "activation_checkpointing": "none",
            "expandable_segments": choose_expandable_segments("auto", device)[0],
            "lora": {},
        },
    }
    for key, value in LEVERS[lever].items():
        *sections, name = key.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[name] = values.get(value, value) if isinstance(value, str) else value
    return Config.model_validate(tree)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One row, in this process."""
    config, device = configure(given, given.lever), torch.device(given.device)
    model, train = config.model, config.train
    assert isinstance(model.vocab_size, int)
    assert isinstance(train.micro_batch_size, int)
    assert isinstance(train.loss_chunk, int)
    torch.ones(64, 64, device=device) @ torch.ones(64, 64, device=device)  # threads, libraries
    held = psutil.Process().memory_info().rss
    step = start(config)
    step.model.train()
    generator = torch.Generator().manual_seed(0)
    seconds: list[float] = []
    reset = reset_peak(device)
    for n in range(given.warmup + given.steps):
        # Small ids come far more often than large ones, so that there is something to learn.
        drawn = torch.rand(train.batch_size, model.block_size + 1, generator=generator).pow(8)
        tokens = drawn.mul(model.vocab_size).long().to(device)
        batch = WindowBatch(tokens[:, :-1], tokens[:, 1:])
        began = time.perf_counter()
        loss = step.on(batch, at_once=train.micro_batch_size, step=n, learning_rate=1e-3).loss.item()
        seconds.append(time.perf_counter() - began)
    way = execution.of(config, hardware.detect(given.device), train.micro_batch_size)
    planned = memory.of(ours.architecture(model), way)
    return {
        **peak(device, held),
        "planned_gib": planned.total / GIB,
        "step_s": statistics.median(seconds[given.warmup :]),
        "loss": loss,
        "precision": train.precision,
        "peak_reset": reset,
    }


def reset_peak(device: torch.device) -> bool:
    """Whether the peak counts from here; where the kernel refuses, it counts from the process's beginning."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak(device: torch.device, held: int) -> dict[str, float]:
    """GiB at the fullest moment."""
    if device.type == "cuda":
        return {
            "peak_gib": torch.cuda.max_memory_allocated(device) / GIB,
            "reserved_gib": torch.cuda.max_memory_reserved(device) / GIB,
        }
    try:
        status = Path("/proc/self/status").read_text()
        high = 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        high = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"peak_gib": (high - held) / GIB}


def in_a_process(given: argparse.Namespace, lever: str) -> dict[str, Any]:
    """The same elsewhere; an error becomes the row."""
    command = [sys.executable, __file__, "--device", given.device, "--lever", lever]
    command += ["--steps", str(given.steps), "--warmup", str(given.warmup)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def summary(lever: str, rows: list[dict[str, Any]], plain: list[dict[str, Any]]) -> dict[str, Any]:
    """One lever's rounds in one row, beside those of the plain run."""
    failed = [row["error"] for row in rows + plain if "error" in row]
    if failed:
        return {"lever": lever, "keys": LEVERS[lever], "error": failed[0]}
    figures = {
        name: statistics.median(row[name] for row in rows)
        for name in ("peak_gib", "reserved_gib", "planned_gib", "step_s", "loss")
        if name in rows[0]
    }
    times = statistics.median(row["step_s"] / other["step_s"] for row, other in zip(rows, plain, strict=True))
    difference = None if "model.block_size" in LEVERS[lever] else figures["loss"] - plain[0]["loss"]
    return {"lever": lever, "keys": LEVERS[lever], **figures, "times_plain": times, "loss_difference": difference}


def machine(device: str) -> dict[str, Any]:
    """Where it was measured."""
    found = hardware.detect(device)
    return {
        "device": found.name,
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def table(result: dict[str, Any]) -> str:
    """A result file as Markdown."""
    where, size, cuda = result["machine"], result["size"], result["device"] == "cuda"
    lines = [
        f"{size['n_layer']} blocks × {size['n_embd']}, {size['batch']} sequences of {size['block_size']} tokens, "
        f"vocabulary {size['vocab_size']:,}, {result['precision']}; {where['device']}, {where['threads']} threads, "
        f"torch {where['torch']}, {where['date']}; {result['rounds']} rounds by turns of {result['steps']} steps.",
        "",
        "| | peak, GiB | saved | "
        + ("reserved, GiB | " if cuda else "")
        + "planned, GiB | step time | loss beside plain |",
        "|---|--:|--:|" + ("--:|" if cuda else "") + "--:|--:|--:|",
    ]
    plain = result["rows"][0]
    for row in result["rows"]:
        if "error" in row:
            lines.append(f"| {row['lever']} | {row['error']} |" + " |" * (4 + cuda))
            continue
        saved = 1 - row["peak_gib"] / plain["peak_gib"]
        difference = row["loss_difference"]
        cells = [row["lever"], f"{row['peak_gib']:.2f}", "" if row is plain else f"{saved:.0%}"]
        cells += [f"{row['reserved_gib']:.2f}"] if cuda else []
        cells += [f"{row['planned_gib']:.2f}", f"× {row['times_plain']:.2f}"]
        cells.append("" if row is plain or difference is None else f"{difference:+.4f}" if difference else "equal")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(text: str) -> str:
    """docs/memory.md with each table as its result file has it; a table without a file says so."""
    for device in SIZES:
        mark, file = MARK.format(f"memory-{device}.json"), RESULTS / f"memory-{device}.json"
        before, rest = text.split(mark)
        shown = table(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else "Not measured yet."
        text = f"{before}{mark}\n\n{shown}\n\n{END}{rest.split(END, 1)[1]}"
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", choices=list(SIZES), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=1, help="steps before the clock")
    parser.add_argument("--out", type=Path, help="JSON with every row; default: benchmarks/results/memory-DEVICE.json")
    parser.add_argument("--write", action="store_true", help="only write the tables of docs/memory.md")
    parser.add_argument("--lever", choices=list(LEVERS), help="only this row, in this process")
    given = parser.parse_args()
    if given.write:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    if given.lever:
        print(json.dumps(measure(given)))
        return
    levers = [name for name in LEVERS if given.device == "cuda" or name not in ONLY_ON_A_GPU]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in levers}
    for turn in range(given.rounds):
        for lever in levers:
            found[lever].append(in_a_process(given, lever))
            print(f"round {turn + 1}  {lever:<48} {found[lever][-1]}", flush=True)
    rows = [summary(lever, found[lever], found["plain"]) for lever in levers]
    result = {
        "command": " ".join(["python", "benchmarks/memory.py", *sys.argv[1:]]),
        "machine": machine(given.device),
        "device": given.device,
        "precision": found["plain"][0].get("precision"),
        "size": SIZES[given.device],
        "rounds": given.rounds,
        "steps": given.steps,
        "rows": rows,
    }
    out = given.out or RESULTS / f"memory-{given.device}.json"
    out.write_text(json.dumps(result, indent=2) + os.linesep, encoding="utf-8")
    print(table(result))
    if any("error" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
