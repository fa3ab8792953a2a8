"""How close a traced step's memory comes to what torch allocates in the step itself.

    python benchmarks/memory_accuracy.py                    # on this CPU; goes on where it was stopped
    python benchmarks/memory_accuracy.py --again            # anew: results/memory-traced-cpu.json
    python benchmarks/memory_accuracy.py --device cuda      # on this GPU, in less than ten minutes: …-cuda.json
    python benchmarks/memory_accuracy.py --only modern      # rows whose name begins so, printed alone
    python benchmarks/memory_accuracy.py --write            # docs/accuracy.md from the result files there are

On a CPU: the rows of memory_accuracy_ours.py and memory_accuracy_adopted.py, each traced under fake tensors for a CPU,
and then really taken under torch's profiler, which reports each allocation and release. Beside the trace stands the
closed form. On a GPU: the rows of memory_accuracy_gpu.py, traced in a child process that cannot see the GPU and
replayed through the model of torch's allocator, before the step is taken; then it is, and torch says what it reserved.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Iterator
from datetime import date
from itertools import zip_longest
from pathlib import Path
from typing import Any

import memory_accuracy_adopted as adopted
import memory_accuracy_ours as ours
import memory_published as published
import psutil
import torch
import transformers

from ganeum import hardware
from ganeum.config import Config
from ganeum.hardware.device import Device
from ganeum.plan import architecture, execution, memory
from ganeum.plan.trace.events import Allocation, Trace, live
from ganeum.plan.trace.step import trace

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "accuracy.md"
MIB = 2**20
CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
ON_CPU = RESULTS / "memory-traced-cpu.json"
BOUND = 0.001  # the distance that is aimed at on a CPU


def step_peak(found: Trace, *, kept: frozenset[str]) -> int:
    """Bytes at the fullest moment of the last step: what is there of the ``kept`` kinds when it begins, and the most
    that the step adds."""
    begin, there = found.steps[-1], dict[int, int]()
    for event in found.events[:begin]:
        if isinstance(event, Allocation):
            there[event.key] = event.bytes if event.kind in kept else 0
        else:
            there.pop(event.key, None)
    course = list(live(found.events))
    return sum(there.values()) + max(course[begin:]) - (course[begin - 1] if begin else 0)


def compared(name: str) -> dict[str, Any]:
    """One row on a CPU; names of transformers' models begin with ``adopted``."""
    if name.startswith("adopted "):
        return _adopted(name)
    row = ours.ROWS[name]
    size = row.config.train.micro_batch_size
    assert isinstance(size, int)
    purpose: execution.Purpose = "evaluation" if row.evaluation else "training"
    way = execution.of(row.config, CPU, size, purpose=purpose)
    found = step_peak(trace(row.config, CPU, way), kept=frozenset({"weights", "optimizer"}))
    return _row(name, found, ours.predicted(row).expected, ours.measured(row))


def _adopted(name: str) -> dict[str, Any]:
    row = adopted.ROWS[name.removeprefix("adopted ")]
    with tempfile.TemporaryDirectory() as directory:
        transformers.AutoConfig.for_model(row.family, **row.model).save_pretrained(directory)
        config: Config = adopted.config_of(row, Path(directory) / "config.json")
        purpose: execution.Purpose = "evaluation" if row.evaluation else "training"
        way = execution.of(config, CPU, row.B, purpose=purpose)
        kept = frozenset({"weights"} if row.evaluation else {"weights", "optimizer"})
        found = step_peak(trace(config, CPU, way), kept=kept)
        plan = memory.of(architecture.of(config), way)
        closed = plan.expected - (plan.parts.get("optimizer", 0.0) if row.evaluation else 0.0)
        return _row(name, found, closed, adopted.measured(row, config))


def _row(name: str, traced: float, closed: float, measured: float) -> dict[str, Any]:
    return {
        "row": name,
        "traced_mib": traced / MIB,
        "closed_form_mib": closed / MIB,
        "measured_mib": measured / MIB,
        "off": traced / measured - 1,
        "closed_form_off": closed / measured - 1,
    }


def names() -> Iterator[str]:
    """Of all rows on a CPU: ours and adopted ones by turns, so that a run that is stopped has seen of everything."""
    theirs = [f"adopted {name}" for name in adopted.ROWS]
    for first in (0, 1):
        for pair in zip_longest([*ours.ROWS][first::2], theirs[first::2]):
            yield from filter(None, pair)


