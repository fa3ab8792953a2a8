"""What each way of making batches costs, and whether it changes what is learnt: a run under each, same pairs and steps.

    python examples/docstrings/prepare.py
    python benchmarks/finetune_batching.py

Held-out loss after the last step (by transformers, as in finetune_speed.py), tokens that are no padding a second of the
CPU's time, share of padding, memory. Buckets make other batches than the rest; what that comes to is seen beside
padded runs of other seeds, which differ in their batches alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from finetune_speed import fresh_model, ganeum_config, ganeum_run

from ganeum.hardware.machine import cpu_name

RUNS = [(way, 1) for way in ("padded", "buckets", "packed", "fixed")] + [("padded", 2), ("padded", 3), ("buckets", 2)]
RESULT = Path(__file__).resolve().parent / "results" / "finetune-batching-cpu.json"


def main() -> None:
    """A run under each way, some of other seeds, a table, and a result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=170)
    parser.add_argument("--warm", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        model = fresh_model(Path(directory) / "fresh")
        print(f"{'batching':<9} seed  tokens/s of CPU  padding  held-out loss  GiB")
        for way, seed in RUNS:
            room = Path(directory) / f"{way}-{seed}"
            room.mkdir()
            config = ganeum_config(model, given.steps, given.batch, "default") | {"seed": seed}
            config["data"]["batching"] = way
            one = ganeum_run(config, model, room, given.warm)
            found[room.name] = one
            speed, padding = one["tokens_per_cpu_second"], one.get("padding", float("nan"))
            print(
                f"{way:<9} {seed:>4}  {speed:>15,.0f}  {padding:>7.1%}  {one['loss']:>13.4f}  {one['memory_gib']:.2f}",
                flush=True,
            )
    about = {"machine": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    about |= {"date": time.strftime("%Y-%m-%d"), "command": " ".join(sys.argv)}
    given.out.write_text(json.dumps({"about": about, "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
