"""nanoGPT's ``meta.pkl``, read without executing anything."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

from ganeum.data.tokenizer import Characters
from ganeum.errors import DataError

LARGEST_BYTES = 64 * 2**20


class _PlainOnly(pickle.Unpickler):
    """A pickle can call whatever it can name; here it can name nothing, so only dict, list, str, int, … come out."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; only plain containers, text and numbers are read")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def read_meta(path: Path) -> tuple[int, Characters | None]:
    """Vocabulary size, and the characters where the vocabulary is one character an id.

    Raises:
        DataError: it is no pickle of plain containers with ``vocab_size`` in it.
    """
    try:
        if path.stat().st_size > LARGEST_BYTES:
            raise pickle.UnpicklingError(f"it is larger than {LARGEST_BYTES:,} bytes")
        content = _PlainOnly(io.BytesIO(path.read_bytes())).load()
        vocab_size = content["vocab_size"]
        if not isinstance(vocab_size, int) or vocab_size < 1:
            raise ValueError(f"vocab_size is {vocab_size!r}")
    except Exception as error:  # a damaged pickle raises nearly anything
        raise DataError(
            "meta.pkl cannot be read",
            where=str(path),
            why=f"{type(error).__name__}: {error}",
            suggestion="remove it (GPT-2's vocabulary is then assumed, as nanoGPT does), or prepare the data again",
        ) from error
    return vocab_size, _characters(content, vocab_size)


def _characters(content: dict[str, Any], vocab_size: int) -> Characters | None:
    letters = content.get("itos")
    if not isinstance(letters, dict) or sorted(letters) != list(range(vocab_size)):
        return None
    if not all(isinstance(letter, str) and len(letter) == 1 for letter in letters.values()):
        return None
    text = "".join(letters[id] for id in range(vocab_size))
    return Characters(text, end_of_text=False) if len(set(text)) == vocab_size else None
