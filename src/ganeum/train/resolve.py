"""Every `auto` becomes a value, once, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ganeum.config import Config
from ganeum.data.corpus import Corpus
from ganeum.errors import ConfigError
from ganeum.hardware import Device
from ganeum.plan import micro_batch
from ganeum.plan.lengths import lengths
from ganeum.step import compile as compilation
from ganeum.step import precision, schedule
from ganeum.step.optimizer_step import default_loss_chunk
from ganeum.train import pace

LENGTHS = ("max_iters", "epochs", "tokens", "hours")
AS_CONFIGURED = "as configured"


@dataclass
class Choices:
    """A config on its way to having no `auto` left, and why each value is what it is."""

    config: Config
    reasons: list[dict[str, Any]]

    def set(self, key: str, value: Any, reason: str) -> None:
        """`train.compile`, False, why. Values that the user gave are set without being listed."""
        self.config = replace(self.config, key, value)
        if reason != AS_CONFIGURED:
            self.reasons.append({"key": key, "value": value, "reason": reason})


def replace(config: Config, key: str, value: Any) -> Config:
    """`config` with one dotted key changed, checked again."""
    tree = config.model_dump()
    *sections, name = key.split(".")
    place = tree
    for section in sections:
        place = place[section]
    place[name] = value
    return Config.model_validate(tree)


def resolve(config: Config, corpus: Corpus, device: Device) -> tuple[Config, list[dict[str, Any]]]:
    """The config with every `auto` resolved and its length in steps → it, and plan.json's ``choices``.

    The order matters: what a later choice rests on is settled before it. `train.hours` takes a short measurement.
    """
    choices = Choices(config, [])
    _device(choices, device)
    _data(choices, corpus)
    _step(choices, device)
    _length(choices, corpus, device)
    _intervals(choices, corpus)
    return choices.config, choices.reasons


def lengthened(stored: Config, requested: Config, corpus: Corpus) -> Config:
    """A stored config with the length that is asked for now, in steps; everything else stays as it was decided.

    More hours are more steps at the pace that was measured at the first start.
    """
    given = {name: getattr(requested.train, name) for name in LENGTHS}
    if not any(given.values()):
        return stored
    config = stored.model_copy(update={"train": stored.train.model_copy(update=given)})
    if config.train.max_iters is not None:
        return config
    if config.train.hours is not None:
        steps = stored.train.max_iters
        if stored.train.hours is not None and steps is not None:
            steps = round(steps * config.train.hours / stored.train.hours)
    else:
        steps = lengths(config, len(corpus.train)).steps
    return replace(config, "train.max_iters", steps)


def torch_device(device: Device) -> torch.device:
    return torch.device(device.kind, device.index) if device.kind == "cuda" else torch.device(device.kind)


def _device(choices: Choices, device: Device) -> None:
    if choices.config.device == "auto":
        value = str(torch_device(device))
        why = "a GPU that torch can use" if device.kind != "cpu" else "there is no GPU that torch can use"
        choices.set("device", value, f"{device.name}: {why}")


def _data(choices: Choices, corpus: Corpus) -> None:
    model, data = choices.config.model, choices.config.data
    if model.vocab_size == "auto":
        choices.set("model.vocab_size", corpus.vocab_size, f"the vocabulary of {data.directory}")
    elif model.vocab_size < corpus.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {model.vocab_size:,}, but the data has {corpus.vocab_size:,} tokens",
            where=data.directory,
            why="the model would have no embedding for some of them",
            suggestion="model.vocab_size: auto",
        )
    if data.stride == "auto":
        choices.set("data.stride", model.block_size, "block_size: windows do not overlap")


def _step(choices: Choices, device: Device) -> None:
    """How one step is computed: precision, micro-batch, rows of logits at one time."""
    train = choices.config.train
    choices.set("train.precision", *precision.choose(train.precision, torch_device(device)))
    if train.micro_batch_size == "auto":
        choices.set("train.micro_batch_size", *micro_batch.choose(choices.config, device))
    if train.loss_chunk == "auto":
        rows = default_loss_chunk(torch_device(device))
        where = "stay in a CPU's cache" if device.kind == "cpu" else "fill a GPU"
        choices.set("train.loss_chunk", rows, f"the logits of {rows:,} tokens {where}")


def _length(choices: Choices, corpus: Corpus, device: Device) -> None:
    """max_iters, and whether compiling pays within it."""
    config = choices.config
    found = lengths(config, len(corpus.train))
    if config.train.eval_only:
        choices.set("train.compile", False, "nothing is trained")
        return
    if found.steps is None:  # hours: measured first as it is, and again compiled if that is chosen
        speed = pace.measure(replace(config, "train.compile", config.train.compile is True), corpus, device)
        steps = speed.steps_in(config.train.hours)
        compiled, reason = compilation.choose(
            config.train.compile, steps=steps, step_s_estimate=speed.step_s, device=torch_device(device)
        )
        choices.set("train.compile", compiled, reason)
        if compiled and config.train.compile == "auto":
            speed = pace.measure(choices.config, corpus, device)
        choices.set("train.max_iters", speed.steps_in(config.train.hours), speed.reason(config.train.hours))
        return
    if config.train.max_iters is None:
        length = "epochs" if config.train.epochs is not None else "tokens"
        why = f"{getattr(config.train, length):,g} {length} of {found.tokens_per_step:,} tokens a step"
        if length == "epochs":
            why = f"{config.train.epochs:g} epochs of {found.steps_per_epoch:,} steps"
        choices.set("train.max_iters", found.steps, why)
    compiled, reason = compilation.choose(
        config.train.compile,
        steps=found.steps,
        step_s_estimate=pace.estimate(choices.config, device),
        device=torch_device(device),
    )
    choices.set("train.compile", compiled, reason)


def _intervals(choices: Choices, corpus: Corpus) -> None:
    """What is a share of the whole length, or goes with something that is."""
    train = choices.config.train
    steps = train.max_iters or 1
    if train.warmup_iters == "auto":
        choices.set("train.warmup_iters", schedule.warmup_iters(train, steps), f"2 % of {steps:,} steps, 10 to 2,000")
    if train.min_learning_rate == "auto":
        choices.set("train.min_learning_rate", schedule.min_learning_rate(train), "a tenth of the learning rate")
    if train.eval_interval == "auto":
        choices.set("train.eval_interval", max(1, steps // 10), f"a tenth of {steps:,} steps")
    if train.eval_batch_size == "auto":
        choices.set("train.eval_batch_size", choices.config.train.micro_batch_size, "as training")
    if train.checkpoint_interval == "auto":
        choices.set("train.checkpoint_interval", choices.config.train.eval_interval, "with every evaluation")
    if choices.config.sample.interval == "auto":
        if corpus.tokenizer is None:
            choices.set("sample.interval", 0, "without a tokenizer there is no text")
        else:
            choices.set("sample.interval", choices.config.train.eval_interval, "with every evaluation")
    if choices.config.log.interval == "auto":
        choices.set("log.interval", max(1, min(10, steps // 20)), "10, or a twentieth of a shorter run")
