"""What can be asked of the planner, and which answer a question gets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ganeum import units
from ganeum.config import load
from ganeum.config.checks import beyond
from ganeum.config.source import scalar
from ganeum.errors import ConfigError
from ganeum.hardware.card import card
from ganeum.hardware.device import Device
from ganeum.hardware.machine import look
from ganeum.plan import sections
from ganeum.plan.page.render import Page
from ganeum.plan.page.table import Table
from ganeum.plan.question import compare, use
from ganeum.plan.question.compare import Plan, Prices
from ganeum.plan.question.forms import Answer, Explained, Found
from ganeum.plan.question.subject import Model, Run, Subject, config_file

if TYPE_CHECKING:
    from ganeum.plan import backwards
    from ganeum.plan.trace.exact import Prober

MOST = 10**18  # tokens and parameters: beyond all text
MOST_HOURS = 10**6  # a century
HERE = "here"  # as a GPU's name: this machine's device
# What a search for a model can be told besides its options → the argument of backwards.search.
WISHES: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "block_size": ("context", int),
    "context": ("context", int),
    "vocab_size": ("vocab_size", int),
    "optimizer": ("optimizer", str),
    "directory": ("directory", str),
}


@dataclass(frozen=True)
class Question:
    """What was typed, as :mod:`ganeum.cli.plan` says it.

    Attributes:
        words: what is planned, a config's file or a model's name; none: a model is searched.
        models: those of a table, on the cards of ``gpus``.
        settings: ``key=value``.
        tokens, tokens_available, parameters: counts as people type them, ``1.5B``.
        exact: memory is traced (:mod:`ganeum.plan.trace.exact`).
        probe: takes two real steps beside the trace; the room above has it.
        script: ``FILE:FUNCTION`` of a step that is nobody's but the user's, instead of ``words``.
    """

    words: Sequence[str] = ()
    models: Sequence[str] = ()
    settings: Sequence[str] = ()
    section: str | None = None
    gpus: Sequence[str] = ()
    which_gpu: bool = False
    hours: float | None = None
    parameters: str | None = None
    tokens: str | None = None
    tokens_available: str | None = None
    purpose: str | None = None
    may_shorten: bool = False
    prices: Prices = field(default_factory=Prices)
    explain: bool = False
    exact: bool = False
    script: str | None = None
    probe: Prober | None = None

    @property
    def searches(self) -> bool:
        """Whether a model is to be found, rather than one that there is to be planned."""
        return (
            not self.words
            and not self.models
            and any(one is not None for one in (self.hours, self.tokens, self.parameters))
        )

    def devices(self, default: str = "auto") -> list[Device]:
        """Those that are named, or this machine's."""
        return [look(default) if name == HERE else card(name) for name in self.gpus or (HERE,)]


def answer(asked: Question) -> Answer:
    """The answer in every form.

    Raises:
        GaneumError: there is no such config, model or card; or what is asked cannot be asked together.
    """
    _check(asked)
    if asked.script is not None:
        from ganeum.plan.question.script import script

        (device,) = asked.devices()
        return script(asked.script, device)
    if asked.models:
        return _table(asked)
    if asked.searches:
        return Found(_search(asked))
    subject, default = _subject(asked)

    def plan(device: Device) -> Plan:
        found = subject.plan(device)
        if isinstance(subject, Model) and asked.prices != Prices() and "steps" not in found["data"]:
            raise _no_length(asked)
        if asked.exact:
            found = subject.exact(found, device, explain=asked.explain, probe=asked.probe)
        return _priced(found, asked.prices)

    if asked.which_gpu:
        return compare.which(plan, asked.prices)
    devices = asked.devices(default)
    if len(devices) > 1:
        return compare.Beside([plan(device) for device in devices], asked.prices)
    found = plan(devices[0])
    return Explained(found, subject.explain(found)) if asked.explain else Page(found)


def emitted(asked: Question, form: str) -> str:
    """The plan written out for another program: a file's text.

    Raises:
        GaneumError: as :func:`answer`; or the form cannot say it.
    """
    _check(asked)
    if len(asked.gpus) > 1:
        raise ConfigError(
            "--emit and several --gpu cannot be asked together",
            where=" ".join(["ganeum plan", *asked.words]),
            why="what is emitted is one card's file",
        )
    if asked.searches:
        if form != "ganeum":
            raise ConfigError(
                f"the model that is searched is one of ganeum's, and {form} is for another trainer",
                where=f"--emit {form}",
                suggestion="--emit ganeum",
            )
        return _search(asked).yaml()
    subject, default = _subject(asked)
    (device,) = asked.devices(default)
    return subject.emit(form, subject.plan(device), device)