def summary(rows: list[dict[str, Any]], bound: float) -> dict[str, Any]:
    """How far the rows are off in the middle and at most, and how many within ``bound``."""
    errors = sorted(abs(row["off"]) for row in rows)
    return {
        "rows": len(rows),
        "bound": bound,
        "within": sum(error <= bound for error in errors),
        "median": statistics.median(errors),
        "largest": errors[-1],
    }


def page() -> str:
    """docs/accuracy.md from the result files there are."""
    text = [
        "# How exact a traced plan is",
        "",
        "Made by `python benchmarks/memory_accuracy.py --write` from its result files; nothing here is written by",
        "hand. A trace is the run's own step under fake tensors ([plan](plan.md)); it sees no GPU, and nothing that",
        "was measured enters it. Rows with checkpointing come out a little low: the random state that each block keeps",
        "(5,056 bytes), and in bf16 the scratch of oneDNN's products, are in no trace.",
        "",
        "## On a CPU",
        "",
    ]
    found = json.loads(ON_CPU.read_text(encoding="utf-8"))
    where, short = found["machine"], found["summary"]
    text += [
        f"The trace for a CPU beside the step itself under torch's profiler: {short['within']} of {short['rows']} "
        f"within {short['bound']:.1%}, {short['median']:.3%} off in the middle and {short['largest']:.2%} at most. "
        f"{where['device']}, {where['threads']} thread, torch {where['torch']}, transformers {where['transformers']}, "
        f"{where['date']}. Shapes are those of [the closed form's tables](memory_plan.md); rows of adopted models are "
        "transformers' in a step of ours.",
        "",
        "| | traced, MiB | closed form | measured | trace off | closed form off |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for row in found["rows"]:
        sizes = " | ".join(f"{row[key]:.2f}" for key in ("traced_mib", "closed_form_mib", "measured_mib"))
        text.append(f"| {row['row']} | {sizes} | {row['off']:+.3%} | {row['closed_form_off']:+.2%} |")
    text += ["", "## On a GPU", ""]
    on_gpu = RESULTS / "gpu" / "memory-traced-cuda.json"
    if on_gpu.exists():
        import memory_accuracy_gpu as gpu

        text += gpu.section(json.loads(on_gpu.read_text(encoding="utf-8")))
    else:
        text += [
            "Not measured yet: no GPU was at hand. `python benchmarks/memory_accuracy.py --device cuda` (part of",
            "`benchmarks/gpu.sh`) predicts, then measures, and `--write` puts the table here.",
        ]
    if published.RESULT.exists():
        text += ["", *published.section(json.loads(published.RESULT.read_text(encoding="utf-8")))]
    return "\n".join(text).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda")
    parser.add_argument("--again", action="store_true", help="on a CPU: what was measured before is measured again")
    parser.add_argument("--only", default="", help="rows whose name begins so; nothing is written then")
    parser.add_argument("--limit", type=float, default=540.0, help="on a GPU: seconds after which no row is begun")
    parser.add_argument("--write", action="store_true", help="only write docs/accuracy.md")
    given = parser.parse_args()
    if given.write:
        PAGE.write_text(page(), encoding="utf-8")
        return
    transformers.logging.set_verbosity_error()
    if given.device != "cpu":
        import memory_accuracy_gpu as gpu

        gpu.run(RESULTS / "gpu" / "memory-traced-cuda.json", only=given.only, limit_s=given.limit)
        return
    machine = _machine()
    rows = [] if given.only or given.again else _known(machine)
    known = {row["row"] for row in rows}
    print(f"{'':54}    traced closed form  measured       off")
    for name in names():
        if name.startswith(given.only) and name not in known:
            rows.append(row := compared(name))
            sizes = " ".join(f"{row[key]:10.2f}" for key in ("traced_mib", "closed_form_mib", "measured_mib"))
            print(f"{name:54}{sizes} {row['off']:+9.3%}", flush=True)
            if not given.only:
                result = {"command": "python benchmarks/memory_accuracy.py", "machine": machine}
                result |= {"summary": summary(rows, BOUND), "rows": rows}
                ON_CPU.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(summary(rows, BOUND))


def _machine() -> dict[str, Any]:
    return {
        "device": hardware.detect("cpu").name,
        "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": date.today().isoformat(),
    }


def _known(machine: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that were measured here today, in a run that was stopped."""
    if not ON_CPU.exists():
        return []
    found = json.loads(ON_CPU.read_text(encoding="utf-8"))
    return list(found["rows"]) if found["machine"] == machine else []


if __name__ == "__main__":
    main()
