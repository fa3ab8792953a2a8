"""Training speed beside nanoGPT's unmodified train.py: same model, data and batch, by turns, each in its own process.

    python benchmarks/throughput.py --nanogpt path/to/a/clone

Two comparisons: each at its default, and both in the same precision (fp32 on a CPU; TF32 on a GPU, where nanoGPT always
allows it). nanoGPT is run with its torch.compile (its default) and without; the faster of the two is the peer. ganeum
is `ganeum train`, the loop its users run, every `auto` left to it. A round runs each once; the ratio is taken within
each round and the median of the rounds counts, so that a machine which changes its speed does not change the ratio.
Speed is tokens a step over the median time of the steps after the warm-up, as each program logs it itself.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

import ganeum
from ganeum.hardware.machine import cpu_name

RESULTS = Path(__file__).resolve().parent / "results"
NANOGPT_FILES = ("train.py", "model.py", "configurator.py")


@dataclass(frozen=True)
class Work:
    """What every program trains: sizes of model and batch, data, length, device."""

    n_layer: int
    n_head: int
    n_embd: int
    block_size: int
    micro_batch: int
    accumulation: int
    warmup: int
    steps: int
    device: str
    data: Path  # train.bin and val.bin, uint16
    vocab_size: int

    @property
    def tokens_per_step(self) -> int:
        return self.micro_batch * self.accumulation * self.block_size

    def tokens_per_second(self, step_times_s: list[float]) -> float:
        """From the times of all steps; those of the warm-up are left out."""
        return self.tokens_per_step / statistics.median(step_times_s[self.warmup :])


def prepare(directory: Path) -> None:
    """The Python standard library's source in a BPE vocabulary of 8,192, by `ganeum prepare`."""
    command = [sys.executable, "-m", "ganeum", "prepare", "pystdlib", "--out", str(directory), "--vocab-size", "8192"]
    run(command, directory)