def _search(asked: Question) -> backwards.Answer:
    from ganeum.plan import backwards

    wishes: dict[str, Any] = {}
    for setting in asked.settings:
        name, _, value = setting.partition("=")
        if (bare := name.rpartition(".")[2]) not in WISHES:
            raise ConfigError(
                f"a model that is searched has no {name} to set",
                where=f"the command line: {setting}",
                why="the search decides it",
                suggestion="one of " + ", ".join(f"{wish}=…" for wish in WISHES),
            )
        key, kind = WISHES[bare]
        if kind is int and not (isinstance(number := scalar(value), int) and number > 0):
            raise ConfigError(
                f"{name} must be a whole number of at least 1, but it is {value!r}",
                where=f"the command line: {setting}",
            )
        wishes[key] = kind(value)
    (device,) = asked.devices()
    tokens, available = _amount(asked.tokens, "--tokens"), _amount(asked.tokens_available, "--tokens-available")
    return backwards.search(
        device,
        hours=asked.hours,
        tokens=tokens,
        parameters=_amount(asked.parameters, "--parameters"),
        tokens_available=available,
        **wishes,
    )


def _table(asked: Question) -> Table:
    """Models on cards: a training in each of the ways that people make one fit, unless one way is said."""
    from ganeum.plan.architecture import find
    from ganeum.plan.question import tables

    settings = [*asked.settings, *_of_a_model(asked)]
    one = use.read(settings)
    said = one.model_fields_set & {"activation_checkpointing", "optimizer", "zero_stage", "offload", "lora"}
    ways = {"": one} if said or one.purpose != "training" else tables.levers(settings)
    return tables.grid([find(name) for name in asked.models], asked.devices(), ways)


def _subject(asked: Question) -> tuple[Subject, str]:
    """What is planned, and the device that it asks for by itself."""
    (word,) = asked.words
    if (path := config_file(word)) is None:
        from ganeum.plan.architecture import find

        wanted = use.read([*asked.settings, *_of_a_model(asked)])
        return Model(find(word), wanted, asked.may_shorten, word), "auto"
    hours = [f"train.hours={asked.hours:g}"] if asked.hours else []
    settings = [*asked.settings, *hours]
    config = load(path, settings, section=asked.section, say=lambda text: print(text + "\n", file=sys.stderr))
    tokens = _amount(asked.tokens, "--tokens") or _amount(asked.tokens_available, "--tokens-available")
    run = Run.of(config, tokens, may_shorten=asked.may_shorten)
    if asked.purpose in (None, "training"):
        return run, config.device
    length = [f"length={config.model.block_size}"] if config.model.source is None else []
    return run.used_for(use.read([f"purpose={asked.purpose}", *length])), config.device


def _of_a_model(asked: Question) -> Iterator[str]:
    """Options that are keys of a model's use."""
    if asked.purpose:
        yield f"purpose={asked.purpose}"
    if asked.hours:
        yield f"hours={asked.hours:g}"
    if tokens := _amount(asked.tokens, "--tokens"):
        yield f"tokens={tokens}"


def _amount(text: str | None, option: str) -> int | None:
    """``1.5B`` → 1,500,000,000.

    Raises:
        ConfigError: it is no such number, or larger than there is.
    """
    try:
        number = None if text is None else max(1, round(units.amount(text)))
    except ValueError:
        raise ConfigError(
            f"{option} must be a number above 0, but it is {text!r}",
            where=f"the command line: {option} {text}",
            suggestion=f"{option} 300M, {option} 1.5B or {option} 130520",
        ) from None
    if error := beyond(option, number, MOST, where=f"the command line: {option} {text}"):
        raise error
    return number


def _no_length(asked: Question) -> ConfigError:
    return ConfigError(
        "what it costs is not known",
        where=" ".join(["ganeum plan", *asked.words]),
        why="nothing says how long it is trained",
        suggestion="--tokens 300M, or --hours 8",
    )


def _priced(plan: Plan, prices: Prices) -> Plan:
    """With what its hours cost, where they are known, behind its time."""
    hours, power_w = plan.get("time", {}).get("hours"), plan["device"].get("power_w")
    cost = sections.cost(hours, power_w, prices.per_hour, prices.per_kwh)
    if cost is None:
        return plan
    before = list(plan)[: list(plan).index("time") + 1]
    behind = [key for key in plan if key not in before]
    return {
        **{key: plan[key] for key in before},
        "cost": sections.without_none(cost),
        **{key: plan[key] for key in behind},
    }


