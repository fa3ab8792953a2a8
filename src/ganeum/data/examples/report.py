"""What is told of examples: how many, how long, what was cut and left out, and how much of the batches is padding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ganeum.config.schema import Config
from ganeum.data.examples.batching import ExampleBatches, Part
from ganeum.data.examples.fields import Kind
from ganeum.data.examples.store import Meta, Store, Told
from ganeum.units import things


def lines(train: Part, val: Part, kind: Kind) -> Iterator[str]:
    """For the reader, as the examples are opened.

    For instance::

        12,120 examples to train with, 252 held out
        sources: half up to 210 tokens, 9 of 10 up to 480, 99 of 100 up to 1,020, the longest 3,411
        sources: 812 (6.6 %) were cut to 512 tokens (data.max_length), which lost 5.1 % of all
    """
    yield f"{things(len(train), 'example')} to train with, {len(val):,} held out"
    for store in _stores(train, val):
        meta = store.meta
        where = "" if store is train.store else "held out: "
        for name, side in _sides(meta, kind):
            yield where + f"{name}: {_lengths(side)}"
            if side.cut:
                key = "data.max_target_length" if name == "targets" else "data.max_length"
                yield where + (
                    f"{name}: {side.cut:,} ({side.cut / meta.examples:.1%}) were cut to {side.limit:,} tokens ({key}), "
                    f"which lost {side.lost / (side.tokens + side.lost):.1%} of all"
                )
        if meta.empty:
            yield where + f"{things(meta.empty, 'row')} of {meta.rows:,} left out: a text is null or empty"
        if meta.short:
            yield (where + f"{things(meta.short, 'text')} of {meta.rows:,} left out: one token, and nothing after it")
        if meta.repeated:
            what = "source" if kind == "pairs" else "text"
            yield where + f"{things(meta.repeated, 'example')} repeat a {what} that came before"
        if meta.replaced:
            yield where + f"{things(meta.replaced, 'example')} had bytes that are not UTF-8, which became U+FFFD"
    if val.store is not train.store:  # of one store the split keeps equal sources on one side
        learnt, seen = train.store.digests[train.numbers], val.store.digests[val.numbers]
        if both := int(np.isin(seen, learnt).sum()):
            what = "source" if kind == "pairs" else "text"
            yield (
                f"! held out: {both:,} of {things(len(val), 'example')} ({both / len(val):.0%}) have a {what} that is "
                "learnt from, too: of these the held-out loss says nothing of new ones"
            )


def described(train: Part, val: Part, kind: Kind, batches: ExampleBatches, config: Config) -> dict[str, Any]:
    """The same and the shapes of batches, for ``plan.json``."""
    size = config.train.micro_batch_size
    rows = batches.sequences if size == "auto" else size
    layout = batches.layout
    shapes = {"source": layout.source_edges, "target": layout.target_edges} if layout.batching == "buckets" else None
    return {
        "kind": kind,
        "examples": len(train),
        "val_examples": len(val),
        "tokens": int(train.tokens.sum(dtype="int64")),
        "targets": int(train.learnt.sum(dtype="int64")),
        "steps_per_epoch": batches.steps_per_epoch,
        "batching": layout.batching,
        "largest_row": {"source": layout.largest[0], "target": layout.largest[1]},
        **({"padded_to": {side: list(edges) for side, edges in shapes.items()}} if shapes else {}),
        "padding": {"share": round(batches.padding(rows), 4), "rows_at_once": rows},
        "texts": {
            name if store is train.store else f"held-out {name}": side.model_dump()
            for store in _stores(train, val)
            for name, side in _sides(store.meta, kind)
        },
        "left_out": sum(store.meta.empty + store.meta.short for store in _stores(train, val)),
        "repeated": sum(store.meta.repeated for store in _stores(train, val)),
    }


def _stores(train: Part, val: Part) -> list[Store]:
    return [train.store] if train.store is val.store else [train.store, val.store]


def _sides(meta: Meta, kind: Kind) -> list[tuple[str, Told]]:
    if kind == "texts":
        return [("texts", meta.sides["target"])]
    return [("sources", meta.sides["source"]), ("targets", meta.sides["target"])]


def _lengths(side: Told) -> str:
    half, most, nearly = (side.percentiles[p] for p in ("50", "90", "99"))
    return (
        f"half up to {things(half, 'token')}, 9 of 10 up to {most:,}, 99 of 100 up to {nearly:,}, "
        f"the longest {side.longest:,}"
    )
