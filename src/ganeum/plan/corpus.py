"""What a plan needs to know of the data: how many tokens, and of how many kinds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ganeum.data.meta import Meta


@dataclass(frozen=True)
class CorpusSize:
    """``tokens`` in ``train.bin``, the vocabulary's size, and ``val_tokens`` in ``val.bin``, 0 without one."""

    tokens: int
    vocab_size: int
    val_tokens: int = 0


def size_of(directory: str | Path) -> CorpusSize | None:
    """The sizes that the prepared data in ``directory`` has, or None where nothing is prepared yet.

    ``meta.json`` is believed here and checked when training opens the data; nanoGPT's files are opened and scanned.

    Raises:
        DataError: there is something, but it is damaged or half-prepared.
    """
    directory = Path(directory)
    meta = Meta.read(directory)
    if meta is not None:
        return CorpusSize(meta.train.tokens, meta.vocab_size, meta.val.tokens if meta.val else 0)
    if not (directory / "train.bin").exists():
        return None
    from ganeum.data.corpus import open_corpus

    corpus = open_corpus(directory)
    return CorpusSize(len(corpus.train), corpus.vocab_size, 0 if corpus.val is None else len(corpus.val))
