"""Tokens that `configs/modern.yaml` needs to reach nanoGPT's own final validation loss: seeds, each side at its best
learning rate.

    python benchmarks/tokens_to_loss.py --nanogpt path/to/a/clone --data data/pystdlib

The peer is nanoGPT's unmodified `train.py`, with the model's width, depth and context, trained for `--iters` steps and
evaluated from its own checkpoint. Ours has the same number of tokens a step and `--share` of the steps; its schedule
ends there. Both are evaluated by one program on every window of val.bin. The learning rate of each side is the best of
its list at the first seed; the other seeds run at that one. Every run is kept in the result file as it ends, and is not
made again: the program may be stopped and started, or be run for each side at the same time (`--side`).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from throughput import export

import ganeum
from ganeum.hardware.machine import cpu_name

RESULTS = Path(__file__).resolve().parent / "results"
CONFIG = Path(__file__).resolve().parent.parent / "configs" / "modern.yaml"
# nanoGPT's seed is a number in its train.py: the file stays as it is, and what it calls adds to that number.
SEEDED = """
import runpy, sys, torch
plain, extra = torch.manual_seed, int(sys.argv.pop(1))
torch.manual_seed = lambda seed: plain(seed + extra)
runpy.run_path("train.py", run_name="__main__")
"""


def run(command: list[str], directory: Path, log: Path) -> None:
    """Runs to its end; shows the end of its log and stops where it failed."""
    results = {"GANEUM_RESULTS": str(directory / "results")}
    with log.open("w") as file:
        done = subprocess.run(command, cwd=directory, env=os.environ | results, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{log.read_text()[-4000:]}")


def evaluate(data: Path, shape: dict[str, Any], weights: Path, directory: Path) -> float:
    """nats a token of a nanoGPT checkpoint on every window of val.bin."""
    config = {
        "name": "peer",
        "model": shape | {"style": "gpt2", "activation": "gelu"},
        "data": {"directory": str(data)},
        "train": {"init_from": str(weights), "eval_only": True, "eval_tokens": "all", "precision": "fp32"},
    }
    (directory / "peer.yaml").write_text(yaml.safe_dump(config))
    code = "import json, sys; from ganeum.config import load; from ganeum.train.run import train\n"
    code += "print(json.dumps(train(load('peer.yaml'), stream=sys.stderr)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=directory, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr[-4000:])
    return float(json.loads(done.stdout.splitlines()[-1])["val_loss"])


def run_nanogpt(given: argparse.Namespace, shape: dict[str, Any], batch: int, rate: float, seed: int) -> float:
    """One run of train.py → its checkpoint's validation loss."""
    with tempfile.TemporaryDirectory(prefix="ganeum-nanogpt-") as name:
        directory = Path(name)
        export(given.nanogpt, directory)
        data = directory / "data" / "corpus"
        data.mkdir()
        for file in ("train.bin", "val.bin"):
            (data / file).symlink_to(given.data / file)
        vocab_size = json.loads((given.data / "meta.json").read_text())["vocab_size"]
        (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))
        settings = {
            "dataset": "corpus",
            "device": given.device,
            "compile": given.device != "cpu",
            "n_layer": shape["n_layer"],
            "n_head": shape["n_head"],
            "n_embd": shape["n_embd"],
            "block_size": shape["block_size"],
            "batch_size": batch,
            "gradient_accumulation_steps": 1,
            "learning_rate": rate,
            "min_lr": rate / 10,
            "max_iters": given.iters,
            "lr_decay_iters": given.iters,
            "warmup_iters": max(10, given.iters // 20),
            "eval_interval": given.iters,
            "eval_iters": 1,
            "log_interval": 50,
        }
        arguments = [f"--{key}={value}" for key, value in settings.items()]
        run([sys.executable, "-c", SEEDED, str(seed), *arguments], directory, directory / "log.txt")
        return evaluate(given.data, shape, directory / "out" / "ckpt.pt", directory)


def run_ganeum(given: argparse.Namespace, rate: float, seed: int, steps: int) -> float:
    """One run of the config → its validation loss at its end."""
    with tempfile.TemporaryDirectory(prefix="ganeum-modern-") as name:
        directory = Path(name)
        shutil.copy(given.config, directory / "modern.yaml")
        overrides = [
            "name=run",
            f"seed={1337 + seed}",
            f"device={given.device}",
            f"data.directory={given.data}",
            f"train.learning_rate={rate}",
            f"train.max_iters={steps}",
            f"train.eval_interval={steps}",
            "train.eval_tokens=all",
            "sample.interval=0",
            *given.override,
        ]
        command = [sys.executable, "-m", "ganeum", "train", "modern.yaml", *overrides]
        run(command, directory, directory / "log.txt")
        summary = json.loads((directory / "results" / "run" / "summary.json").read_text())
        assert summary["steps"] == steps, summary
        return float(summary["val_loss"])


class Results:
    """The result file: each run by side, learning rate and seed; two programs may add to it by turns."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about = path, about

    def runs(self) -> list[dict[str, Any]]:
        return list(json.loads(self.path.read_text())["runs"]) if self.path.exists() else []

    def of(self, side: str, key: str) -> list[dict[str, Any]]:
        return [one for one in self.runs() if one["side"] == side and one["key"] == key]

    def add(self, one: dict[str, Any]) -> None:
        """Written to a new file that then takes the old one's place."""
        content = {"about": self.about, "runs": [*self.runs(), one]}
        growing = self.path.with_suffix(".tmp")
        growing.write_text(json.dumps(content, indent=2) + "\n")
        growing.replace(self.path)
        print(f"{one['side']:<8} lr {one['learning_rate']:<8g} seed {one['seed']}  {one['val_loss']:.4f}", flush=True)


def sweep(side: str, key: str, rates: list[float], seeds: list[int], results: Results, measure: Any) -> None:
    """All rates at the first seed, then the best of them at the others."""

    def done(rate: float, seed: int) -> bool:
        return any(one["learning_rate"] == rate and one["seed"] == seed for one in results.of(side, key))

    def once(rate: float, seed: int) -> None:
        if not done(rate, seed):
            began = time.time()
            loss = measure(rate, seed)
            results.add(
                {
                    "side": side,
                    "key": key,
                    "learning_rate": rate,
                    "seed": seed,
                    "val_loss": loss,
                    "seconds": round(time.time() - began),
                }
            )

    for rate in rates:
        once(rate, seeds[0])
    first = [one for one in results.of(side, key) if one["seed"] == seeds[0] and one["learning_rate"] in rates]
    best = min(first, key=lambda one: one["val_loss"])["learning_rate"]
    for seed in seeds[1:]:
        once(best, seed)


def table(runs: list[dict[str, Any]]) -> str:
    """Mean and spread of each side at its best learning rate, as Markdown."""
    lines = ["| run | best learning rate | validation loss of each seed | mean |", "|---|---:|---|---:|"]
    for side, key in dict.fromkeys((one["side"], one["key"]) for one in runs):
        mine = [one for one in runs if (one["side"], one["key"]) == (side, key)]
        seeds = {
            rate: [one for one in mine if one["learning_rate"] == rate] for rate in {o["learning_rate"] for o in mine}
        }
        rate = max(seeds, key=lambda r: (len(seeds[r]), -min(one["val_loss"] for one in seeds[r])))
        losses = [one["val_loss"] for one in sorted(seeds[rate], key=lambda one: one["seed"])]
        shown = ", ".join(f"{loss:.4f}" for loss in losses)
        lines.append(f"| {side}: {key} | {rate:g} | {shown} | {statistics.mean(losses):.4f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--nanogpt", type=Path, required=True, help="a clone of karpathy/nanoGPT (or its git directory)"
    )
    parser.add_argument("--data", type=Path, required=True, help="a prepared directory")
    parser.add_argument("--config", type=Path, default=CONFIG)
    parser.add_argument("--side", choices=["both", "nanogpt", "ganeum"], default="both")
    parser.add_argument("--iters", type=int, default=800, help="nanoGPT's steps")
    parser.add_argument("--share", type=float, default=0.5, help="of these steps, for ours")
    parser.add_argument("--peer-rates", type=float, nargs="+", default=[1e-3, 2e-3, 4e-3])
    parser.add_argument("--rates", type=float, nargs="+", default=[2e-3, 4e-3, 8e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--override", nargs="*", default=[], help="key=value for ours; kept under a key of its own")
    parser.add_argument("--out", type=Path, help="result file; default: benchmarks/results/tokens-to-loss-DEVICE.json")
    given = parser.parse_args()
    given.data, given.nanogpt = given.data.resolve(), given.nanogpt.resolve()
    content = yaml.safe_load(given.config.read_text())
    shape = {name: content["model"][name] for name in ("n_layer", "n_head", "n_embd", "block_size")}
    batch, steps = content["train"]["batch_size"], round(given.iters * given.share)
    per_step = batch * shape["block_size"]
    about = {
        "model": shape,
        "tokens_per_step": per_step,
        "machine": {"cpu": cpu_name(), "threads": torch.get_num_threads(), "os": platform.platform()},
        "versions": {"ganeum": ganeum.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
    }
    out = given.out or RESULTS / f"tokens-to-loss-{given.device.split(':')[0]}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    results = Results(out, about)
    if given.side != "ganeum":
        key = f"{given.iters * per_step:,} tokens"
        sweep(
            "nanogpt",
            key,
            given.peer_rates,
            given.seeds,
            results,
            lambda rate, seed: run_nanogpt(given, shape, batch, rate, seed),
        )
    if given.side != "nanogpt":
        key = " ".join([f"{steps * per_step:,} tokens", *given.override])
        sweep("ganeum", key, given.rates, given.seeds, results, lambda rate, seed: run_ganeum(given, rate, seed, steps))
    print(f"\n{table(results.runs())}\n\n{out}")


if __name__ == "__main__":
    main()