def _check(asked: Question) -> None:
    """What cannot be asked together, or is no answer's question."""
    where = " ".join(["ganeum plan", *asked.words])
    if len(asked.words) > 1:
        raise ConfigError(
            f"one config is planned at a time, but {len(asked.words)} are named",
            where=where,
            suggestion=f"ganeum plan {asked.words[0]}, or a table of models: --models {','.join(asked.words)}",
        )
    if not asked.words and not asked.models and not asked.searches and asked.script is None:
        raise ConfigError(
            "no config is named",
            where=where,
            suggestion='ganeum plan configs/demo.yaml; ganeum plan t5-base; ganeum plan --gpu "RTX 4080" --hours 8',
        )
    numbers = {
        "--hours": asked.hours,
        "--price-per-hour": asked.prices.per_hour,
        "--price-per-kwh": asked.prices.per_kwh,
    }
    for name, number in numbers.items():
        if number is not None and not 0 < number < float("inf"):
            raise ConfigError(f"{name} must be a number above 0, but it is {number:g}", where="the command line")
    if error := beyond("--hours", asked.hours, MOST_HOURS, where="the command line"):
        raise error
    by_name = bool(asked.words) and config_file(asked.words[0]) is None
    section, shorter = asked.section and "--config-section", asked.may_shorten and "--may-shorten"
    available = asked.tokens_available and "--tokens-available"
    price = (asked.prices.per_hour and "--price-per-hour") or (asked.prices.per_kwh and "--price-per-kwh")
    used = asked.purpose not in (None, "training") and f"--purpose {asked.purpose}"
    for one, other, why in (
        (asked.which_gpu and "--which-gpu", asked.gpus and "--gpu", "the one asks for the cards, the other names them"),
        (asked.which_gpu and "--which-gpu", asked.explain and "--explain", "one plan is derived at a time"),
        (
            asked.which_gpu and "--which-gpu",
            asked.exact and "--exact",
            "a trace takes seconds, and they are many cards",
        ),
        (
            asked.searches and "no config",
            asked.exact and "--exact",
            "there is no step to trace before a model is found",
        ),
        (asked.models and "--models", asked.exact and "--exact", "a table is of many models: plan one on those cards"),
        (asked.which_gpu and "--which-gpu", asked.searches and "no config", "a model is searched for one card"),
        (len(asked.gpus) > 1 and "several --gpu", asked.explain and "--explain", "one plan is derived at a time"),
        (len(asked.gpus) > 1 and "several --gpu", asked.searches and "no config", "a model is searched for one card"),
        (
            asked.probe and "--probe",
            [name for name in asked.gpus if name != HERE] and "--gpu",
            "only what is here can be probed",
        ),
        (asked.probe and "--probe", asked.script and "--script", "what is probed is a run of ours"),
        (asked.probe and "--probe", by_name and asked.words[0], "what is probed is a run of ours, by its config"),
        (asked.probe and "--probe", used, "what is probed are steps of a training"),
        (asked.script and "--script", asked.words and asked.words[0], "the step is the script's own"),
        (asked.script and "--script", asked.settings and asked.settings[0], "its settings stand in the script"),
        (asked.script and "--script", asked.models and "--models", "the step is the script's own"),
        (asked.script and "--script", asked.searches and "a search", "the step is the script's own"),
        (asked.script and "--script", asked.which_gpu and "--which-gpu", "a step is traced for one card"),
        (asked.script and "--script", len(asked.gpus) > 1 and "several --gpu", "a step is traced for one card"),
        (asked.script and "--script", asked.explain and "--explain", "what its figures come from is its trace"),
        (asked.script and "--script", asked.purpose and "--purpose", "the script says what for"),
        (asked.searches and "no config", asked.purpose and "--purpose", "a model is searched for its training"),
        (asked.searches and "no config", asked.explain and "--explain", "the search tells its own reasons"),
        (asked.searches and "no config", section, "there is no file to take it of"),
        (asked.searches and "no config", shorter, "the search chooses the context, or context=… sets it"),
        (asked.searches and "no config", price, "money is of one plan: --emit ganeum -o best.yaml, and plan that"),
        (used, asked.hours and "--hours", "only a training has a length"),
        (used, asked.tokens and "--tokens", "only a training has a length"),
        (used, available, "only a training has data"),
        (used, price, "only a training has a length, and so a price"),
        (asked.models and "--models", asked.words and asked.words[0], "a table has its models from --models"),
        (asked.models and "--models", asked.which_gpu and "--which-gpu", "a table has its cards from --gpus"),
        (asked.models and "--models", asked.explain and "--explain", "one plan is derived at a time"),
        (asked.models and "--models", asked.parameters and "--parameters", "each has the size that it has"),
        (asked.models and "--models", section, "models by their names have no sections"),
        (asked.models and "--models", shorter, "a table compares at one length"),
        (asked.models and "--models", price, "a table has no money: plan one model on those cards"),
        (asked.models and "--models", available, "how many tokens are trained on is --tokens"),
        (by_name and asked.words[0], section, "a model by its name has no sections"),
        (by_name and asked.words[0], available, "how many tokens are trained on is --tokens"),
        (asked.words and asked.tokens and "--tokens", available, "with a config both are the size of its data"),
        (asked.words and asked.words[0], asked.parameters and "--parameters", "it has the size that it has"),
    ):
        if one and other:
            raise ConfigError(f"{one} and {other} cannot be asked together", where=where, why=why)
