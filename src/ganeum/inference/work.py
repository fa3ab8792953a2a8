"""The work: rows in windows, each window sorted by length and cut into batches, written out in the input's order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from ganeum.errors import RunError
from ganeum.inference.decoding import Decoding
from ganeum.inference.output import Output
from ganeum.inference.rows import Row, column_of, text_of
from ganeum.inference.sizes import Sizes
from ganeum.inference.writer import Writer
from ganeum.train.out_of_memory import Full, attempt
from ganeum.units import things

BATCHES = 16  # in a window: so many are sorted together, and so much is lost when the process dies


@dataclass
class Done:
    """What was done in this process.

    Attributes:
        rows: written now; ``kept``: there before.
        tokens: new ones, those that end a text not counted.
        empty: texts that the model ended before their first token.
        places, padding: of the prompts' batches, and how many of them held nothing.
        largest: the most rows at once.
        cut: prompts that were too long.
        halved: rows at once that memory ran out with.
    """

    rows: int = 0
    kept: int = 0
    tokens: int = 0
    empty: int = 0
    places: int = 0
    padding: int = 0
    largest: int = 0
    cut: int = 0
    seconds: float = 0.0
    halved: list[int] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For a program."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "new_tokens": self.tokens,
            "empty": self.empty,
            "seconds": round(self.seconds, 3),
            "rows_per_second": self.rows / self.seconds if self.rows else None,
            "tokens_per_second": self.tokens / self.seconds if self.rows else None,
            "padding": self.padding / self.places if self.places else 0.0,
            "largest_batch": self.largest,
            "cut": self.cut,
            "out_of_memory": self.halved,
        }


def write_all(
    writer: Writer,
    rows: Iterable[Row],
    output: Output,
    *,
    name: str,
    column: str | None,
    decoding: Decoding,
    sizes: Sizes,
    say: Callable[[str], None],
    progress: Callable[[Done], None],
) -> Done:
    """Writes a text for every row that ``output`` does not have yet.

    Args:
        name: of the input, for errors.
        column: see :func:`ganeum.inference.rows.column_of`.
        say: told what the user should know.
        progress: called after every batch.
    Raises:
        DataError: a row cannot be used; what is written before it stays.
        RunError: not even one row fits into memory.
    """
    done, began = Done(), time.monotonic()

    def tell() -> None:
        done.seconds, done.cut = time.monotonic() - began, writer.cut
        progress(done)

    for window in _windows(_new(rows, output, done), BATCHES * sizes.of(writer.longest)):
        column = column_of(window[0][1], column, writer.prompts.columns)
        texts = [text_of(row, column, number, name) for number, row in window]
        prompts = writer.encode(texts)
        written: list[str] = [""] * len(window)
        waiting = sorted(range(len(window)), key=lambda i: -len(prompts[i]))  # what does not fit is found out at once
        while waiting:
            size = sizes.of(len(prompts[waiting[0]]))
            batch, waiting = waiting[:size], waiting[size:]
            new = _attempt(writer, [prompts[i] for i in batch], [window[i][0] for i in batch], decoding)
            if isinstance(new, Full):
                waiting = batch + waiting
                _halve(new, len(batch), sizes, done, len(prompts[batch[0]]), decoding, say)
                continue
            for i, tokens in zip(batch, new, strict=True):
                written[i] = writer.decode(tokens)
                done.tokens += len(tokens)
                done.empty += not tokens
            lengths = [len(prompts[i]) for i in batch]
            done.places += len(batch) * max(lengths)
            done.padding += len(batch) * max(lengths) - sum(lengths)
            done.largest = max(done.largest, len(batch))
            done.rows += len(batch)
            tell()
        output.write([row for _, row in window], written)
    tell()
    return done


def _new(rows: Iterable[Row], output: Output, done: Done) -> Iterator[tuple[int, Row]]:
    """The rows that are not written yet, with their numbers."""
    number = -1
    for number, row in enumerate(rows):
        output.check(row, number)
        if output.has(row, number):
            done.kept += 1
        else:
            yield number, row
    if number + 1 < output.kept:
        raise RunError(
            f"{output.name} has {things(output.kept, 'row')}, but the input only {number + 1:,}",
            why="the input is not the one that the output was begun with",
            suggestion="another --output, or --overwrite to begin again",
        )


def _windows(rows: Iterator[tuple[int, Row]], size: int) -> Iterator[list[tuple[int, Row]]]:
    while window := list(islice(rows, size)):
        yield window


def _attempt(
    writer: Writer, prompts: Sequence[list[int]], numbers: Sequence[int], decoding: Decoding
) -> list[list[int]] | Full:
    noise = decoding.noise(numbers) if decoding.temperature > 0 else None
    return attempt(lambda: writer.write(prompts, noise, decoding), lambda: "sample")


def _halve(
    full: Full, size: int, sizes: Sizes, done: Done, prompt: int, decoding: Decoding, say: Callable[[str], None]
) -> None:
    if size == 1:
        raise RunError(
            f"one row of {prompt:,} tokens with {decoding.max_new_tokens:,} new ones does not fit into memory",
            why=full.said,
            suggestion="--max-length for shorter prompts, fewer --max-new-tokens or --num-beams, or --precision bf16",
        )
    done.halved.append(size)
    say(f"Out of memory with {size:,} rows at once ({full.said}). From here on {sizes.ran_out(size):,}.")
