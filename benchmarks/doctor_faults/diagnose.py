"""The doctor asked about a case, as a user asks: `ganeum doctor run` in a process of its own, on one core.

The process is bound to its core, and a module that is read when Python starts makes that binding hold, as a container's
cpuset would; so two diagnoses can run side by side. No C++ compiler is on the path: compiling takes longer here than a
whole diagnosis.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from doctor_faults.cases import Case
from doctor_faults.fault import FAULTS
from doctor_faults.own_runs import GPT, OWN_FAULTS, T5
from doctor_faults.race import BENCHMARKS, BURNER, KEPT, surroundings

HELD = """
import os as _os

_bound, _widen = _os.sched_getaffinity(0), _os.sched_setaffinity


def _held(pid, cores):
    if not set(cores) <= _bound:
        raise OSError(22, "outside of the cpuset")
    _widen(pid, cores)


_os.sched_setaffinity = _held
"""
BUILD = """
import sys

sys.path.insert(0, {benchmarks!r})
from doctor_faults.catalogue import training


def build():
    return training({subject!r}, {faults!r}, seed={seed}, **{honest!r})
"""
COUNTED = ("/bin/bash", "-c", '"$@"; status=$?; times > spent.txt; exit $status', "counted")
PATIENCE = 4.0  # times the minutes that the doctor was given


def settings(case: Case, kind: str = "faulty") -> dict[str, Any]:
    """Keys of a run of ours: as the fault has them, or ``honest``."""
    base = dict(GPT if case.subject == "gpt" else T5)
    for name in case.faults:
        fault = OWN_FAULTS[name]
        base |= fault.keys if kind == "faulty" else fault.honest
    return base


CORPUS = threading.Lock()  # the workers' first cases are diagnosed at once


def corpus(directory: Path) -> None:
    """Made-up text of 500 words as a prepared corpus, pairs of lines, and a small T5: what runs of ours learn from."""
    if (directory / "ready").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    draw = random.Random(5)
    words = ["".join(draw.choice("aeioumnrst") for _ in range(draw.randint(2, 7))) for _ in range(500)]
    lines = [" ".join(draw.choice(words) for _ in range(draw.randint(6, 60))) for _ in range(4000)]
    (directory / "text.txt").write_text("\n".join(lines))
    ganeum = [
        sys.executable,
        "-m",
        "ganeum",
        "prepare",
        str(directory / "text.txt"),
        "--out",
        str(directory / "tokens"),
    ]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "env": surroundings({})}
    subprocess.run([*ganeum, "--vocab-size", "512", "--split-on", "\n"], **quiet)
    with (directory / "pairs.jsonl").open("w") as file:
        for line in lines:
            file.write(json.dumps({"source": line, "target": " ".join(line.split()[:5])}) + "\n")
    shape = {"vocab_size": 512, "d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    ids = {"model_type": "t5", "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "dropout_rate": 0.0}
    (directory / "t5").mkdir(exist_ok=True)
    (directory / "t5" / "config.json").write_text(
        json.dumps(shape | ids | {"architectures": ["T5ForConditionalGeneration"]})
    )
    (directory / "ready").touch()


def config(case: Case, directory: Path, kind: str = "faulty") -> dict[str, Any]:
    """A run of ours as the text of its YAML file says it."""
    keys = settings(case, kind)
    if case.subject == "gpt":
        keys["data.directory"] = str(directory / "corpus" / "tokens")
    else:
        keys["model.source"] = str(directory / "corpus" / "t5")
        keys["data.tokenizer"] = str(directory / "corpus" / "tokens" / "tokenizer")
        keys["data.train"] = str(directory / "corpus" / "pairs.jsonl")
    said: dict[str, Any] = {}
    for key, value in keys.items():
        section, _, name = key.rpartition(".")
        (said.setdefault(section, {}) if section else said)[name] = value
    return said


def results(folder: Path) -> Path:
    """Where a run of ours leaves its results: in memory, since a disk that others write to is another one every minute
    (fsync took 0.4 ms and 9 ms within two of them)."""
    memory = Path("/dev/shm")
    return memory / f"doctor-faults{folder}".replace("/", "-") if memory.is_dir() else folder / "results"


def environment(case: Case, folder: Path) -> dict[str, str]:
    """What the doctor's processes have besides; writes the module that Python reads when it starts."""
    own = [OWN_FAULTS[name] for name in case.faults] if case.own else []
    if case.own:
        results(folder).mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(HELD + "\n".join(fault.patch for fault in own))
    said = dict(KEPT)
    for name in case.faults:
        said |= OWN_FAULTS[name].environment if case.own else FAULTS[name].environment
    paths = [str(folder), str(BENCHMARKS.parent / "src")]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": str(Path(sys.executable).parent),
        "COLUMNS": "100",
        "GANEUM_RESULTS": str(results(folder)),
    } | said


