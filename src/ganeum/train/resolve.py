"""Every `auto` becomes a value, once, with the reason in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from ganeum import units
from ganeum.config import Config
from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.config.keys import value_of
from ganeum.config.zero import ENGINE
from ganeum.errors import ConfigError
from ganeum.hardware import Device
from ganeum.plan import fastest, micro_batch
from ganeum.plan.critique import fit
from ganeum.plan.trace import exact
from ganeum.step import eight_bit, schedule
from ganeum.step.allocator import choose_expandable_segments
from ganeum.step.compile import choose as choose_compile
from ganeum.step.optimizer_step import default_loss_chunk
from ganeum.train import pace, trial, trouble
from ganeum.train.material import Material
from ganeum.train.out_of_memory import Full
from ganeum.train.pace import Pace

T = TypeVar("T")
SURE = 0.25  # of what is usable: a CPU's estimate was never off by more than a factor of 2 (docs/plan.md)
LENGTHS = ("max_iters", "epochs", "tokens", "hours")
AS_CONFIGURED = "as configured"
BATCHING = {
    "packed": "nearly nothing is padding, and the model can be told where each example of a row begins",
    "buckets": "rows would be long for the model's width, or it cannot be told where each example of one begins",
}
MICRO, EVALUATION, CHECKPOINTING = "train.micro_batch_size", "train.eval_batch_size", "train.activation_checkpointing"


@dataclass(frozen=True)
class Resolved:
    """A config without `auto`; plan.json's ``choices`` {key, value, reason}; its pace, where it was measured."""

    config: Config
    choices: list[dict[str, Any]]
    pace: Pace | None


@dataclass
class Choices:
    """A config on its way to having no `auto` left, and why each value is what it is."""

    config: Config
    reasons: list[dict[str, Any]]
    device: Device
    pace: Pace | None = None
    too_many: dict[str, list[int]] = field(default_factory=dict)  # sizes that ran out of memory, of the keys to choose
    may_recompute: bool = False  # checkpointing is to choose

    def set(self, key: str, value: Any, reason: str) -> None:
        """`train.compile`, False, why. Values that the user gave are set without being listed."""
        self.config = change(self.config, {key: value})
        self.reasons = [one for one in self.reasons if one["key"] != key]
        if reason != AS_CONFIGURED:
            self.reasons.append({"key": key, "value": value, "reason": reason})


def resolve(config: Config, material: Material, device: Device, *, force: bool = False, paced: bool = True) -> Resolved:
    """The config with every `auto` resolved and its length in steps.

    The order matters: what a later choice rests on is settled before it. The length takes a short measurement.

    Args:
        force: go on although the run cannot fit by the estimate; what is tried before the start then decides.
        paced: measure the pace of a longer run; without it, only where its length is given in hours.

    Raises:
        RunError: it cannot fit, whatever `auto` becomes.
    """
    choices = Choices(config, [], device)
    _device(choices, device)
    _data(choices, material)
    _possible(choices, device, force)
    _step(choices, device)
    _length(choices, material, device, paced)
    _proof(choices, material)
    _intervals(choices, material)
    return Resolved(choices.config, choices.reasons, choices.pace)


def lengthened(stored: Config, requested: Config, material: Material) -> Resolved:
    """A stored config with the length that is asked for now, in steps; everything else stays as it was decided.

    More hours are more steps at the pace that was measured at the first start.
    """
    given = {name: getattr(requested.train, name) for name in LENGTHS}
    if not any(given.values()):
        return Resolved(stored, [], None)
    config = stored.model_copy(update={"train": stored.train.model_copy(update=given)})
    steps = config.train.max_iters or material.lengths(config).steps
    if config.train.hours is not None and stored.train.hours is not None and stored.train.max_iters is not None:
        steps = round(stored.train.max_iters * config.train.hours / stored.train.hours)
    return Resolved(change(config, {"train.max_iters": steps}), [], None)


def _device(choices: Choices, device: Device) -> None:
    if choices.config.device == "auto":
        value = f"cuda:{device.index}" if device.kind == "cuda" else device.kind
        why = "a GPU that torch can use" if device.kind != "cpu" else "there is no GPU that torch can use"
        choices.set("device", value, f"{device.name}: {why}")


