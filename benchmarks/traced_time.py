"""How far the time of a traced step is from the measured one, on this CPU, over the steps of plan_time.py.

    python benchmarks/traced_time.py --out benchmarks/results/traced-time-cpu.json
    python benchmarks/traced_time.py --write       # the table of docs/time.md from the result file

By rounds: this machine's operations are measured (``train/operation_rates.py``), then every case is traced under fake
tensors, timed by those rates, and really run a few times; of each case the median round counts. So a machine that is
slower for some minutes slows both sides. What is measured is kept in a cache of its own. On one thread the processor's
own time is compared, which other programs do not lengthen.
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from plan_time import CASES, Case, measured

from ganeum.hardware.detect import detect
from ganeum.hardware.device import Device
from ganeum.hardware.rates import Rates
from ganeum.plan import execution
from ganeum.plan.trace import roofline
from ganeum.plan.trace.operations import Operations
from ganeum.plan.trace.step import trace
from ganeum.train.operation_rates import measure

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results" / "traced-time-cpu.json", ROOT / "docs" / "time.md"
MARK, END = "<!-- table: traced-time-cpu.json -->", "<!-- end -->"
BOUND = 0.15  # the distance that is aimed at


def traced(case: Case, device: Device) -> dict[roofline.Operation, float]:
    """A step's operations."""
    config = case.config(device)
    way, seen = execution.of(config, device, case.micro), Operations()
    trace(config, device, way, seen)
    return roofline.of_all(seen.counts, way.accumulation)


def predicted(operations: dict[roofline.Operation, float], rates: Rates) -> float:
    """Seconds."""
    found = roofline.measured(operations, rates)
    assert found is not None, "the machine was measured"
    return sum(found.values())


def table(result: dict[str, Any]) -> str:
    """A result file as Markdown."""
    where, summary = result["machine"], result["summary"]
    lines = [
        f"{where['device']}, {where['threads']} thread{'s' * (where['threads'] > 1)}, torch {where['torch']}, "
        f"{where['date']}, {summary['rounds']} round{'s' * (summary['rounds'] > 1)}: {summary['within_15_percent']} of "
        f"{summary['cases']} steps within 15 %, {summary['median_error']:.1%} off in the middle and "
        f"{summary['largest_error']:.1%} at most. Batch is sequences at once × tokens × micro-batches.",
        "",
        "| model | batch | step | traced ms | measured ms | ratio |",
        "|---|---|---|--:|--:|--:|",
    ]
    for row in result["rows"]:
        case = Case(**row["case"])
        model = f"{case.style} {case.layers} × {case.width}, vocabulary {case.vocabulary:,}"
        batch = f"{case.micro} × {case.context}" + (f" × {case.accumulation}" if case.accumulation > 1 else "")
        recomputed = "" if case.checkpointing == "none" else f", {case.checkpointing} recomputed"
        way = f"{case.precision}, {case.optimizer}{recomputed}{', dropout' if case.dropout else ''}"
        figures = f"{row['predicted_s'] * 1e3:,.1f} | {row['measured_s'] * 1e3:,.1f} | {row['ratio']:.2f}"
        lines.append(f"| {model} | {batch} | {way} | {figures} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """docs/time.md with the table as the result file has it."""
    before, rest = text.split(MARK)
    shown = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    return f"{before}{MARK}\n\n{shown}\n\n{END}{rest.split(END, 1)[1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=1_500.0, help="no round is begun that would end after so many s")
    parser.add_argument("--out", type=Path, help="JSON with every row and every round")
    parser.add_argument("--write", action="store_true", help="only write the table of docs/time.md")
    given = parser.parse_args()
    if given.write:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    device, rounds, misfits = detect("cpu"), list[list[dict[str, float]]](), list[float]()
    steps = [traced(case, device) for case in CASES]
    with tempfile.TemporaryDirectory() as cache:
        os.environ["GANEUM_CACHE"] = cache
        began, lasted = time.monotonic(), 0.0
        while len(rounds) < given.rounds and time.monotonic() - began + lasted < given.limit:
            start_of_round = time.monotonic()
            rates, rows = measure(device), list[dict[str, float]]()
            print(f"round {len(rounds) + 1}: misfit {rates.misfit:.1%}", file=sys.stderr, flush=True)
            for case, operations in zip(CASES, steps, strict=True):
                expected, took = predicted(operations, rates), measured(case, device)
                rows.append({"predicted_s": expected, "measured_s": took, "ratio": expected / took})
                print(f"{expected / took:.2f}  {case}", file=sys.stderr, flush=True)
                gc.collect()
            rounds.append(rows)
            misfits.append(rates.misfit)
            lasted = time.monotonic() - start_of_round
    found: list[dict[str, Any]] = []
    for case, of_case in zip(CASES, zip(*rounds, strict=True), strict=True):
        middle = sorted(of_case, key=lambda row: row["ratio"])[len(of_case) // 2]
        found.append({"case": asdict(case), **middle, "ratios": [row["ratio"] for row in of_case]})
    errors = sorted(abs(row["ratio"] - 1) for row in found)
    summary = {
        "cases": len(found),
        "within_15_percent": sum(error <= BOUND for error in errors),
        "median_error": statistics.median(errors),
        "largest_error": errors[-1],
        "rounds": len(rounds),
        "misfit": statistics.median(misfits),
    }
    machine = {
        "device": device.name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    result = {"command": "python benchmarks/traced_time.py", "machine": machine, "summary": summary, "rows": found}
    print(table(result))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
