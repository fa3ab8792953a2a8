"""Backwards: from a device and the time there is to the model that is worth training on it.

No table of sizes: every candidate is a config that `ganeum train` takes, and it is planned like any other: what fits
(:mod:`ganeum.plan.fastest`), how fast that is, how many tokens the hours then hold, what loss so many parameters reach
after so many tokens (:mod:`ganeum.plan.scaling_laws`). First sizes a factor of two or so apart, then those between.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ganeum import units
from ganeum.config.change import change
from ganeum.config.schema import Config
from ganeum.errors import ConfigError, DeviceError
from ganeum.hardware.device import Device
from ganeum.plan import closed_form, execution, fastest, memory, parameters, scaling_laws, time
from ganeum.plan.architecture import ours
from ganeum.plan.backwards import page, recipe
from ganeum.plan.backwards.answer import CONTEXT, VOCABULARY, Answer, Candidate, Planned, Question
from ganeum.plan.lengths import lengths

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Answer", "Candidate", "Question", "search", "show"]

ASPECT = 64  # n_embd / n_layer: GPT-2's and GPT-3's smallest; _between tries 50 to 80 or so
HEAD, WIDE_HEAD, WIDE = 64, 128, 2048  # width of a head, and from which n_embd on it is the wide one
WIDTHS = (64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
NEAR, FAR = 0.03, 1.25  # sizes as near as each other; and so far off that it is not what was asked for
FINE = (0.8, 0.9, 1.0, 1.12, 1.25)  # times the best width and depth of these
GOOD_REPEATS, DROPOUT = 4, 0.1  # beyond so many, with so much: what those that repeated text trained with
FIRST_GUESS = 1e9  # tokens, until the speed is known
SMALL = 50_000_000  # tokens: below, an evaluation of the usual size would cost more than a hundredth of the training
SMALL_EVALUATION = 8_192
MOST = {"--hours": 1e6, "--tokens": 1e16}  # a century, and a thousand times what anybody has trained on
OPTIMIZERS = ("adamw", "adamw8bit", "muon")  # Muon's updates are given the size of AdamW's (step/optimizers.py)


def search(
    device: Device,
    *,
    hours: float | None = None,
    tokens: int | None = None,
    parameters: float | None = None,
    tokens_available: int | None = None,
    context: int = CONTEXT,
    vocab_size: int = VOCABULARY,
    optimizer: str = "adamw",
    directory: str | None = None,
) -> Answer:
    """The model to train on ``device``.

    With ``hours`` it is the one whose loss is lowest when they are over. With ``tokens`` instead, the one that so many
    tokens are the optimum for. ``parameters`` wishes for a size: the nearest shape is taken, and sees the tokens that
    the hours hold, or those that are asked for, or without either those that are its optimum.

    Args:
        hours: how long it may train.
        tokens: how many tokens it is to see.
        parameters: how large it is to be.
        tokens_available: different tokens there are; more than these are repetitions, which are worth less and less.
        context: tokens of context.
        vocab_size: the data's.
        optimizer: one of ``OPTIMIZERS``.
        directory: ``data.directory``, where the data is known.

    Raises:
        ConfigError: neither hours nor tokens nor parameters, or hours and tokens, or far too many; an optimizer without
            a rule for its rate; too little time for a single step; a size that cannot be had.
        DeviceError: how fast the device is is not known; or nothing fits into it.
    """
    asked = Question(device, hours, tokens, parameters, tokens_available, context, vocab_size, optimizer, directory)
    _check(asked)
    coarse = _planned(asked, ((width, max(2, round(width / ASPECT))) for width in WIDTHS))
    better = _better(asked)
    first = min(coarse, key=better)
    every = coarse + _planned(asked, _between(first.config.model.n_embd, first.config.model.n_layer))
    best = min(every, key=better)
    _check_size(asked, best, every)

    def nearest(factor: float) -> Candidate | None:
        near = [one for one in every if factor / 1.6 < one.n_params / best.n_params < factor * 1.6]
        return min(near, key=lambda one: abs(math.log(one.n_params / best.n_params / factor)), default=None)

    return Answer(asked, best, nearest(0.5), nearest(2.0))


def show(answer: Answer) -> RenderableType:
    """The answer as a page of 80 columns and more, for ``rich.console.Console.print``."""
    return page.page(answer)


def _check(asked: Question) -> None:
    if asked.hours is None and asked.tokens is None and asked.parameters is None:
        raise ConfigError(
            "nothing says how much may be trained",
            where="ganeum plan",
            why="the best model for a card depends on how long it may train",
            suggestion="--hours 8, or --tokens 2B",
        )
    if asked.hours is not None and asked.tokens is not None:
        raise ConfigError(
            "hours and tokens are both given",
            where="ganeum plan",
            why="each says when a training ends; the other follows from the speed",
            suggestion="one of them",
        )
    for name, number in (("--hours", asked.hours), ("--tokens", asked.tokens)):
        if number is not None and not 0 < number <= MOST[name]:
            raise ConfigError(
                f"{name} is {number:g}, for which no model can be searched",
                where="ganeum plan",
                why=f"it must be above 0, and no more than {MOST[name]:g}",
                suggestion="--hours 8, or --tokens 2B",
            )
    if asked.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"for the optimizer {asked.optimizer} there is no rule for the learning rate",
            where=f"optimizer={asked.optimizer}",
            why="the rule is AdamW's, and holds where updates have its size",
            suggestion=" or ".join(f"optimizer={name}" for name in OPTIMIZERS),
        )


def _better(asked: Question) -> Callable[[Candidate], Any]:
    """What the best candidate has least of: of sizes as near as each other to what is wanted, the fastest is best."""
    wanted = asked.wanted
    if wanted is None and asked.enough is not None:  # of models too large for the text the fastest
        return lambda one: (round(one.loss.expected, 3), round(one.hours, 2), one.loss.expected)
    if wanted is None:
        return lambda one: one.loss.expected
    return lambda one: (
        round(abs(math.log(one.n_params / wanted)) / NEAR),
        one.planned.step.step_s / one.tokens_per_step,
    )


def _check_size(asked: Question, best: Candidate, every: Iterable[Candidate]) -> None:
    """A size that was asked for by name is had, or it is said what can be."""
    if asked.parameters is None or 1 / FAR < best.n_params / asked.parameters < FAR:
        return
    sizes = sorted(one.n_params for one in every)
    small = best.n_params < asked.parameters
    raise ConfigError(
        f"a model of {units.count(asked.parameters)} parameters "
        + (f"does not fit into {asked.device.name}" if small else "is too small to have a shape"),
        where=f"--parameters {units.count(asked.parameters)}",
        why=f"the largest that fits has {units.count(sizes[-1])}"
        if small
        else f"the smallest has {units.count(sizes[0])}, with a vocabulary of {asked.vocab_size:,}",
        suggestion=f"--parameters {units.count(sizes[-1] if small else sizes[0])}"
        + (", a shorter context, or a larger card" if small else ", or a smaller vocabulary"),
    )


def _between(width: int, depth: int) -> Iterator[tuple[int, int]]:
    """Shapes around one: widths in whole heads, and depths to each."""
    head = WIDE_HEAD if width >= WIDE else HEAD
    widths = {head * max(1, round(width * factor / head)) for factor in FINE}
    for near in sorted(widths):
        usual = depth * near / width
        yield from ((near, layers) for layers in sorted({max(2, round(usual * factor)) for factor in FINE}))


def _planned(asked: Question, shapes: Iterable[tuple[int, int]]) -> list[Candidate]:
    """Those of the shapes that fit and have time for a step.

    Raises:
        ConfigError, DeviceError: none has.
    """
    found, fits = [], False
    for width, depth in shapes:
        candidate = _candidate(asked, width, depth)
        fits = fits or candidate is not None
        if candidate is not None and candidate.steps >= 1:
            found.append(candidate)
    if not fits:
        raise DeviceError(
            f"no model fits into {asked.device.name}",
            where="gpu",
            why=f"{asked.device.usable_gib:.2f} GiB are usable",
            suggestion="a shorter context, or a smaller vocabulary",
        )
    if not found:
        raise ConfigError(
            "there is not time for a single step",
            where=f"--hours {asked.hours:g}" if asked.hours else "--tokens",
            suggestion="more of it",
        )
    return found


def _candidate(asked: Question, width: int, depth: int) -> Candidate | None:
    """A shape with its recipe, planned on the device; None where it does not fit.

    How many tokens there is time for depends on the batch, and the batch on the tokens: planned twice, they agree.
    """
    first = _config(asked, width, depth)
    counted = parameters.of(ours.architecture(first.model))
    first = _sized(first, asked, FIRST_GUESS)
    planned = _on(asked, first, counted.total)
    if planned is None:
        return None
    config = _sized(first, asked, _tokens(asked, counted.total, planned))
    if (config.model, config.train.batch_size) != (first.model, first.train.batch_size):
        planned = _on(asked, config, counted.total)
        if planned is None:
            return None
    per_step = config.train.batch_size * asked.context
    seen = _tokens(asked, counted.total, planned)
    tokens = max(1, int(seen) // per_step) * per_step if seen == asked.enough else round(seen / per_step) * per_step
    rate = recipe.learning_rate(counted.non_embedding, max(tokens, 1))
    config = change(config, {"train.tokens": max(tokens, 1), "train.learning_rate": float(f"{rate:.2g}")})
    return Candidate(config, counted.total, counted.non_embedding, planned, tokens, asked.tokens_available)


def _config(asked: Question, width: int, depth: int) -> Config:
    head = WIDE_HEAD if width >= WIDE else HEAD
    settings: dict[str, Any] = {
        "name": _name(asked),
        "model.style": "modern",
        "model.n_layer": depth,
        "model.n_head": width // head,
        "model.n_embd": width,
        "model.block_size": asked.context,
        "model.vocab_size": asked.vocab_size,
        "train.optimizer": asked.optimizer,
        "train.min_learning_rate": recipe.FINAL_RATE,
    }
    if asked.directory is not None:
        settings["data.directory"] = asked.directory
    return change(Config(), settings)


def _sized(config: Config, asked: Question, tokens: float) -> Config:
    """With what depends on the tokens: a batch, as a power of two of sequences, so that whatever fits at once divides
    it; dropout, where they are repeated; evaluations that take little of a short training."""
    sequences = max(1.0, recipe.batch_tokens(tokens) / config.model.block_size)
    repeated = asked.tokens_available is not None and tokens > GOOD_REPEATS * asked.tokens_available
    settings: dict[str, Any] = {
        "model.dropout": DROPOUT if repeated else None,
        "train.batch_size": 2 ** round(math.log2(sequences)),
        "train.tokens": max(tokens, 1),
    }
    if tokens < SMALL:
        settings["train.eval_tokens"] = SMALL_EVALUATION
    return change(config, settings)


def _on(asked: Question, config: Config, n_params: int) -> Planned | None:
    """What the device makes of a config; None where it does not fit."""
    device = asked.device
    settings, choices = fastest.choose(config, device)
    settled = change(config, settings)
    size = settled.train.micro_batch_size
    assert isinstance(size, int)
    architecture, run = ours.architecture(settled.model), execution.of(settled, device, size)
    needed = memory.of(architecture, run)
    if not needed.fits(device):
        return None

    def steps(step_s: float) -> float:
        if asked.hours is not None:
            return asked.hours * 3600 / step_s
        return (asked.tokens or scaling_laws.tokens_for(n_params)) / (config.train.batch_size * asked.context)

    run, compiled = closed_form.as_trained(settled.train.compile, architecture, run, device, steps)
    step = time.of(architecture, run, device)
    if step is None:
        raise DeviceError(
            f"how fast {device.name} is is not known",
            where="gpu",
            why="without its speed nobody can say how many tokens some hours hold",
            suggestion="ganeum gpus --measure, on the machine that has it",
        )
    length = lengths(settled, None)
    return Planned(
        (*choices, *compiled),
        step,
        needed,
        closed_form.time_to_evaluate(settled, architecture, run, device, length, None),
    )


def _tokens(asked: Question, n_params: int, planned: Planned) -> float:
    """The tokens that a candidate gets to see: no more than teach it anything, unless so many are asked for."""
    if asked.tokens is not None:
        return float(asked.tokens)
    tokens = scaling_laws.tokens_for(n_params)
    if asked.hours is not None:
        tokens = max(0.0, asked.hours * 3600 - planned.evaluations_s) * planned.step.tokens_per_second
    return tokens if asked.enough is None else min(tokens, asked.enough)


def _name(asked: Question) -> str:
    card = re.sub("[^a-z0-9.]+", "-", re.sub("nvidia|geforce", "", asked.device.name.lower())).strip("-.")
    if asked.hours is not None:
        return f"{card}-{page.spoken(asked.hours).replace(' ', '')}"
    return f"{card}-" + (units.count(asked.tokens) if asked.tokens else units.count(asked.parameters or 0)).lower()