def diagnosed(case: Case, minutes: float, work: Path, core: int) -> dict[str, Any]:
    """doctor.json of a case, with how long it took; its last words where it failed."""
    folder = work / "".join(sign if sign.isalnum() or sign in "+#" else "_" for sign in case.name)
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder / "doctor.json"
    answer.unlink(missing_ok=True)
    if case.own:
        with CORPUS:
            corpus(work / "corpus")
        (folder / "run.yaml").write_text(yaml.safe_dump(config(case, work)))
        subject = [str(folder / "run.yaml")]
    else:
        asked = {"subject": case.subject, "faults": case.faults, "seed": case.seed, "honest": case.honest}
        (folder / "build.py").write_text(BUILD.format(benchmarks=str(BENCHMARKS), **asked))
        subject = ["--script", f"{folder / 'build.py'}:build"]
    command = [sys.executable, "-m", "ganeum", "doctor", "run", *subject, "--minutes", str(minutes), "-o", str(answer)]
    with_env = {**os.environ, **environment(case, folder)}
    beside = [name for name in case.faults if not case.own and FAULTS[name].beside]
    burner = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", BURNER]) if beside else None
    started, before = time.perf_counter(), computed(core)
    try:
        status, told = _run(
            ["taskset", "-c", str(core), *COUNTED, *command], with_env, folder, PATIENCE * 60 * minutes + 60
        )
    finally:
        if burner is not None:
            burner.kill()
            burner.wait()
    seconds = time.perf_counter() - started
    shutil.rmtree(results(folder), ignore_errors=True)
    (folder / "told.txt").write_text(told)
    found = json.loads(answer.read_text()) if answer.exists() else None
    failed = None if status == 0 and found is not None else told[-1500:]
    others = max(0.0, computed(core) - before - _spent(folder / "spent.txt")) / seconds
    return {"report": found, "seconds": seconds, "others": others, "failed": failed}


def computed(core: int) -> float:
    """Seconds that a core has computed, for whomever."""
    ticks = next(line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{core} "))
    return (sum(map(int, ticks[1:9])) - int(ticks[4]) - int(ticks[5])) / os.sysconf("SC_CLK_TCK")


def _spent(file: Path) -> float:
    """Seconds of cores in the second line of the shell's `times`: a command's, with all that it waited for."""
    words = file.read_text().split()[2:4] if file.exists() else []
    return sum(60 * float(minutes) + float(seconds) for minutes, seconds in (word[:-1].split("m") for word in words))


def _run(command: list[str], env: Mapping[str, str], folder: Path, limit_s: float) -> tuple[int, str]:
    """Status and words of a command; it is interrupted, then ended with all that it started, when it takes too long."""
    command[0] = "/usr/bin/taskset" if Path("/usr/bin/taskset").exists() else command[0]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env=env, cwd=folder, start_new_session=True, **pipes)
    try:
        told, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=10)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return 124, f"took longer than {limit_s:.0f} s"
    return process.returncode, told
