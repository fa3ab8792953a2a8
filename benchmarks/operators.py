"""What a CPU takes to start one of torch's operators: steps too small for their arithmetic to count.

    OMP_NUM_THREADS=1 python benchmarks/operators.py --out benchmarks/results/operators-cpu.json

Seconds of a step over the operators that a plan counts in it (``plan/time/work.py``): Python, autograd and the update
are in them. ``OPERATOR_S`` of ``plan/time``, for CPUs that were never calibrated, is the middle one.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from dataclasses import asdict
from pathlib import Path

import torch
from plan_time import Case, measured

from ganeum.hardware.detect import detect
from ganeum.plan import execution
from ganeum.plan.architecture import ours
from ganeum.plan.time import work

CASES = (
    Case(1, 2, 32, 32, 65, 1, "fp32"),
    Case(4, 2, 32, 32, 65, 1, "fp32"),
    Case(16, 2, 32, 32, 65, 1, "fp32"),
    Case(4, 2, 32, 32, 65, 1, "fp32", accumulation=8),
    Case(4, 2, 32, 32, 65, 1, "fp32", dropout=0.1),
    Case(4, 2, 32, 32, 65, 1, "bf16"),
    Case(1, 2, 32, 32, 65, 1, "fp32", "modern"),
    Case(4, 2, 32, 32, 65, 1, "fp32", "modern"),
    Case(4, 2, 32, 32, 65, 1, "fp32", optimizer="sgd"),
    Case(4, 2, 32, 32, 65, 1, "fp32", optimizer="muon"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="JSON with every row")
    given = parser.parse_args()
    device, rows = detect("cpu"), []
    for case in CASES:
        config = case.config(device)
        way = execution.of(config, device, case.micro)
        operators, step_s = work.operators(ours.architecture(config.model), way), measured(case, device)
        rows.append({"case": asdict(case), "operators": operators, "step_s": step_s, "each_s": step_s / operators})
        print(f"{step_s * 1e3:8.2f} ms  {operators:6,.0f} operators  {step_s / operators * 1e6:6.2f} µs each  {case}")
    middle = statistics.median(row["each_s"] for row in rows)
    print(f"{middle * 1e6:.1f} µs in the middle")
    if given.out:
        machine = {
            "device": device.name,
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "date": time.strftime("%Y-%m-%d"),
        }
        given.out.write_text(json.dumps({"machine": machine, "middle_s": middle, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
