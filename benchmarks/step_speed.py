"""One step's speed and memory in every precision, compiled and not, on one device: what the automatic choices rest on.

    python benchmarks/step_speed.py --device cuda
    python benchmarks/step_speed.py --device cpu --n-layer 2 --n-embd 128 --n-head 4 --block-size 128 --steps 3

Each way is a process of its own. Speed is that of the median step after the warm-up, with the device waited for once a
step; MFU is against the dense peak of that precision (the catalogue's for a GPU, measured for a CPU). A way that fails
is a row with its error, so that one bad combination never hides the others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from ganeum import hardware
from ganeum.config.schema import Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.models.build import build
from ganeum.plan import flops
from ganeum.plan.architecture import ours
from ganeum.plan.execution import Execution
from ganeum.step import allocator
from ganeum.step.optimizer_step import OptimizerStep

GIB = 2**30


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One way, in this process → {step_s, tokens_per_second, mfu, first_step_s, peak_gib, loss}."""
    device = torch.device(given.device)
    if device.type == "cpu":
        allocator.keep_freed_memory()
    torch.manual_seed(0)
    model = Model(
        n_layer=given.n_layer,
        n_head=given.n_head,
        n_embd=given.n_embd,
        block_size=given.block_size,
        vocab_size=given.vocab_size,
    )
    train = Train(batch_size=given.micro_batch, micro_batch_size=given.micro_batch)
    step = OptimizerStep(
        build(model).to(device), train, device, precision=given.precision, compiled=given.compile == "yes"
    )
    tokens = torch.randint(given.vocab_size, (given.micro_batch, given.block_size + 1)).to(device)
    times, loss = [], 0.0
    for n in range(given.warmup + given.steps):
        start = time.perf_counter()
        loss = step.on(WindowBatch(tokens[:, :-1], tokens[:, 1:]), step=n, learning_rate=1e-4).loss.item()
        times.append(time.perf_counter() - start)
    step_s = statistics.median(times[given.warmup :])
    tokens_per_second = given.micro_batch * given.block_size / step_s
    per_token = flops.of(ours.architecture(model, given.vocab_size), Execution(length=given.block_size)).per_token
    peak = hardware.with_measured_peak(hardware.detect(given.device), given.precision).peak(given.precision)
    return {
        "precision": given.precision,
        "compiled": given.compile == "yes",
        "step_s": step_s,
        "tokens_per_second": tokens_per_second,
        "mfu": per_token * tokens_per_second / peak if peak else None,
        "first_step_s": times[0],
        "peak_gib": torch.cuda.max_memory_allocated(device) / GIB if device.type == "cuda" else None,
        "loss": loss,
        "skipped": int(step.skipped),
    }


def in_a_process(arguments: list[str], precision: str, compiled: str, limit_s: float) -> dict[str, Any]:
    """The same, elsewhere; an error or too long a time becomes part of the row."""
    command = [sys.executable, __file__, *arguments, "--precision", precision, "--compile", compiled]
    row: dict[str, Any] = {"precision": precision, "compiled": compiled == "yes"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return row | {"error": f"took longer than {limit_s:.0f} s"}
    if done.returncode:
        return row | {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    row = json.loads(done.stdout.splitlines()[-1])
    return row


def show(row: dict[str, Any]) -> str:
    """A row for people."""
    way = f"{row['precision']}{' compiled' if row['compiled'] else ''}"
    if "error" in row:
        return f"{way:<16} {row['error']}"
    mfu = f"{row['mfu']:.1%}" if row["mfu"] is not None else "unknown"
    memory = f"  {row['peak_gib']:.2f} GiB" if row["peak_gib"] is not None else ""
    return (
        f"{way:<16} {row['step_s'] * 1e3:>9,.1f} ms  {row['tokens_per_second']:>10,.0f} tokens/s  MFU {mfu:>7}"
        f"  first step {row['first_step_s']:.1f} s{memory}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--n-layer", type=int, default=12)
    parser.add_argument("--n-head", type=int, default=12)
    parser.add_argument("--n-embd", type=int, default=768)
    parser.add_argument("--block-size", type=int, default=1024)
    parser.add_argument("--vocab-size", type=int, default=50257)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that one way may take")
    parser.add_argument("--out", type=Path, help="JSON with every row")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16", "fp16"], help="only this one, in this process")
    parser.add_argument("--compile", choices=["yes", "no"], default="no", help="with --precision")
    given = parser.parse_args()
    if given.precision:
        print(json.dumps(measure(given)))
        return
    cuda = given.device.startswith("cuda")
    rows = []
    for precision in ("fp32", "tf32", "bf16", "fp16") if cuda else ("fp32", "bf16"):
        for compiled in ("no", "yes"):
            rows.append(in_a_process(sys.argv[1:], precision, compiled, given.limit))
            print(show(rows[-1]), flush=True)
    if given.out:
        work = {key: value for key, value in vars(given).items() if key not in ("out", "precision", "compile", "limit")}
        given.out.write_text(json.dumps({"work": work, "rows": rows}, indent=2) + "\n")
    if any("error" in row for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
