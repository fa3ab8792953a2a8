"""What a run learns from, a text's tokens or examples: its batches, what is held out, and how much there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ganeum import record
from ganeum.config import Config
from ganeum.config.change import change
from ganeum.data.batch import Whole, WindowBatch
from ganeum.data.batches import Batches as Windows
from ganeum.data.batches import validation_windows
from ganeum.data.corpus import Corpus, open_corpus
from ganeum.data.corpus import identity as identity_of
from ganeum.data.tokenizer import Tokenizer
from ganeum.models.theirs import SHAPE
from ganeum.plan.lengths import Lengths, lengths
from ganeum.record import RunDirectory
from ganeum.train.evaluate import ValidationSet

if TYPE_CHECKING:
    from ganeum.data.examples.examples import Examples, Reference


class Batches(Protocol):
    """The batches of a run, each a pure function of its seed and the step."""

    @property
    def steps_per_epoch(self) -> int | None:
        """None: the order knows no epochs."""
        ...

    def whole(self, step: int) -> Whole:
        """What the update after ``step`` completed ones learns from."""
        ...

    def trace(self, step: int) -> tuple[dict[str, Tensor], str]:
        """The same as tensors for a file, with where they came from; and in words what they are."""
        ...


class Material(Protocol):
    """What training asks of its data."""

    vocab_size: int
    tokenizer: Any  # encodes, decodes and saves itself; None where nothing says what the ids stand for

    @property
    def identity(self) -> dict[str, str]:
        """What tells these data from others: a run goes on with the same only."""
        ...

    def batches(self, config: Config) -> Batches: ...

    def longest(self, config: Config) -> Whole:
        """A batch that needs no less memory than any other of the run."""
        ...

    def validation(self, config: Config) -> ValidationSet | None:
        """What is held out; None where nothing is."""
        ...

    def lengths(self, config: Config) -> Lengths: ...

    def for_plan(self, config: Config) -> dict[str, Any]:
        """Keyword arguments of :func:`ganeum.plan.closed_form.plan`: how much there is."""
        ...

    def references(self, count: int) -> Sequence[Reference]:
        """Held-out examples to be generated again; none of a text that is only tokens."""
        ...


def open_material(config: Config, say: Callable[[str], None]) -> Material:
    """The prepared text of ``data.directory``, or with ``model.source`` the examples of ``data.train``.

    Args:
        say: takes a line for the reader, while examples become tokens.

    Raises:
        DataError: they cannot be read, or there are too few.
    """
    if config.model.source is None:
        return Text(open_corpus(config.data.directory, config.model.block_size))
    from ganeum.data.examples.examples import open_examples

    return Exampled(open_examples(config, say))


def material_of(config: Config, stored: Config | None, say: Callable[[str], None]) -> Material:
    """The same for a run that may exist already, then with the config ``stored``.

    One that adopted a model goes on with the shape and the tokenizer that it keeps, and needs its source no more;
    another config than its own is refused before anything becomes tokens.

    Raises:
        RunError: it began with another config.
    """
    if stored is None or stored.model.source is None:
        return open_material(config, say)
    record.check(config)
    run = RunDirectory(record.results_dir() / str(config.name))
    kept = {"model.source": run.path / SHAPE, "data.tokenizer": run.tokenizer_dir}
    there = {key: str(path) for key, path in kept.items() if path.is_dir()}
    return open_material(change(config, {**there, "data.batching": stored.data.batching}), say)


class Exampled:
    """Examples: pairs or single texts, as tokens in ganeum's cache."""

    def __init__(self, examples: Examples) -> None:
        self.examples, self.vocab_size, self.tokenizer = examples, examples.vocab_size, examples.tokenizer
        self.identity = examples.identity

    def batches(self, config: Config) -> Batches:
        return self.examples.batches(config)

    def longest(self, config: Config) -> Whole:
        return self.examples.batches(config).longest()

    def validation(self, config: Config) -> ValidationSet | None:
        """The same held-out examples every time."""
        whole, size = self.examples.validation(config)
        return ValidationSet(whole, size)

    def lengths(self, config: Config) -> Lengths:
        tokens = int(self.examples.train.tokens.sum(dtype="int64"))
        return lengths(config, tokens, steps_per_epoch=self.examples.batches(config).steps_per_epoch)

    def for_plan(self, config: Config) -> dict[str, Any]:
        described = self.examples.describe(config)
        told = {key: value for key, value in described.items() if key not in ("tokens", "steps_per_epoch")}
        return {"tokens": described["tokens"], "steps_per_epoch": described["steps_per_epoch"], "data": told}

    def references(self, count: int) -> Sequence[Reference]:
        return self.examples.references(count)


class Text:
    """A prepared corpus: windows of tokens, each target counting."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus, self.vocab_size = corpus, corpus.vocab_size
        self.tokenizer: Tokenizer | None = corpus.tokenizer

    @property
    def identity(self) -> dict[str, str]:
        return identity_of(self.corpus)

    def batches(self, config: Config) -> TextBatches:
        tokens, size = self.corpus.train, config.train.batch_size
        return TextBatches(Windows(tokens, config.data, config.model.block_size, size, config.seed))

    def longest(self, config: Config) -> Whole:
        return self.batches(config).whole(0)  # every window is block_size long

    def validation(self, config: Config) -> ValidationSet | None:
        """The fixed windows of val.bin; None where there is no val.bin."""
        if self.corpus.val is None:
            return None
        x, y = validation_windows(self.corpus.val, config.model.block_size, config.train.eval_tokens)
        if self.tokenizer is None:
            return ValidationSet(WindowBatch(x, y), None)
        byte_lengths = torch.from_numpy(self.tokenizer.byte_lengths()).long()  # (V,)
        return ValidationSet(WindowBatch(x, y), int(byte_lengths[y].sum()))

    def lengths(self, config: Config) -> Lengths:
        return lengths(config, len(self.corpus.train))

    def for_plan(self, config: Config) -> dict[str, Any]:
        val = self.corpus.val
        return {"tokens": len(self.corpus.train), "val_tokens": None if val is None else len(val)}

    def references(self, count: int) -> Sequence[Reference]:
        return ()


@dataclass(frozen=True)
class TextBatches:
    """Windows of a text as wholes."""

    windows: Windows

    @property
    def steps_per_epoch(self) -> int | None:
        return self.windows.steps_per_epoch if self.windows.order == "epochs" else None

    def whole(self, step: int) -> WindowBatch:
        return WindowBatch(*self.windows.batch(step))

    def trace(self, step: int) -> tuple[dict[str, Tensor], str]:
        x, y = self.windows.batch(step)
        offsets = torch.from_numpy(self.windows.offsets(step))
        return {"x": x, "y": y, "offsets": offsets}, "tokens x, targets y, their offsets in train.bin"
