"""Two records of runs beside each other, as they are or changed afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ganeum.doctor import compare
from ganeum.doctor.compare.stretch import PARTS
from ganeum.doctor.finding import Report
from ganeum.record import RunDirectory

Edit = Callable[[dict[str, Any]], dict[str, Any]]


def alone(run: RunDirectory, others: float = 0.0, waits: float = 0.0) -> RunDirectory:
    """As if other programs had had this share of the processors, and it had waited for this share of each step."""
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    lines = [{**line, "cpu_others": others, "cpu_wait_s": waits * line["step_time_s"]} for line in lines]
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def undisturbed(run: RunDirectory) -> RunDirectory:
    """With the times of its processors in place of the clock's, and usual shares of its parts: other programs are in
    those only."""
    lines = [json.loads(line) for line in run.metrics_path.read_text().splitlines()]
    usual = {f"{name}_s": median(line[f"{name}_s"] / line["step_time_s"] for line in lines) for name in PARTS}
    passed = 0.0
    for line in lines:
        passed += line["cpu_s"]
        line |= {"step_time_s": line["cpu_s"], "elapsed_s": passed}
        line |= {name: share / sum(usual.values()) * line["cpu_s"] for name, share in usual.items()}
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def edited(run: Path, to: Path, edit: Edit) -> RunDirectory:
    """A copy of a run whose lines of metrics went through ``edit``."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints"))
    lines = [json.loads(line) for line in (run / "logs" / "metrics.jsonl").read_text().splitlines()]
    (to / "logs" / "metrics.jsonl").write_text("".join(json.dumps(edit(line)) + "\n" for line in lines))
    return RunDirectory(to)


def slower(**seconds: float) -> Edit:
    """So many seconds more in these parts."""

    def edit(line: dict[str, Any]) -> dict[str, Any]:
        more = {f"{part}_s": line[f"{part}_s"] + by for part, by in seconds.items()}
        return {**line, **more, "step_time_s": line["step_time_s"] + sum(seconds.values())}

    return edit


def beside(run: RunDirectory, baseline: RunDirectory) -> Report:
    return compare.report(compare.of_run(run), compare.of_run(baseline))
