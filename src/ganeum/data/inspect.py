"""What a text becomes: its ids, each with its text, and a window of the corpus beside its target."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.data.corpus import Corpus
from ganeum.data.tokenizer import Tokenizer


@dataclass(frozen=True)
class Inspection:
    """A text as the model sees it.

    Attributes:
        text: it. characters: its length.
        ids: its tokens. pieces: the text of each.
        file_tokens: tokens in ``train.bin``; None without a corpus, and so are the next two.
        input, target: the first window of ``train.bin``, and the same shifted by one token, decoded.
    """

    text: str
    characters: int
    ids: list[int]
    pieces: list[str]
    file_tokens: int | None = None
    input: str | None = None
    target: str | None = None

    def lines(self) -> list[str]:
        """As document 000's script prints it."""
        shown = [f"characters: {self.characters:,}, tokens: {len(self.ids):,}", str(self.ids), self.text]
        shown += [f"{id:<8} -> {_on_one_line(piece)}" for id, piece in zip(self.ids, self.pieces, strict=True)]
        if self.file_tokens is not None:
            shown += ["", f"# of tokens in train.bin: {self.file_tokens:,}", ""]
            shown += [f"input   {_on_one_line(self.input or '')}", f"target  {_on_one_line(self.target or '')}"]
        return shown


def inspect(text: str, tokenizer: Tokenizer, corpus: Corpus | None = None, block_size: int = 32) -> Inspection:
    """What ``text`` becomes, and the first window of ``corpus``.

    Args:
        text: any.
        tokenizer: the corpus's own, if there is one.
        corpus: prepared data.
        block_size: tokens shown of it, fewer if it has fewer.

    Raises:
        DataError: a character that the vocabulary lacks.
    """
    ids = tokenizer.encode(text)
    found = Inspection(text, len(text), ids, [tokenizer.decode([id]) for id in ids])
    if corpus is None:
        return found
    window = corpus.train[: block_size + 1].tolist()
    return Inspection(
        text,
        len(text),
        ids,
        found.pieces,
        len(corpus.train),
        tokenizer.decode(window[:-1]),
        tokenizer.decode(window[1:]),
    )


def _on_one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
