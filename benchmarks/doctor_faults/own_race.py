"""An A/B of runs of ours: `ganeum train` itself, by turns, each run from its first step to its last.

A run counts with all that it does between two steps it logged: evaluations, checkpoints and samples are in it. Of all
such stretches but those of the first fifth the median counts: what else the machine does falls into few of them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from doctor_faults.cases import Case
from doctor_faults.diagnose import config, environment, results
from doctor_faults.race import Raced, interval

STEPS = 240


def raced_runs(case: Case, keys: Mapping[str, Any] | None, work: Path, core: int, seconds: float) -> Raced:
    """The run without its fault, or with other keys, beside the run as it is."""
    started = time.perf_counter()
    logs: list[float] = []
    while len(logs) < 6 or time.perf_counter() - started < seconds:
        first = len(logs) // 2 % 2 == 0
        rates = {
            kind: _rate(case, kind, keys, work, core)
            for kind in (("faulty", "honest") if first else ("honest", "faulty"))
        }
        logs.append(math.log(rates["honest"] / rates["faulty"]))
    low, high = interval(logs)
    spent = time.perf_counter() - started
    return Raced(math.exp(statistics.median(logs)), math.exp(low), math.exp(high), len(logs), spent)


def _rate(case: Case, kind: str, keys: Mapping[str, Any] | None, work: Path, core: int) -> float:
    """Tokens a second of one run behind its first fifth, the median of eight stretches."""
    name = "".join(sign if sign.isalnum() else "_" for sign in case.name)  # a colon would end it on PYTHONPATH
    folder = work / f"race_{name}_{kind}"
    for path in (folder, results(folder)):
        shutil.rmtree(path, ignore_errors=True)
    folder.mkdir(parents=True)
    as_said = case if kind == "faulty" or keys is not None else Case(case.subject, own=True)
    said = config(case, work, kind if keys is None else "faulty")
    for key, value in (keys or {}).items() if kind == "honest" else ():
        section, _, name = key.partition(".")
        said.setdefault(section, {})[name] = value
    said.setdefault("train", {})["max_iters"] = STEPS
    said.setdefault("log", {})["interval"] = STEPS // 10
    said["name"] = "raced"
    (folder / "run.yaml").write_text(yaml.safe_dump(said))
    env = {**os.environ, **environment(as_said, folder)}
    command = ["/usr/bin/taskset", "-c", str(core), sys.executable, "-m", "ganeum", "train", str(folder / "run.yaml")]
    subprocess.run(command, env=env, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    lines = (results(folder) / "raced" / "logs" / "metrics.jsonl").read_text().splitlines()
    rows = {row["step"]: row for row in map(json.loads, lines) if "tokens_seen" in row}
    for path in (folder, results(folder)):
        shutil.rmtree(path, ignore_errors=True)
    ends = [rows[step] for step in range(STEPS // 5, STEPS + 1, STEPS // 10)]
    return statistics.median(
        (late["tokens_seen"] - early["tokens_seen"]) / (late["elapsed_s"] - early["elapsed_s"])
        for early, late in pairwise(ends)
    )
