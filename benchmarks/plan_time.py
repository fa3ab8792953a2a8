"""How far planned step times are from measured ones, over steps spread in size, precision, style and optimizer.

    python benchmarks/plan_time.py --out benchmarks/results/plan-time-cpu.json
    python benchmarks/plan_time.py --device cuda --out benchmarks/results/gpu/plan_time.json

By rounds: this machine is calibrated, then every case takes a few steps, and is compared with what that calibration
predicts; of each case the median round counts. So a machine that is slower for some minutes slows both sides. The
calibration is kept in a cache of its own and leaves the user's alone. A case's first step is not counted: it chooses
kernels and takes memory. On one thread the processor's own time is compared, which other programs do not lengthen.
On a GPU the catalogue's estimate, which knows nothing of this machine, stands beside.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ganeum.config.schema import Config, Model, Train
from ganeum.data.batch import WindowBatch
from ganeum.hardware.detect import detect
from ganeum.hardware.device import Device
from ganeum.plan import execution
from ganeum.plan import time as times
from ganeum.plan.architecture import ours
from ganeum.plan.execution import LOSS_CHUNK, Optimizer, Precision
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train.calibrate import calibrate
from ganeum.train.probes import Watch
from ganeum.train.start import start

LEAST_STEPS, CASE_S = 2, 1.0  # measured steps of a case in a round: so many, or more within so many seconds
BOUND = 0.20  # the distance that is aimed at


@dataclass(frozen=True)
class Case:
    """One step; sequences are ``micro × accumulation``."""

    layers: int
    heads: int
    width: int
    context: int
    vocabulary: int
    micro: int
    precision: Precision
    style: Literal["gpt2", "modern"] = "gpt2"
    optimizer: Optimizer = "adamw"
    checkpointing: Literal["none", "selective", "whole"] = "none"
    accumulation: int = 1
    dropout: float = 0.0

    def config(self, device: Device) -> Config:
        return Config(
            device=device.torch_name,
            model=Model(
                style=self.style,
                n_layer=self.layers,
                n_head=self.heads,
                n_embd=self.width,
                block_size=self.context,
                vocab_size=self.vocabulary,
                dropout=self.dropout,
            ),
            train=Train(
                batch_size=self.micro * self.accumulation,
                micro_batch_size=self.micro,
                precision=self.precision,
                optimizer=self.optimizer,
                activation_checkpointing=self.checkpointing,
                compile=False,
                loss_chunk=LOSS_CHUNK[device.kind],
            ),
        )


CASES = (
    Case(1, 2, 64, 32, 65, 8, "fp32"),
    Case(2, 2, 64, 64, 65, 32, "bf16"),
    Case(4, 4, 128, 64, 65, 12, "fp32"),
    Case(8, 2, 64, 512, 1000, 4, "bf16"),
    Case(2, 2, 64, 1024, 300, 8, "fp32", "modern"),
    Case(4, 4, 128, 128, 4096, 16, "bf16", "modern"),
    Case(8, 4, 128, 256, 1000, 8, "fp32", "modern"),
    Case(6, 4, 128, 32, 50257, 64, "bf16"),
    Case(1, 4, 256, 256, 50257, 4, "bf16"),
    Case(2, 4, 256, 256, 8192, 8, "fp32"),
    Case(3, 4, 256, 256, 4096, 16, "bf16"),
    Case(4, 4, 256, 512, 8192, 4, "bf16", "modern", "muon", accumulation=2),
    Case(6, 4, 256, 128, 8192, 16, "fp32", "modern", "muon"),
    Case(3, 4, 256, 64, 8192, 16, "fp32", dropout=0.1),
    Case(3, 4, 256, 512, 8192, 2, "bf16", dropout=0.1),
    Case(6, 6, 384, 256, 8192, 8, "bf16"),
    Case(6, 6, 384, 256, 8192, 8, "fp32", checkpointing="selective"),
    Case(6, 6, 384, 256, 8192, 8, "bf16", checkpointing="whole"),
    Case(3, 6, 384, 1024, 8192, 2, "bf16", "modern"),
    Case(2, 6, 384, 1024, 1000, 2, "fp32", optimizer="sgd"),
    Case(8, 8, 512, 64, 16384, 8, "bf16", "modern", "adafactor"),
    Case(4, 8, 512, 128, 32000, 8, "fp32", optimizer="adafactor"),
    Case(2, 8, 512, 512, 4096, 4, "bf16", optimizer="sgd", checkpointing="selective", accumulation=2),
    Case(8, 8, 512, 32, 8192, 16, "bf16"),
    Case(2, 12, 768, 256, 50257, 4, "bf16"),
    Case(4, 12, 768, 128, 50257, 4, "fp32"),
    Case(3, 12, 768, 512, 8192, 2, "bf16", "modern", "muon"),
    Case(1, 12, 768, 1024, 32000, 1, "bf16", "modern", accumulation=4),
)

GPU_CASES = (
    Case(6, 6, 384, 256, 65, 64, "bf16", dropout=0.2),
    Case(12, 12, 768, 1024, 50257, 1, "bf16"),
    Case(12, 12, 768, 1024, 50257, 8, "bf16"),
    Case(12, 12, 768, 1024, 50257, 8, "fp32"),
    Case(12, 12, 768, 1024, 50257, 8, "bf16", checkpointing="whole"),
    Case(12, 12, 768, 1024, 50257, 8, "bf16", "modern", "muon", accumulation=2),
    Case(4, 16, 2048, 2048, 32000, 4, "bf16", "modern", "adafactor"),
    Case(24, 16, 1024, 512, 32000, 8, "bf16", "modern"),
)


def measured(case: Case, device: Device) -> float:
    """Seconds of a step: the median, the first not counted."""
    config = case.config(device)
    step, seconds = start(config), list[float]()
    tokens = torch.randint(case.vocabulary, (case.micro, case.context + 1))
    _one(step, tokens, case, 0)
    while len(seconds) < LEAST_STEPS or sum(seconds) < CASE_S:
        watch = Watch(torch.device(device.torch_name))
        _one(step, tokens, case, len(seconds) + 1)
        watch.mark()
        seconds += watch.seconds()
    return statistics.median(seconds)


def _one(step: OptimizerStep, tokens: torch.Tensor, case: Case, number: int) -> None:
    repeated = tokens.repeat(case.accumulation, 1)
    whole = WindowBatch(repeated[:, :-1], repeated[:, 1:])
    step.on(whole, at_once=len(tokens), step=number, learning_rate=1e-5).loss.item()


def predicted(case: Case, device: Device) -> float | None:
    """Seconds by the calibration that was remembered last; before the first one by the catalogue."""
    config = case.config(device)
    found = times.of(ours.architecture(config.model), execution.of(config, device, case.micro), device)
    return found.step_s if found else None


def round_of(cases: tuple[Case, ...], device: Device) -> tuple[list[dict[str, float]], float]:
    """Every case once → rows, and how well the calibration explains its own measurements."""
    misfit, rows = calibrate(device).misfit, []
    for case in cases:
        expected, took = predicted(case, device), measured(case, device)
        assert expected is not None, "the machine was calibrated"
        rows.append({"predicted_s": expected, "measured_s": took, "ratio": expected / took})
        gc.collect()
    return rows, misfit


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown, a line a case."""
    lines = ["| model | batch | step | planned ms | measured ms | ratio |", "|---|---|---|--:|--:|--:|"]
    for row in rows:
        case = Case(**row["case"])
        model = f"{case.style} {case.layers} × {case.width}, vocabulary {case.vocabulary:,}"
        batch = f"{case.micro} × {case.context}" + (f" × {case.accumulation}" if case.accumulation > 1 else "")
        recomputed = "" if case.checkpointing == "none" else f", {case.checkpointing} recomputed"
        dropped = ", dropout" if case.dropout else ""
        way = f"{case.precision}, {case.optimizer}{recomputed}{dropped}"
        if row["catalogue_s"] is not None:
            way += f"; the catalogue says {row['catalogue_s'] * 1e3:,.1f} ms"
        figures = f"{row['predicted_s'] * 1e3:,.1f} | {row['measured_s'] * 1e3:,.1f} | {row['ratio']:.2f}"
        lines.append(f"| {model} | {batch} | {way} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=540.0, help="no round is begun that would end after so many s")
    parser.add_argument("--out", type=Path, help="JSON with every row and every round")
    given = parser.parse_args()
    began, lasted = time.monotonic(), 0.0
    device, rounds, misfits = detect(given.device), list[list[dict[str, float]]](), list[float]()
    cases = CASES
    if device.kind == "cuda":
        half = device.fast_precision
        cases = tuple(replace(case, precision=half if case.precision == "bf16" else "fp32") for case in GPU_CASES)
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GANEUM_CACHE"] = cache
        listed = [predicted(case, device) if device.kind == "cuda" else None for case in cases]
        while len(rounds) < given.rounds and time.monotonic() - began + lasted < given.limit:
            start_of_round = time.monotonic()
            rows, misfit = round_of(cases, device)
            lasted = time.monotonic() - start_of_round
            rounds.append(rows)
            misfits.append(misfit)
            print(f"round {len(rounds)}: {lasted:.0f} s", file=sys.stderr, flush=True)
    found = []
    for case, by_catalogue, of_case in zip(cases, listed, zip(*rounds, strict=True), strict=True):
        middle = sorted(of_case, key=lambda row: row["ratio"])[len(of_case) // 2]
        found.append(
            {"case": asdict(case), "catalogue_s": by_catalogue, **middle, "ratios": [row["ratio"] for row in of_case]}
        )
    errors = sorted(abs(row["ratio"] - 1) for row in found)
    summary = {
        "cases": len(found),
        "within_20_percent": sum(error <= BOUND for error in errors),
        "median_error": statistics.median(errors),
        "largest_error": errors[-1],
        "rounds": len(rounds),
        "calibration_misfit": statistics.median(misfits),
    }
    machine = {
        "device": device.name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    print(table(found))
    print(
        f"\n{summary['within_20_percent']} of {len(found)} within {BOUND:.0%}; median {summary['median_error']:.1%}, "
        f"largest {summary['largest_error']:.1%}"
    )
    if given.out:
        given.out.write_text(json.dumps({"machine": machine, "summary": summary, "rows": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