def _data(choices: Choices, material: Material) -> None:
    model, data = choices.config.model, choices.config.data
    if model.source is not None:  # the model brings its vocabulary, and the examples were compared with it
        if data.batching == "auto":
            value = material.for_plan(choices.config)["data"]["batching"]
            choices.set("data.batching", value, BATCHING[value])
        return
    if model.vocab_size == "auto":
        choices.set("model.vocab_size", material.vocab_size, f"the vocabulary of {data.directory}")
    elif model.vocab_size < material.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {model.vocab_size:,}, but the data has {material.vocab_size:,} tokens",
            where=data.directory,
            why="the model would have no embedding for some of them",
            suggestion="model.vocab_size: auto",
        )
    if data.stride == "auto":
        choices.set("data.stride", model.block_size, "block_size: windows do not overlap")


def _possible(choices: Choices, device: Device, force: bool) -> None:
    """Refuses what cannot fit, before anything is allocated for it; or notes that it was started all the same."""
    needed = None if choices.config.train.eval_only else fit.impossible(choices.config, device)
    if needed is None:
        return
    if not force:
        raise trouble.impossible(needed, choices.config, device)
    least = units.gib(needed.least)
    why = f"at least {least} are needed, and {device.usable_gib:.2f} GiB are usable: started all the same"
    choices.reasons.append({"key": "--force", "value": True, "reason": why})


def _step(choices: Choices, device: Device) -> None:
    """How one step is computed: precision, checkpointing, micro-batch, rows of logits at one time."""
    train = choices.config.train
    where = torch.device(choices.config.device)
    if train.weights == "bf16" and train.precision == "auto":
        choices.set("train.precision", "bf16", "train.weights is bf16")
    if train.optimizer == "adamw8bit":
        eight_bit.require()
    choices.may_recompute = train.activation_checkpointing == "auto"
    if train.micro_batch_size == "auto":
        choices.too_many[MICRO] = []
    for choice in fastest.choose(choices.config, device)[1]:
        choices.set(choice["key"], choice["value"], choice["reason"])
    traces = device.kind == "cuda" and train.trace_memory and MICRO in choices.too_many
    if traces and (traced := exact.micro_batch(choices.config, device)) is not None:
        choices.set(MICRO, *traced)
    if train.eval_batch_size == "auto":
        choices.too_many[EVALUATION] = []
        choices.set(EVALUATION, *micro_batch.choose_for_evaluation(choices.config, device))
    if train.loss_chunk == "auto":
        rows = default_loss_chunk(where)
        why = "stay in a CPU's cache" if device.kind == "cpu" else "fill a GPU"
        choices.set("train.loss_chunk", rows, f"the logits of {rows:,} tokens {why}")
    choices.set("train.expandable_segments", *choose_expandable_segments(train.expandable_segments, where))


def _length(choices: Choices, material: Material, device: Device, paced: bool) -> None:
    """max_iters, and whether compiling pays within it."""
    train = choices.config.train
    found = material.lengths(choices.config)
    if train.eval_only:
        choices.set("train.compile", False, "nothing is trained")
    elif train.hours is not None:
        _hours(choices, train.hours, material)
    else:
        assert found.steps is not None
        if train.epochs is not None:
            choices.set("train.max_iters", found.steps, f"{train.epochs:g} epochs of {found.steps_per_epoch:,} steps")
        elif train.tokens is not None:
            why = f"{train.tokens:,.0f} tokens, {found.tokens_per_step:,} a step"
            choices.set("train.max_iters", found.steps, why)
        _compile(choices, found.steps, pace.estimate(choices.config, device))
        if paced and found.steps > pace.WORTH and not choices.config.train.compile:  # compiling twice costs too much
            choices.pace = _measure(choices, material, found.steps)


def _hours(choices: Choices, hours: float, material: Material) -> None:
    """Measured as it is; and once more compiled, if compiling is what pays within that many steps."""
    wanted = choices.config.train.compile
    speed = _measure(choices, material, **{"train.compile": wanted is True})
    _compile(choices, speed.steps_in(hours), speed.step_s)
    if wanted == "auto" and choices.config.train.compile:
        speed = _measure(choices, material)
    choices.pace = speed
    choices.set("train.max_iters", speed.steps_in(hours), speed.reason(hours))


def _measure(choices: Choices, material: Material, steps: int | None = None, **settings: Any) -> Pace:
    return _fitting(choices, material, lambda config: pace.measure(change(config, settings), material, steps=steps))


def _proof(choices: Choices, material: Material) -> None:
    """Sizes that were chosen by an estimate are tried, unless the pace was measured with them, or memory abounds."""
    size, device = choices.config.train.micro_batch_size, choices.device
    ours = MICRO in choices.too_many or choices.may_recompute
    if choices.pace is not None or not ours or choices.config.train.eval_only:
        return
    assert size != "auto", "resolved before"
    needed = micro_batch.needed(choices.config, device, size).total
    if device.kind == "cpu" and needed < SURE * device.usable_gib * units.GIB:
        return
    _fitting(choices, material, lambda config: trial.fits(config, material))


