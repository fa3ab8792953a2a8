"""A corpus small enough to train on in a second, bytes of made-up sentences, and runs on it."""

from __future__ import annotations

import hashlib
import json
import random
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from ganeum.config import load
from ganeum.data.tokenizer import Bytes
from ganeum.train.run import train

WORDS = [
    "the",
    "a",
    "small",
    "large",
    "cat",
    "dog",
    "house",
    "tree",
    "sees",
    "finds",
    "likes",
    "under",
    "over",
    "and",
    "then",
    "it",
    "was",
]


def text(words: int, seed: int) -> str:
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + draw.choice(["", "", ".", "\n"]) for _ in range(words))


def write(directory: Path, *, train_words: int = 4_000, val_words: int = 500) -> Path:
    """train.bin, val.bin (none with 0 words), meta.json and tokenizer/ as `prepare` leaves them."""
    directory.mkdir(parents=True)
    tokenizer = Bytes()
    tokenizer.save(directory / "tokenizer")
    parts: dict[str, dict[str, object] | None] = {"val": None}
    for name, words in (("train", train_words), ("val", val_words)):
        if words:
            ids = tokenizer.encode_array(text(words, seed=words)).astype("<u2")
            ids.tofile(directory / f"{name}.bin")
            digest = hashlib.sha256(ids.tobytes()).hexdigest()
            parts[name] = {"tokens": len(ids), "bytes": len(ids), "documents": 1, "sha256": digest}
    split = {"rule": "given", "val_share": 0.0, "seed": 0, "separator": None, "held_out": None}
    meta = {
        "ganeum_version": "0.1.0",
        "tokenizer": "bytes",
        "vocab_size": 257,
        "dtype": "uint16",
        "split": split,
        "sources": [],
        "replaced_bytes": 0,
        "skipped_files": 0,
        "fingerprint": "",
        **parts,
    }
    (directory / "meta.json").write_text(json.dumps(meta))
    assert np.fromfile(directory / "train.bin", "<u2").max() < 257
    return directory


def config(directory: Path, path: Path, *lines: str) -> Path:
    """A YAML file for a model of 2 blocks × 32 on that corpus: 20 steps, a checkpoint every 4."""
    path.write_text(
        "model: {n_layer: 2, n_head: 2, n_embd: 32, block_size: 32, dropout: 0.1}\n"
        f"data: {{directory: {json.dumps(str(directory))}}}\n"
        "train: {batch_size: 8, micro_batch_size: 4, max_iters: 20, eval_interval: 5, checkpoint_interval: 4,\n"
        "        eval_tokens: 512, learning_rate: 3e-3, precision: fp32, compile: false}\n"
        "sample: {interval: 10, max_new_tokens: 16}\n"
        "log: {interval: 2}\n"
        "device: cpu\n" + "".join(line + "\n" for line in lines)
    )
    return path


def go(yaml: Path, *overrides: str) -> tuple[dict[str, Any], str]:
    """Trains → the summary, and what was shown."""
    stream = StringIO()
    return train(load(yaml, overrides), stream=stream), stream.getvalue()


def metrics(name: str) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in Path(f"results/{name}/logs/metrics.jsonl").read_text().splitlines()]
