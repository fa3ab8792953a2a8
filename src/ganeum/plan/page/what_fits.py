"""Writes docs/what_fits.md, what people reckoned would fit beside the plan: python -m ganeum.plan.page.what_fits."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ganeum.hardware.card import card
from ganeum.plan.architecture import find
from ganeum.plan.page.table import FORMATS, Column, Table
from ganeum.plan.question import tables
from ganeum.plan.question.use import read

PAGE = Path(__file__).parents[4] / "docs" / "what_fits.md"

# Document 001: six code models in 16 GB, in fp16. Name here → GB that it gives, one sequence at once, more than one.
SIX = {
    "codegen-350M-mono": (0.7, "yes", "yes"),
    "phi-1-small": (0.7, "yes", "yes"),
    "phi-1": (2.6, "yes", "yes"),
    "replit-code-v1-3b": (5.4, "yes", "limited"),
    "starcoder": (31.0, "no", "no"),
    "codegen-16B-mono": (32.0, "no", "no"),
}
SIXTEEN_GB = "RTX 4080"
SIX_KEYS = ("precision=fp16", "length=2048")

# Document 002: two summarizers. Purpose → GB that it gives.
TWO = {
    "mt5-large": {"training": "10–15", "generation": "4–6"},
    "t5-base": {"training": "3–5", "generation": "1–2"},
}
# Card → model → sequences at once that it gives for training, evaluation and inference. What it gives for
# "RTX 3080/4090 (10-24GB)" stands for three cards.
LOCAL = {"mt5-large": (1, 1, 1), "t5-base": (2, 4, 4)}
BATCHES = {
    "V100 SXM2 16GB": {"mt5-large": (1, 2, 2), "t5-base": (4, 4, 8)},
    "A100 SXM4 40GB": {"mt5-large": (4, 8, 8), "t5-base": (8, 8, 16)},
    "RTX 3080 10GB": LOCAL,
    "RTX 3080 12GB": LOCAL,
    "RTX 4090": LOCAL,
}
TWO_KEYS = ("source_length=512", "length=128")


@dataclass(frozen=True)
class Case:
    """What of document 002 one row asks: keys of the plan, and which of the three batch sizes it is about."""

    name: str
    keys: tuple[str, ...]
    batch: int
    figure: str


CASES = (
    Case("training, AdamW", ("activation_checkpointing=none",), 0, "training"),
    Case("training, Adafactor", ("activation_checkpointing=none", "optimizer=adafactor"), 0, "training"),
    Case("evaluation, AdamW", ("purpose=evaluation", "weights=fp32"), 1, ""),
    Case("inference, 4 beams", ("purpose=generation", "beams=4"), 2, "generation"),
)


def six() -> Table:
    """Document 001's table, with the plan of each way to make it fit."""
    gpu, ways = card(SIXTEEN_GB), tables.levers(SIX_KEYS)
    return Table(
        (
            *(
                _column(key)
                for key in ("model", "parameters", "way", "low", "gib", "high", "fits", "host_gib", "largest")
            ),
            _column("tokens_per_second"),
            Column("said_gb", "it says, GB", "{:g}".format),
            Column("said_one", "one fits", left=True),
            Column("said_more", "more fit", left=True),
        ),
        [tables.row(find(name), gpu, use, way) | _said(name) for name in SIX for way, use in ways.items()],
        groups=("model", "parameters", "said_gb", "said_one", "said_more"),
    )


def two() -> Table:
    """Document 002's batch sizes, each with what it needs and what would be possible."""
    return Table(
        (
            *(_column(key) for key in ("model", "gpu", "usable_gib", "way")),
            Column("batch", "it says, at once", "{:,}".format),
            *(_column(key) for key in ("low", "gib", "high", "fits", "largest")),
            Column("said_gb", "it says, GB"),
        ),
        list(_two()),
        groups=("model", "gpu", "usable_gib"),
    )


def _two() -> Iterator[dict[str, Any]]:
    for model, figures in TWO.items():
        for gpu, batches in BATCHES.items():
            for case in CASES:
                use = read([*TWO_KEYS, *case.keys, f"micro_batch_size={batches[model][case.batch]}"])
                found = tables.row(find(model), card(gpu), use, case.name)
                yield found | ({"said_gb": figures[case.figure]} if case.figure in figures else {})


def _said(name: str) -> dict[str, Any]:
    gb, one, more = SIX[name]
    return {"said_gb": gb, "said_one": one, "said_more": more}


def _column(key: str) -> Column:
    return next(column for column in tables.COLUMNS if column.key == key)


def page() -> str:
    """The page, from the planner."""
    six_gpu = card(SIXTEEN_GB)
    return f"""# What fits where

Two questions that people worked out by hand, answered by the plan. Written by `python -m ganeum.plan.page.what_fits`; a
test holds it to what the planner says. With `six` or `two` behind it, and `text`, `json` or `csv`, that command prints
one table. `fits` is **yes** where even the upper bound of the memory is free on that card (for tensors, after driver
and CUDA), **no** where the lower bound is not, else **perhaps**. GiB, expected between `low`
and `high`, are those of one micro-batch as large as the row says, of one sequence where it says nothing; `at once` is
how many sequences fit.

## Six code models in 16 GB

An author lists what can be pre-trained in 16 GB, by two bytes a parameter, whichever the way. A training needs 16:
weight, gradient and two moments in fp32, and what the layers keep for the backward pass. Here: {six_gpu.name},
{six_gpu.usable_gib:.1f} GiB for tensors, autocast to fp16, AdamW, 2,048 tokens; what is offloaded lies in the CPU's
memory, whose share of a step's time is not known.
`ganeum plan --models NAMES --gpus "{SIXTEEN_GB}" {" ".join(SIX_KEYS)}` asks the same.

{six().markdown()}

## Two summarizers on five cards

An author gives batch sizes for an mT5 of 1.2B parameters and a T5 of 220M, in half precision, on three classes of
cards. Here: mT5-large and T5-base, 512 tokens in, 128 out; weights in fp32 for training and for evaluation between its
steps, as the Trainer keeps them, in half precision for inference.

{two().markdown()}
"""


def main(words: Sequence[str]) -> None:
    """Writes the page, or prints a table: ``["six", "csv"]``."""
    if not words:
        PAGE.write_text(page(), encoding="utf-8")
        return
    found = {"six": six, "two": two}
    if len(words) != 2 or words[0] not in found or words[1] not in FORMATS:
        sys.exit(f"python -m ganeum.plan.page.what_fits [{'|'.join(found)} {'|'.join(FORMATS)}]")
    told = getattr(found[words[0]](), words[1])()
    Console(highlight=False).print(told) if words[1] == "text" else print(told)


if __name__ == "__main__":
    main(sys.argv[1:])
