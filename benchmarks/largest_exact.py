"""How many sequences fit at once: traced, beside the closed form, for the two summarizers of docs/what_fits.md.

    python benchmarks/largest_exact.py             # results/largest-exact.json; without a GPU, 20 min of a core
    python benchmarks/largest_exact.py --write     # the table of docs/exact.md from the result file

A row is a run of `ganeum train` with `model.source` and its weights, 512 tokens in and 128 out, autocast to fp16 on a
V100 and to bf16 on the others, looked for as `plan --exact` does: a trace at the number itself goes through.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from ganeum import units
from ganeum.config import Config
from ganeum.config.change import change
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.hardware.peaks import torch_version
from ganeum.plan import execution, fastest
from ganeum.plan.architecture import configured
from ganeum.plan.architecture.known import known
from ganeum.plan.trace import room
from ganeum.plan.trace.child import Child
from ganeum.plan.trace.replay import sizes

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "largest-exact.json", HERE.parent / "docs" / "exact.md"
BEGIN, END = "<!-- largest-exact -->\n", "<!-- /largest-exact -->\n"
MODELS = ("t5-base", "mt5-large")
CARDS = ("V100 SXM2 16GB", "A100 SXM4 40GB", "RTX 3080 10GB", "RTX 3080 12GB", "RTX 4090")
WAYS: dict[str, dict[str, Any]] = {
    "AdamW": {"train.optimizer": "adamw"},
    "Adafactor": {"train.optimizer": "adafactor"},
}
MOST = 256  # sequences
LIMIT_S = 7_200.0  # for all traces


def config_of(model: str, settings: dict[str, Any], directory: Path) -> Config:
    """A run that adopts a well-known model, whose weights need not be here."""
    source = directory / model
    source.mkdir(exist_ok=True)
    shape = next(one.config for one in known() if one.name == model)
    (source / "config.json").write_text(json.dumps(shape))
    base: dict[str, Any] = {
        "name": model,
        "model": {"source": str(source)},
        "data": {"train": "train.jsonl", "max_length": 512, "max_target_length": 128, "batching": "padded"},
        "train": {"batch_size": 64, "max_iters": 100, "compile": False, "activation_checkpointing": "none"},
    }
    return change(Config.model_validate(base), settings)


def row(model: str, how: str, device: Device, child: Child, directory: Path) -> dict[str, Any]:
    """One model in one way on one card."""
    config = config_of(model, {**WAYS[how], "train.precision": device.fast_precision}, directory)
    way = replace(execution.of(config, device, 1), accumulation=1)
    begun = time.perf_counter()
    closed_form = fastest.largest(configured.of(config), way, device)
    most = room.largest(child, config, device, way, closed_form, MOST)
    at = child.run(config, device, replace(way, micro_batch_size=max(most.size, 1)))  # traced already
    return {
        "model": model,
        "gpu": device.name,
        "usable_gib": device.usable_gib,
        "how": how,
        "precision": device.fast_precision,
        "closed_form": closed_form,
        "traced": most.size,
        "next": most.beyond,
        "reserved_gib": room.Room.of(device, at).peaks(sizes(at.trace))[1] / units.GIB,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def table(result: dict[str, Any]) -> str:
    """The rows, for the page."""
    lines = [
        f"Made by `python benchmarks/largest_exact.py` on {result['date']} with torch {result['torch']}.",
        "",
        "| model | GPU | usable GiB | how | at once, closed form | traced | GiB that reserves |",
        "| --- | --- | --: | --- | --: | --: | --: |",
    ]
    for one in result["rows"]:
        lines.append(
            f"| {one['model']} | {one['gpu']} | {one['usable_gib']:.1f} | {one['how']}, {one['precision']} | "
            f"{one['closed_form']} | **{one['traced']}** | {one['reserved_gib']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Trace, or write the page."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--write", action="store_true", help="the table of docs/exact.md from the result file")
    if options.parse_args().write:
        page = PAGE.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        PAGE.write_text(
            head + BEGIN + table(json.loads(RESULT.read_text())) + END + rest.split(END)[1], encoding="utf-8"
        )
        return
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, Child(LIMIT_S) as child:
        for model in MODELS:
            for how in WAYS:
                for name in CARDS:
                    found.append(row(model, how, card(name), child, Path(directory)))
                    print(json.dumps(found[-1]), file=sys.stderr, flush=True)
    result = {"date": str(date.today()), "torch": torch_version(), "rows": found}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
