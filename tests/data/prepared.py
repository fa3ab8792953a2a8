"""What the tests of preparation share: a small library of documents, prepared, and what came of it."""

import hashlib
import random
from pathlib import Path
from typing import Any

import numpy as np

from ganeum.data.files import Source
from ganeum.data.prepare import Preparation, Prepared, prepare

PRODUCTS = ["meta.json", "tokenizer", "train.bin", "val.bin"]


def made(tmp_path: Path, *sources: Source, **options: Any) -> Prepared:
    return prepare(Preparation(sources=sources or (Source(tmp_path / "in"),), out=tmp_path / "out", **options))


def files(tmp_path: Path, **contents: str | bytes) -> None:
    for name, content in contents.items():
        path = tmp_path / "in" / f"{name}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def tokens(path: Path, dtype: str = "<u2") -> list[int]:
    return [int(token) for token in np.fromfile(path, dtype)]


def library(tmp_path: Path, n: int = 40) -> None:
    """Documents of words drawn by a seed, some longer than others."""
    draw = random.Random(0)
    words = ["the", "a", "gauge", "sight", "run", "model", "loss", "step", "가늠", "토큰", "naïve"]
    for i in range(n):
        text = "".join(draw.choice(words) + draw.choice("  \n") for _ in range(draw.randrange(5, 3000)))
        files(tmp_path, **{f"doc{i:03}": text})


def digests(directory: Path) -> dict[str, str]:
    found = [path for path in directory.rglob("*") if path.is_file() and path.name != "meta.json"]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}
