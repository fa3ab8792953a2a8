"""What contradicts `model.source`, or says nothing without it: the network's shape, examples, batches of tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ganeum.config.keys import keys, value_of
from ganeum.config.schema import Config
from ganeum.config.source import Place
from ganeum.errors import ConfigError

OURS = frozenset({"data.directory", "data.order", "data.stride"})  # of data, what a GPT of ours learns from
ANY = frozenset({"model.source", "model.fresh", "model.dropout"})  # of model, what somebody else's may have set too
EXAMPLES = tuple(key for key in keys() if key.startswith("data.") and key not in OURS)
SHAPE = tuple(key for key in keys() if key.startswith("model.") and key not in ANY)


def check(
    config: Config, places: Mapping[str, Place], at: Callable[..., str], right: Callable[..., bool]
) -> Iterator[ConfigError]:
    """Every contradiction of `config` that is about examples; the arguments are those of `checks.contradictions`."""
    if not right("model.source"):
        return
    if config.model.source is None:
        yield from _without(config, at, right)
    else:
        yield from _with(config, at, right)
        yield from _batch(config, places, at, right)
        yield from _columns(config, places, at, right)


def _set(config: Config, names: tuple[str, ...], right: Callable[..., bool]) -> list[str]:
    """Those that are not at their default: a file with every key at its default, like base.yaml, says nothing."""
    return [name for name in names if right(name) and value_of(config, name) != keys()[name].default]


def _says(names: list[str]) -> str:
    return ", ".join(names) + (" says" if len(names) == 1 else " say")


def _without(config: Config, at: Callable[..., str], right: Callable[..., bool]) -> Iterator[ConfigError]:
    if said := _set(config, ("model.fresh", *EXAMPLES, "train.batch_tokens"), right):
        length = ", or model.block_size for the length of a GPT of ours" if "data.max_length" in said else ""
        yield ConfigError(
            f"{_says(said)} nothing without model.source",
            where=at(*said),
            why="a GPT of ours learns from windows of the tokens in data.directory",
            suggestion=f"model.source: t5-base, say{length}",
        )


def _with(config: Config, at: Callable[..., str], right: Callable[..., bool]) -> Iterator[ConfigError]:
    if said := _set(config, SHAPE, right):
        yield ConfigError(
            f"{_says(said)} nothing with model.source",
            where=at(*said, "model.source"),
            why="the config.json of that model says what it is made of",
            suggestion=f"the config without {'it' if len(said) == 1 else 'them'}, or without model.source",
        )
    if said := _set(config, ("data.directory", "data.stride"), right):
        yield ConfigError(
            f"{_says(said)} nothing with model.source",
            where=at(*said, "model.source"),
            why="such a model learns from the examples of data.train",
            suggestion="data.train: pairs.jsonl",
        )
    if right("train.parametrization") and config.train.parametrization == "mup":
        yield ConfigError(
            "train.parametrization: mup and model.source exclude each other",
            where=at("train.parametrization", "model.source"),
            why="mup is about weights that begin as a GPT of ours draws them",
            suggestion="train.parametrization: standard",
        )


def _batch(
    config: Config, places: Mapping[str, Place], at: Callable[..., str], right: Callable[..., bool]
) -> Iterator[ConfigError]:
    train, data = config.train, config.data
    tokens = train.batch_tokens
    if tokens is None or not right("train.batch_tokens"):
        return
    if right("train.batch_size") and _beside("train.batch_size", "train.batch_tokens", config, places):
        yield ConfigError(
            "train.batch_size and train.batch_tokens are both given",
            where=at("train.batch_size", "train.batch_tokens"),
            why="each says how much the model learns with at one step",
            suggestion="one of them",
        )
    if right("data.max_length") and tokens < data.max_length:
        yield ConfigError(
            f"train.batch_tokens is {tokens:,}, below data.max_length, {data.max_length:,}",
            where=at("train.batch_tokens", "data.max_length"),
            why="one example may have more tokens than the whole batch",
            suggestion=f"train.batch_tokens: {16 * data.max_length}",
        )


def _columns(
    config: Config, places: Mapping[str, Place], at: Callable[..., str], right: Callable[..., bool]
) -> Iterator[ConfigError]:
    data = config.data
    both = data.val is not None and _beside("data.val_share", "data.val", config, places)
    if right("data.val", "data.val_share") and both:
        yield ConfigError(
            "data.val and data.val_share are both given",
            where=at("data.val", "data.val_share"),
            why="a share is held out only where there are no held-out examples",
            suggestion="one of them",
        )
    only = {
        "pairs": ("data.text_column",),
        "texts": ("data.source_column", "data.target_column", "data.max_target_length", "data.prefix"),
    }
    silent = only.get(data.kind, ()) if right("data.kind") else ()
    if said := _set(config, silent, right):
        yield ConfigError(
            f"{_says(said)} nothing with data.kind: {data.kind}",
            where=at(*said, "data.kind"),
            why="it is about single texts" if data.kind == "pairs" else "a single text has no source and no target",
            suggestion="data.kind: auto, or the config without " + ("it" if len(said) == 1 else "them"),
        )


def _beside(key: str, other: str, config: Config, places: Mapping[str, Place]) -> bool:
    """Whether somebody meant `key`: it is no default, or it stands in the same place as `other`."""
    if key not in places:
        return False
    return value_of(config, key) != keys()[key].default or places[key].file == places[other].file
