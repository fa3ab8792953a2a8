"""What each way of making batches costs, and whether it changes what is learnt: a run under each, same pairs and steps.

    python examples/docstrings/prepare.py
    python benchmarks/finetune_batching.py

Held-out loss after the last step (by transformers, as in finetune_speed.py), tokens that are no padding a second of the
CPU's time, share of padding, shapes that an epoch's micro-batches have, memory. Within a seed all ways learn from the
same batches; what other seeds come to is the noise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from finetune_speed import fresh_model, ganeum_config, ganeum_run

from ganeum.config import Config
from ganeum.data.examples.examples import open_examples
from ganeum.hardware.machine import cpu_name

WAYS, SEEDS = ("padded", "buckets", "packed", "fixed"), (1, 2, 3)
RESULT = Path(__file__).resolve().parent / "results" / "finetune-batching-cpu.json"


def shapes(config: dict[str, Any], at_once: int) -> int:
    """How many an epoch's micro-batches have: (rows, S, T)."""
    run = Config.model_validate(config)
    batches = open_examples(run, lambda _: None).batches(run)
    return len({shape for step in range(batches.steps_per_epoch) for shape in batches.whole(step).shapes(at_once)})


def main() -> None:
    """A run under each way and seed, a table, and a result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm", type=int, default=10)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        model = fresh_model(Path(directory) / "fresh")
        print(f"{'batching':<9} seed  tokens/s of CPU  padding  shapes  held-out loss  GiB")
        for seed in SEEDS:
            for way in WAYS:
                room = Path(directory) / f"{way}-{seed}"
                room.mkdir()
                config = ganeum_config(model, given.steps, given.batch, "default") | {"seed": seed}
                config["data"]["batching"] = way
                one = ganeum_run(config, model, room, given.warm) | {"shapes": shapes(config, given.batch)}
                found[room.name] = one
                print(
                    f"{way:<9} {seed:>4}  {one['tokens_per_cpu_second']:>15,.0f}  {one['padding']:>7.1%}  "
                    f"{one['shapes']:>6}  {one['loss']:>13.4f}  {one['memory_gib']:.2f}",
                    flush=True,
                )
    about = {"machine": cpu_name(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    about |= {"date": time.strftime("%Y-%m-%d"), "command": " ".join(sys.argv)}
    given.out.write_text(json.dumps({"about": about, "runs": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