def _fitting(choices: Choices, material: Material, work: Callable[[Config], T | Full]) -> T:
    """What `work` makes of the config; where memory runs out in it, of the next smaller size that is ours to choose."""
    while isinstance(result := work(choices.config), Full):
        _smaller(choices, material, result)
    return result


def _smaller(choices: Choices, material: Material, full: Full) -> None:
    """The next smaller size; with one sequence at once, the next level of what is computed twice."""
    train = choices.config.train
    key = {"step": MICRO, "evaluation": EVALUATION}.get(full.part, "")
    size = train.micro_batch_size if full.part == "step" else train.eval_batch_size
    if key in choices.too_many and size != 1:
        assert size != "auto", "resolved before"
        choices.too_many[key].append(size)
        fewer = [n for n in divisors(train.batch_size) if n < size][-1] if full.part == "step" else size // 2
        tried = " and ".join(f"{n:,}" for n in choices.too_many[key])
        choices.set(key, fewer, f"tried before the start: {tried} at once ran out of memory ({full.said})")
    elif full.part == "step" and choices.may_recompute and train.activation_checkpointing != fastest.LEVELS[-1]:
        _recompute_more(choices, full)
    else:
        raise trouble.too_large(
            full,
            choices.config,
            choices.device,
            proven=lambda config: trial.fits(change(config, {MICRO: 1}), material) is None,
        )


def _recompute_more(choices: Choices, full: Full) -> None:
    """The next level of checkpointing, and as many sequences at once as fit with it by the estimate."""
    before, size = choices.config.train.activation_checkpointing, choices.config.train.micro_batch_size
    level = fastest.LEVELS[fastest.LEVELS.index(before) + 1]
    at_once = "one sequence" if size == 1 else f"{size:,} at once"
    why = f"tried before the start: {at_once} ran out of memory with {before} ({full.said})"
    choices.set(CHECKPOINTING, level, why)
    if MICRO in choices.too_many:
        choices.too_many[MICRO].clear()
        open_again = change(choices.config, {MICRO: "auto"})
        for choice in fastest.choose(open_again, choices.device)[1]:
            choices.set(choice["key"], choice["value"], choice["reason"])


def _compile(choices: Choices, steps: int, step_s: float | None) -> None:
    if choices.config.train.zero.stage >= ENGINE:
        choices.set("train.compile", False, "DeepSpeed's engine takes the steps")
        return
    if choices.config.model.source is not None and choices.config.train.compile == "auto":
        choices.set("train.compile", False, "of a model of model.source nobody has measured that it pays")
        return
    value, why = choose_compile(
        choices.config.train.compile, steps=steps, step_s_estimate=step_s, device=choices.device
    )
    choices.set("train.compile", value, why)


def _intervals(choices: Choices, material: Material) -> None:
    """What is a share of the whole length, or goes with something that is."""
    steps = choices.config.train.max_iters or 1
    for key in ("train.eval_interval", "train.checkpoint_interval", "log.interval"):
        if isinstance(share := value_of(choices.config, key), float):
            choices.set(key, max(1, round(share * steps)), f"a share of {share:.3g} of {steps:,} steps")
    train = choices.config.train
    if train.warmup_iters == "auto":
        why = f"2 % of {steps:,} steps, 10 to 2,000" + (", though half of the run at most" if steps < 20 else "")
        choices.set("train.warmup_iters", schedule.warmup_iters(train, steps), why)
    elif isinstance(share := train.warmup_iters, float):
        choices.set(
            "train.warmup_iters", schedule.warmup_iters(train, steps), f"a share of {share:.3g} of {steps:,} steps"
        )
    if train.min_learning_rate == "auto":
        choices.set("train.min_learning_rate", schedule.min_learning_rate(train), "a tenth of the learning rate")
    if train.eval_interval == "auto":
        choices.set("train.eval_interval", max(1, steps // 10), f"a tenth of {steps:,} steps")
    if train.checkpoint_interval == "auto":
        choices.set("train.checkpoint_interval", choices.config.train.eval_interval, "with every evaluation")
    if choices.config.sample.interval == "auto":
        if material.tokenizer is None:
            choices.set("sample.interval", 0, "without a tokenizer there is no text")
        else:
            choices.set("sample.interval", choices.config.train.eval_interval, "with every evaluation")
    if choices.config.log.interval == "auto":
        choices.set("log.interval", max(1, min(10, steps // 20)), "10, or a twentieth of a shorter run")
