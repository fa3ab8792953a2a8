"""The examples of a run: opened by what its config says, as tokens to train with and tokens held out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ganeum.config.change import change
from ganeum.config.schema import Config, Files
from ganeum.config.trust import trusted
from ganeum.data.examples import known, report
from ganeum.data.examples.batching import ExampleBatches, ExampleWhole, Layout, Part, held_out
from ganeum.data.examples.build import stored
from ganeum.data.examples.collate import Causal, Collate, Seq2Seq
from ganeum.data.examples.fields import Kind, fields_of
from ganeum.data.examples.jobs import Recipe
from ganeum.data.examples.model import Learner, learner
from ganeum.data.examples.sources import files_of
from ganeum.data.examples.split import split
from ganeum.data.examples.store import Store
from ganeum.data.examples.tokenizer import Around, ExampleTokenizer, open_tokenizer
from ganeum.errors import DataError
from ganeum.units import things


@dataclass(frozen=True)
class Reference:
    """A held-out pair to be generated again: the source as the model takes it, and both texts."""

    source_ids: list[int]
    source: str
    target: str


@dataclass(frozen=True)
class Examples:
    """What a model of ``model.source`` learns from.

    Attributes:
        kind: pairs or texts.
        learner: what is known of the model.
        tokenizer: of its texts.
        train: the examples to train with.
        val: those held out.
        layout: how rows are made of them.
        collate: makes batches of rows.
        identity: what tells these examples from others: a run goes on with the same only.
    """

    kind: Kind
    learner: Learner
    tokenizer: ExampleTokenizer
    train: Part
    val: Part
    layout: Layout
    collate: Collate
    identity: dict[str, str]
    _batches: dict[tuple[int, int | None, int, str], ExampleBatches] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def encoder_decoder(self) -> bool:
        """Whether sources and targets go into two stacks."""
        return self.learner.encoder_decoder

    @property
    def vocab_size(self) -> int:
        """One more than the largest id there is."""
        return 1 + max(part.store.meta.largest_id for part in (self.train, self.val))

    def batches(self, config: Config) -> ExampleBatches:
        """The training batches of a run with these examples; who asks again gets the same, its epoch worked out."""
        size, tokens, seed = config.train.batch_size, config.train.batch_tokens, config.seed
        made = self._batches.get((size, tokens, seed, config.device))
        if made is None:
            layout = self.layout.on(config.device)
            made = ExampleBatches(self.train, layout, self.collate, batch_size=size, batch_tokens=tokens, seed=seed)
            self._batches.clear()
            self._batches[size, tokens, seed, config.device] = made
        return made

    def validation(self, config: Config) -> tuple[ExampleWhole, int]:
        """The fixed held-out examples, and how many bytes of UTF-8 their targets stand for."""
        whole = held_out(self.val, self.layout.on(config.device), self.collate, config.train.eval_tokens)
        targets = (self.val.ids("target", place) for row in whole.rows for place in row)
        return whole, sum(len(self.tokenizer.decode(ids).encode("utf-8", "replace")) for ids in targets)

    def references(self, count: int) -> list[Reference]:
        """Held-out examples, spread evenly; of a single text the first half is its source."""
        count = min(count, len(self.val))
        found = []
        for place in (i * len(self.val) // count for i in range(count)):
            source, target = (self.val.ids(side, place).tolist() for side in ("source", "target"))
            if self.kind == "texts":
                source, target = target[: (len(target) + 1) // 2], target[(len(target) + 1) // 2 :]
            found.append(Reference(source, self.tokenizer.decode(source), self.tokenizer.decode(target)))
        return found

    def describe(self, config: Config) -> dict[str, Any]:
        """What plan.json says of them under ``data``."""
        return report.described(self.train, self.val, self.kind, self.batches(config), config) | {
            "identity": self.identity
        }


def open_examples(
    config: Config,
    say: Callable[[str], None] = print,
    *,
    workers: int | None = None,
) -> Examples:
    """The examples that ``data.train`` and ``data.val`` name, for the model of ``model.source``.

    They are tokenised into ganeum's cache the first time, on every core, and from then on read where they lie. Python
    that a tokenizer or a config brings along is run only inside ``trusting()``.

    Args:
        config: with ``model.source`` and ``data.train``.
        say: takes a line for the reader.
        workers: processes that tokenise; None: one a core.

    Raises:
        DataError: they cannot be read, or there are none, or they do not fit the model.
        MissingExtra: transformers or what reads a file is not installed.
    """
    data, source = config.data, config.model.source
    assert source is not None, "examples are for a model of model.source"
    if data.train is None:
        raise DataError(
            "nothing says what to learn from",
            where="data.train",
            suggestion="data.train: a file of examples, a directory of them, or a data set's name",
        )
    files = files_of(data.train, "train")
    model = learner(source, trust_remote_code=trusted())
    fields = fields_of(data, files[0], pairs_only=model.encoder_decoder)
    place, key = (source, "model.source") if data.tokenizer is None else (data.tokenizer, "data.tokenizer")
    tokenizer = open_tokenizer(_directory(place), key=key, trust_remote_code=trusted())
    pairs = len(fields.names) == 2
    recipe = Recipe(
        fields=fields,
        prefix=data.prefix if pairs else "",
        **_around(tokenizer, pairs=pairs, causal=not model.encoder_decoder),
        max_source=data.max_length if pairs else 0,
        max_target=data.max_target_length if pairs else data.max_length,
        end_stays=pairs,
        side=tokenizer.side,
        typecode="H" if tokenizer.vocab_size <= 2**16 else "I",
    )
    _refuse_too_short(recipe, pairs)
    store = stored(files, recipe, tokenizer.encoder, tokenizer.identity(), say, workers)
    _refuse_empty(store, data.train)
    stores, identity = [store], {"train": store.directory.name}
    if data.val is None:
        numbers = split(store.digests, data.val_share, data.split_seed)
        identity["val"] = f"{data.val_share:g} of train by seed {data.split_seed}"
    else:
        val = stored(files_of(data.val, "val"), recipe, tokenizer.encoder, tokenizer.identity(), say, workers)
        _refuse_empty(val, data.val)
        stores.append(val)
        numbers = np.arange(len(store)), np.arange(len(val))
        identity["val"] = val.directory.name
    numbers = numbers[0][: data.max_examples], numbers[1]
    _refuse_beyond(stores, model, place)
    causal = not model.encoder_decoder
    parts = [Part.of(some, which, causal=causal) for some, which in zip((store, stores[-1]), numbers, strict=True)]
    limits = (0, recipe.max_source + recipe.max_target) if causal else (recipe.max_source, recipe.max_target)
    if model.positions is not None:
        _refuse_long(parts, model.positions, source, pairs=pairs, causal=causal)
        limits = min(limits[0], model.positions), min(limits[1], model.positions)
    batching = data.batching
    if batching == "auto":
        batching = "packed" if max(limits) <= model.packs else "buckets"
    examples = Examples(
        kind="pairs" if pairs else "texts",
        learner=model,
        tokenizer=tokenizer,
        train=parts[0],
        val=parts[1],
        layout=Layout.of(batching, parts, limits),
        collate=Causal(tokenizer.pad) if causal else Seq2Seq(tokenizer.pad, model.start),
        identity=identity,
    )
    for line in report.lines(examples.train, examples.val, examples.kind):
        say(line)
    for way in {data.batching, batching}:  # a run's config will say what `auto` became
        known.note(change(config, {"data.batching": way}), examples.describe(config))
    return examples


def _directory(place: str) -> str:
    """Where the tokenizer lies: beside a ``config.json``, or below prepared data."""
    path = Path(place)
    if path.is_file() and path.name == "config.json":
        return str(path.parent)
    return str(path / "tokenizer") if (path / "tokenizer" / "ganeum.json").is_file() else place


def _around(tokenizer: ExampleTokenizer, *, pairs: bool, causal: bool) -> dict[str, Around]:
    """What stands around sources and targets; where both make one row, nothing between them."""
    if pairs and causal:
        return {"source": Around(tokenizer.source.before, ()), "target": Around((), tokenizer.target.after)}
    return {"source": tokenizer.source, "target": tokenizer.target}


def _refuse_too_short(recipe: Recipe, pairs: bool) -> None:
    source, target = (recipe.max_source, recipe.source), (recipe.max_target, recipe.target)
    lengths = {"data.max_length": source, "data.max_target_length": target} if pairs else {"data.max_length": target}
    for key, (most, around) in lengths.items():
        if most <= around.count:
            raise DataError(
                f"{key}: {most} leaves no room for a text",
                where=key,
                why=f"the tokenizer sets {things(around.count, 'token')} around every text",
                suggestion=f"{key}: 128, say",
            )


def _refuse_empty(store: Store, names: Files) -> None:
    if len(store):
        return
    rows, empty, short = store.meta.rows, store.meta.empty, store.meta.short
    if not rows:
        raise DataError(
            f"there are no rows in {names if isinstance(names, str) else ', '.join(names)}",
            why="nothing stands in what is read, or only blank lines, or a list of nothing: []",
            suggestion='a JSON line for each example, {"text": "…"} or {"source": "…", "target": "…"}, say',
        )
    raise DataError(
        f"there are no examples in {names if isinstance(names, str) else ', '.join(names)}",
        why=f"of {things(rows, 'row')}, {empty:,} have a text that is null or empty, and {short:,} only one token",
        suggestion="other columns (data.source_column, data.target_column, data.text_column), or other files",
    )


def _refuse_long(parts: list[Part], positions: int, source: str, *, pairs: bool, causal: bool) -> None:
    """A row behind the last position would be an index that is not there, or a place that the model never saw."""
    longest = max(int(lengths.max()) for part in parts for lengths in (part.sources, part.targets))
    if longest <= positions:
        return
    both = pairs and causal
    raise DataError(
        f"an example takes {longest:,} places, and {source} knows {positions:,} positions",
        where="data.max_length" + (" and data.max_target_length" if pairs else ""),
        why="a pair is one row, its target behind its source" if both else "longer ones are cut to what these keys say",
        suggestion=f"both together at most {positions:,}" if both else f"at most {positions:,}",
    )


def _refuse_beyond(stores: list[Store], model: Learner, tokenizer: str) -> None:
    largest = max(store.meta.largest_id for store in stores)
    if largest >= model.vocab_size:
        raise DataError(
            f"token {largest:,} is beyond the model's vocabulary of {model.vocab_size:,}",
            where=f"the tokenizer {tokenizer}",
            why="it is the tokenizer of another model",
            suggestion="data.tokenizer: the one that belongs to model.source",
        )
