"""Values that are right one by one and wrong together, and names that no directory can have."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from ganeum.config import checks_examples, zero
from ganeum.config.batch import accumulation_steps, divisors
from ganeum.config.keys import value_of
from ganeum.config.schema import Config
from ganeum.config.source import Place, joined
from ganeum.errors import ConfigError

# Keys that only the other style knows, with the value that says nothing.
UNKNOWN_TO: dict[str, dict[str, object]] = {
    "gpt2": {"model.n_kv_head": None, "model.head_dim": None, "model.rope_theta": 10_000.0},
    "modern": {"model.bias": False, "model.qkv_bias": None, "model.activation": "gelu_tanh"},
}
# More than any network or run has; arithmetic with numbers beyond them ends in none, or not at all.
LARGEST: Mapping[str, float] = {
    "model.n_layer": 10_000,
    "model.n_head": 10**6,
    "model.n_embd": 10**6,
    "model.head_dim": 10**6,
    "model.intermediate_size": 10**8,
    "model.block_size": 10**9,
    "model.vocab_size": 10**9,
    "data.max_length": 10**9,
    "data.max_target_length": 10**9,
    "train.batch_size": 10**9,
    "train.batch_tokens": 10**12,
    "sample.at_once": 10**9,
    "sample.num_beams": 10**6,
    "train.max_iters": 10**12,
    "train.epochs": 1e9,
    "train.tokens": 1e18,
    "train.hours": 1e6,
}
LENGTHS = ("train.max_iters", "train.epochs", "train.tokens", "train.hours")
WINDOWS_DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


def name_error(name: str) -> str | None:
    """What keeps `name` from being a directory on Linux, macOS and Windows; None if nothing does."""
    if not name.strip():
        return "it is empty"
    if bad := re.search(r'[/\\:*?"<>|\x00-\x1f\x7f]', name):
        return f"{bad.group()!r} cannot stand in a directory's name"
    if name[0] in ".-" or name[0].isspace():
        return f"a directory of runs cannot begin with {name[0]!r}"
    if name[-1] == "." or name[-1].isspace():
        return f"a directory's name cannot end with {name[-1]!r}"
    if name.split(".")[0].lower() in WINDOWS_DEVICES:
        return "Windows keeps that name for a device"
    if len(name.encode("utf-8", "surrogateescape")) > 200:
        return "it is longer than 200 bytes"
    return None


def contradictions(
    config: Config, places: Mapping[str, Place], *, settled: frozenset[str], where: str
) -> Iterator[ConfigError]:
    """Every contradiction between keys of `config`. `places`: where each key that is no default was written;
    `settled`: the keys whose value is right by itself, since a contradiction with a wrong one says nothing;
    `where`: the config's file, for what is missing altogether."""

    def at(*keys: str) -> str:
        return joined([places[key] for key in keys if key in places]) or where

    def right(*keys: str) -> bool:
        return settled.issuperset(keys)

    too_large = [
        error
        for key, most in LARGEST.items()
        if right(key) and (error := beyond(key, value_of(config, key), most, where=at(key)))
    ]
    if too_large:
        yield from too_large
        return
    train = config.train
    yield from _shape(config, at, right)
    yield from checks_examples.check(config, places, at, right)
    yield from zero.check(config, at, right)
    micro = train.micro_batch_size
    counted = right("train.batch_size", "train.micro_batch_size") and train.batch_tokens is None
    if counted and micro != "auto":
        try:
            accumulation_steps(train.batch_size, micro, where=at("train.batch_size", "train.micro_batch_size"))
        except ConfigError as error:
            yield error
    yield from _length(config, places, settled, where)
    yield from _optimizer(config, places, settled, where)
    lowest = train.min_learning_rate
    if right("train.min_learning_rate", "train.learning_rate") and lowest != "auto" and lowest > train.learning_rate:
        yield ConfigError(
            f"train.min_learning_rate is {lowest:g}, above train.learning_rate, {train.learning_rate:g}",
            where=at("train.min_learning_rate", "train.learning_rate"),
            why="the schedule goes down from the one to the other",
            suggestion="train.min_learning_rate: auto",
        )
    random = train.init_from is None and (config.model.source is None or config.model.fresh)
    if right("train.lora.rank", "train.init_from", "model.fresh") and train.lora.rank is not None and random:
        fresh = config.model.fresh
        begin = "model.fresh: false" if fresh else "train.init_from: a run, a checkpoint or an exported directory"
        yield ConfigError(
            "train.lora.rank is set, and " + ("model.fresh too" if fresh else "train.init_from is not"),
            where=at("train.lora.rank", *(["model.fresh"] if fresh else [])),
            why="only the adapters are trained, and under them lie random weights: nothing useful can be learnt",
            suggestion=f"{begin}; or train.lora.rank: null",
        )


def beyond(key: str, value: object, most: float, *, where: str) -> ConfigError | None:
    """The error of a number above ``most``; None of any other, and of what is no number."""
    if not isinstance(value, (int, float)) or value <= most:
        return None
    return ConfigError(
        f"{key} must be at most {most:,.0f}, but it is {value:.4g}",
        where=where,
        why="no network and no run has as many",
    )