def run(command: list[str], directory: Path, variables: dict[str, str] | None = None) -> str:
    """Runs to its end → what it printed; shows it and stops where the program failed."""
    done = subprocess.run(command, cwd=directory, env=os.environ | (variables or {}), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout


def export(nanogpt: Path, directory: Path) -> str:
    """nanoGPT's three files, as they are, beside a place for data → its commit. `nanogpt`: a clone or its git dir."""
    git = ["git", "-C", str(nanogpt)]
    for name in NANOGPT_FILES:
        if (nanogpt / name).exists():
            shutil.copy(nanogpt / name, directory)
        else:
            (directory / name).write_text(run([*git, "show", f"HEAD:{name}"], directory))
    (directory / "data").mkdir()
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def run_nanogpt(work: Work, directory: Path, *, compiled: bool, dtype: str | None) -> float:
    """nanoGPT's train.py → tokens a second. `dtype` None: its default (fp32 on a CPU, whatever it says)."""
    place = directory / "data" / "bench"
    if not place.exists():
        place.symlink_to(work.data)
    settings: dict[str, Any] = {
        "dataset": "bench",
        "device": work.device,
        "compile": compiled,
        "n_layer": work.n_layer,
        "n_head": work.n_head,
        "n_embd": work.n_embd,
        "block_size": work.block_size,
        "batch_size": work.micro_batch,
        "gradient_accumulation_steps": work.accumulation,
        "max_iters": work.warmup + work.steps,
        "warmup_iters": 0,
        "eval_interval": 1_000_000,
        "eval_iters": 1,  # it evaluates before the first step, whatever the interval
        "always_save_checkpoint": False,
    }
    if dtype is not None:
        settings["dtype"] = dtype
    arguments = [f"--{key}={value}" for key, value in settings.items()]
    printed = run([sys.executable, "train.py", *arguments], directory)
    times = [float(ms) / 1e3 for ms in re.findall(r"^iter \d+: .* time ([\d.]+)ms", printed, re.MULTILINE)]
    return work.tokens_per_second(times)


def run_ganeum(work: Work, directory: Path, *, precision: str) -> tuple[float, dict[str, Any]]:
    """`ganeum train` → tokens a second, and the choices it made."""
    shutil.rmtree(directory / "results", ignore_errors=True)
    steps = work.warmup + work.steps
    config = {
        "name": "bench",
        "device": work.device,
        "model": {
            "n_layer": work.n_layer,
            "n_head": work.n_head,
            "n_embd": work.n_embd,
            "block_size": work.block_size,
            "activation": "gelu",  # nanoGPT's
        },
        "data": {"directory": str(work.data)},
        "train": {
            "batch_size": work.micro_batch * work.accumulation,
            "micro_batch_size": work.micro_batch,
            "max_iters": steps,
            "precision": precision,
            "eval_interval": steps,
            "eval_tokens": work.block_size,
        },
        "sample": {"interval": 0},
        "log": {"interval": 1, "tensorboard": False},  # nanoGPT's default: every step is logged
    }
    (directory / "bench.yaml").write_text(yaml.safe_dump(config))
    run(
        [sys.executable, "-m", "ganeum", "train", "bench.yaml"],
        directory,
        {"GANEUM_RESULTS": str(directory / "results")},
    )
    record = directory / "results" / "bench"
    lines = map(json.loads, (record / "logs" / "metrics.jsonl").read_text().splitlines())
    choices = json.loads((record / "plan.json").read_text())["choices"]
    return work.tokens_per_second([line["step_time_s"] for line in lines]), {
        one["key"]: one["value"] for one in choices if one["key"] in ("train.precision", "train.compile")
    }


def compare(work: Work, nanogpt: Path, rounds: int, modes: list[str], directory: Path) -> dict[str, Any]:
    """All rounds → tokens a second of each program, every round; ratios pair by pair; versions and machine."""
    same = "fp32" if work.device == "cpu" else "tf32"
    here = directory / "nanogpt"
    here.mkdir()
    commit = export(nanogpt, here)
    speeds: dict[str, list[float]] = {}
    chosen: dict[str, Any] = {}

    def note(name: str, tokens_per_second: float) -> None:
        speeds.setdefault(name, []).append(tokens_per_second)
        print(f"  {name:<28} {tokens_per_second:>10,.0f} tokens/s", flush=True)

    # On a CPU nanoGPT's default computes in fp32 as well: one pair of runs serves both comparisons.
    nanogpt_dtypes = {"default": None, "same": "float32"} if work.device != "cpu" else {"default": None}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", flush=True)
        for mode, dtype in nanogpt_dtypes.items():
            if mode in modes or work.device == "cpu":
                for compiled in (False, True):
                    name = f"nanogpt {mode}{' compiled' if compiled else ''}"
                    note(name, run_nanogpt(work, here, compiled=compiled, dtype=dtype))
        for mode, precision in (("default", "auto"), ("same", same)):
            if mode in modes:
                speed, chosen[mode] = run_ganeum(work, directory, precision=precision)
                note(f"ganeum {mode}", speed)

    ratios: dict[str, dict[str, Any]] = {}
    for mode in modes:
        peer = mode if f"nanogpt {mode}" in speeds else "default"
        best = [max(pair) for pair in zip(speeds[f"nanogpt {peer}"], speeds[f"nanogpt {peer} compiled"], strict=True)]
        each = [ours / theirs for ours, theirs in zip(speeds[f"ganeum {mode}"], best, strict=True)]
        ratios[mode] = {"median": statistics.median(each), "rounds": each, "chosen": chosen[mode]}
    gpu = torch.cuda.get_device_name() if work.device.startswith("cuda") else None
    return {
        "work": {key: value for key, value in vars(work).items() if key != "data"},
        "tokens_per_second": {name: {"median": statistics.median(all), "rounds": all} for name, all in speeds.items()},
        "ratio_to_nanogpt": ratios,
        "same_precision": same,
        "machine": {"cpu": cpu_name(), "threads": torch.get_num_threads(), "gpu": gpu, "os": platform.platform()},
        "versions": {
            "ganeum": ganeum.__version__,
            "nanogpt": commit,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "date": time.strftime("%Y-%m-%d"),
    }


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = ["| program | tokens/s, median of rounds | ratio to nanoGPT at its best, median |", "|---|---:|---:|"]
    for name, speed in result["tokens_per_second"].items():
        program, _, mode = name.partition(" ")
        ratio = result["ratio_to_nanogpt"].get(mode) if program == "ganeum" else None
        shown = name.replace("same", result["same_precision"])
        if ratio and mode == "default":
            shown += f" ({ratio['chosen']['train.precision']})"
        last = f"{ratio['median']:.2f} |" if ratio else "|"
        lines.append(f"| {shown} | {speed['median']:,.0f} | {last}")
    where = result["machine"]["gpu"] or f"{result['machine']['cpu']}, {result['machine']['threads']} threads"
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return "\n".join([*lines, "", f"{where}; {versions}; {result['date']}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--nanogpt", type=Path, required=True, help="a clone of karpathy/nanoGPT (or its git directory)"
    )
    parser.add_argument("--mode", choices=["both", "default", "same"], default="both", help="which comparison")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="measured steps a process")
    parser.add_argument("--warmup", type=int, default=3, help="steps before them (compiling among them)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--n-layer", type=int, default=6)
    parser.add_argument("--n-head", type=int, default=6)
    parser.add_argument("--n-embd", type=int, default=384)
    parser.add_argument("--block-size", type=int, default=256)
    parser.add_argument("--micro-batch", type=int, default=16)
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--data", type=Path, help="a prepared directory with meta.json; default: the standard library")
    parser.add_argument("--out", type=Path, help="result file; default: benchmarks/results/throughput-DEVICE.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ganeum-bench-") as name:
        directory = Path(name)
        data = given.data.resolve() if given.data else directory / "prepared"
        if given.data is None:
            data.mkdir()
            print("preparing the data …", flush=True)
            prepare(data)
        vocab_size = json.loads((data / "meta.json").read_text())["vocab_size"]
        shared = directory / "data"  # the same files for both, with the metadata each of them reads
        shutil.copytree(data, shared, copy_function=os.symlink)
        (shared / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))
        work = Work(
            **{name: getattr(given, name) for name in ("n_layer", "n_head", "n_embd", "block_size", "device")},
            micro_batch=given.micro_batch,
            accumulation=given.accumulation,
            warmup=given.warmup,
            steps=given.steps,
            data=shared,
            vocab_size=vocab_size,
        )
        modes = ["default", "same"] if given.mode == "both" else [given.mode]
        result = compare(work, given.nanogpt.resolve(), given.rounds, modes, directory)
    out = given.out or RESULTS / f"throughput-{given.device.split(':')[0]}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{table(result)}\n\n{out}")


if __name__ == "__main__":
    main()
