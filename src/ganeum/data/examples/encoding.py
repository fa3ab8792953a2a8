"""Text → ids without the tokens around it, by whichever library; light enough that a worker starts at once.

Of a fast tokenizer of transformers' a worker needs only the ``tokenizers`` library and the description: it never
imports transformers or torch, which take seconds and hundreds of megabytes in each process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ganeum.data.tokenizer import load_tokenizer


class Encoder(Protocol):
    """A tokenizer that can be sent to another process."""

    def start(self) -> None:
        """Once in each process, before ``encode``."""
        ...

    def encode(self, texts: Sequence[str]) -> list[Sequence[int]]:
        """The ids of each text (valid Unicode), nothing added or cut."""
        ...

    def digest(self) -> str:
        """What tells it from any other."""
        ...


@dataclass
class Fast:
    """A ``tokenizer.json``, run by the ``tokenizers`` library. ``description``: its content."""

    description: str

    def start(self) -> None:
        import tokenizers

        self._fast = tokenizers.Tokenizer.from_str(self.description)
        self._fast.no_truncation()
        self._fast.no_padding()

    def encode(self, texts: Sequence[str]) -> list[Sequence[int]]:
        return [found.ids for found in self._fast.encode_batch_fast(list(texts), add_special_tokens=False)]

    def digest(self) -> str:
        return hashlib.sha256(self.description.encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {"description": self.description}


@dataclass
class Slow:
    """A tokenizer of transformers' that is written in Python, saved in ``directory``."""

    directory: Path
    trust_remote_code: bool = False

    def start(self) -> None:
        from transformers import AutoTokenizer

        self._slow = AutoTokenizer.from_pretrained(self.directory, trust_remote_code=self.trust_remote_code)

    def encode(self, texts: Sequence[str]) -> list[Sequence[int]]:
        found: list[Sequence[int]] = self._slow(list(texts), add_special_tokens=False)["input_ids"]
        return found

    def digest(self) -> str:
        return _of_files(self.directory)

    def __getstate__(self) -> dict[str, Any]:
        return {"directory": self.directory, "trust_remote_code": self.trust_remote_code}


@dataclass
class Ours:
    """A tokenizer that ``load_tokenizer`` reads, in ``place``."""

    place: Path

    def start(self) -> None:
        self._tokenizer = load_tokenizer(self.place)

    def encode(self, texts: Sequence[str]) -> list[Sequence[int]]:
        return [self._tokenizer.encode_array(text).tolist() for text in texts]

    def digest(self) -> str:
        return _of_files(self.place)

    def __getstate__(self) -> dict[str, Any]:
        return {"place": self.place}


def one_thread() -> None:
    """Before ``start`` in a worker: its library leaves the other cores to the other workers."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _of_files(place: Path) -> str:
    files = sorted(path for path in place.rglob("*") if path.is_file()) if place.is_dir() else [place]
    contents = [(str(file.relative_to(place)), hashlib.sha256(file.read_bytes()).hexdigest()) for file in files]
    return hashlib.sha256(repr(contents).encode()).hexdigest()