def _shape(config: Config, at: Callable[..., str], right: Callable[..., bool]) -> Iterator[ConfigError]:
    """What the network's widths and heads must satisfy, and what its style does not know."""
    model = config.model
    if right("model.n_embd", "model.n_head", "model.head_dim") and model.head_dim is None:
        if model.n_embd % model.n_head:
            near = _nearest(model.n_head, divisors(model.n_embd))
            up = -(-model.n_embd // model.n_head) * model.n_head
            yield ConfigError(
                f"model.n_embd must be a multiple of model.n_head, but {model.n_embd} is not a multiple of "
                f"{model.n_head}",
                where=at("model.n_embd", "model.n_head"),
                why="each head takes an equal share of the width",
                suggestion=f"model.n_head: {' or '.join(map(str, near))}, or model.n_embd: {up}",
            )
        elif right("model.style") and model.style == "modern" and model.n_embd // model.n_head % 2:
            yield ConfigError(
                f"a head must have an even width, but model.n_embd / model.n_head is {model.n_embd // model.n_head}",
                where=at("model.n_embd", "model.n_head"),
                why="rotary positions turn its numbers pair by pair",
                suggestion=f"model.head_dim: {model.n_embd // model.n_head + 1}",
            )
    if right("model.style", "model.head_dim") and model.style == "modern" and (model.head_dim or 0) % 2:
        assert model.head_dim is not None
        yield ConfigError(
            f"model.head_dim must be even, but it is {model.head_dim}",
            where=at("model.head_dim"),
            why="rotary positions turn its numbers pair by pair",
            suggestion=f"model.head_dim: {model.head_dim + 1}",
        )
    shared = model.n_kv_head
    if right("model.n_head", "model.n_kv_head") and shared is not None and model.n_head % shared:
        near = _nearest(shared, divisors(model.n_head))
        yield ConfigError(
            f"model.n_head must be a multiple of model.n_kv_head, but {model.n_head} is not a multiple of {shared}",
            where=at("model.n_head", "model.n_kv_head"),
            why="each head of keys and values serves as many queries as the others",
            suggestion=f"model.n_kv_head: {' or '.join(map(str, near))}",
        )
    if not right("model.style"):
        return
    other = "modern" if model.style == "gpt2" else "gpt2"
    for key, silent in UNKNOWN_TO[model.style].items():
        value = value_of(config, key)
        if right(key) and value != silent and value is not False:
            yield ConfigError(
                f"the {model.style} style has no {key}",
                where=at(key, "model.style"),
                why=f"it belongs to model.style: {other}",
                suggestion=f"model.style: {other}, or the config without {key}",
            )


def _length(config: Config, places: Mapping[str, Place], settled: frozenset[str], where: str) -> Iterator[ConfigError]:
    if not settled.issuperset(LENGTHS):
        return
    given = [key for key in LENGTHS if getattr(config.train, key.removeprefix("train.")) is not None]
    if len(given) > 1:
        yield ConfigError(
            f"the training has {len(given)} lengths: {', '.join(given)}",
            where=joined([places[key] for key in given if key in places]) or where,
            why="only one of them can say when it ends",
            suggestion=f"keep {given[0]} and remove the other" + ("s" if len(given) > 2 else ""),
        )


def _optimizer(
    config: Config, places: Mapping[str, Place], settled: frozenset[str], where: str
) -> Iterator[ConfigError]:
    """What mup has no rules for, and weights in bf16 that would be computed with in something else."""
    train = config.train

    def at(*keys: str) -> str:
        return joined([places[key] for key in keys if key in places]) or where

    keys = ("train.parametrization", "train.optimizer")
    if settled.issuperset(keys) and train.parametrization == "mup" and train.optimizer in ("adafactor", "sgd"):
        yield ConfigError(
            f"train.parametrization: mup has no rules for train.optimizer: {train.optimizer}",
            where=at(*keys),
            why="its rules are for updates whose size depends neither on the gradient's nor on the weight's",
            suggestion="train.optimizer: adamw, adamw8bit or muon; or train.parametrization: standard",
        )
    keys = ("train.parametrization", "train.lora.rank")
    if settled.issuperset(keys) and train.parametrization == "mup" and train.lora.rank is not None:
        yield ConfigError(
            "train.parametrization: mup and train.lora.rank exclude each other",
            where=at(*keys),
            why="mup is about weights trained from their initialisation; adapters lie on trained ones",
            suggestion="train.parametrization: standard",
        )
    keys = ("train.weights", "train.precision")
    if settled.issuperset(keys) and train.weights == "bf16" and train.precision not in ("auto", "bf16"):
        yield ConfigError(
            f"train.weights is bf16, and train.precision {train.precision}",
            where=at(*keys),
            why="weights in bf16 are multiplied in bf16",
            suggestion="train.precision: bf16 or auto, or train.weights: fp32",
        )


def no_length(config: Config, *, where: str) -> Iterator[ConfigError]:
    """Said only where nothing else is wrong: a length may be what was misspelt."""
    if not config.train.eval_only and all(getattr(config.train, key.removeprefix("train.")) is None for key in LENGTHS):
        yield ConfigError(
            "nothing says how long to train",
            where=where,
            why=f"one of {', '.join(LENGTHS)} must be set",
            suggestion="train.max_iters: 5000",
        )


def _nearest(number: int, candidates: list[int]) -> list[int]:
    return [c for c in candidates if c < number][-1:] + [c for c in candidates if c > number][:1]
