"""Our own step and DeepSpeed's engine on a CPU, by turns, each in a process of its own: losses, seconds, peak memory.

    python benchmarks/deepspeed_cpu.py --steps 12

A GPT on random tokens: what is compared is who takes the step. Needs the extra `deepspeed`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from ganeum.config import Config
from ganeum.config.schema import Data, Model, Train, Zero
from ganeum.data.batch import WindowBatch
from ganeum.train.start import start

MODEL = {"n_layer": 4, "n_head": 4, "n_embd": 256, "block_size": 64, "vocab_size": 49_152}  # 15.7M numbers
WAYS: dict[str, dict[str, Any]] = {
    "own": {},
    "ZeRO-2": {"zero": Zero(stage=2)},
    "ZeRO-2, optimizer offloaded": {"zero": Zero(stage=2), "optimizer_offload": True},
    "ZeRO-3": {"zero": Zero(stage=3)},
    "ZeRO-3, both offloaded": {"zero": Zero(stage=3, weights_offload=True), "optimizer_offload": True},
}
SETTLED = {"compile": False, "loss_chunk": 512, "activation_checkpointing": "none", "max_iters": 100}


def one(way: str, precision: str, steps: int, checkpointing: str) -> dict[str, Any]:
    """Takes the steps in this process, of 4 sequences, 2 at once."""
    settled = SETTLED | {"activation_checkpointing": checkpointing}
    train = Train(precision=precision, **settled, **WAYS[way])  # type: ignore[arg-type]
    config = Config(model=Model(**MODEL), data=Data(directory="none"), train=train, device="cpu")  # type: ignore[arg-type]
    import deepspeed  # noqa: F401  (what it takes itself is the same for all)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = start(config)
    draw = torch.Generator().manual_seed(0)
    losses, seconds = [], []
    for n in range(steps):
        tokens = torch.randint(0, 49_152, (4, 65), generator=draw)
        batch = WindowBatch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
        began = time.process_time()
        losses.append(step.on(batch, step=n, learning_rate=3e-4, at_once=2).loss.item())
        seconds.append(time.process_time() - began)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    return {"loss": losses, "s": statistics.median(seconds[2:]), "peak_gib": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--checkpointing", default="none")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one, args.precision[0], args.steps, args.checkpointing)))
        return
    for precision in args.precision:
        first = None
        for way in WAYS:
            words = [sys.executable, __file__, "--one", way, "--steps", str(args.steps), "--precision", precision]
            words += ["--checkpointing", args.checkpointing]
            shown = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            found = json.loads(shown.splitlines()[-1])
            first = first or found
            off = max(abs(a - b) for a, b in zip(first["loss"], found["loss"], strict=True))
            print(
                f"{precision} {way:28} loss {found['loss'][-1]:.6f} (at most {off:.1e} off), {found['s']:.2f} s of CPU "
                f"time a step, {found['peak_gib']:.2f} GiB more than before it",
                flush=True,
            )


if __name__ == "__main__":
    main()
