"""What Hugging Face's names come to in ours where that takes more than another name: one function for each meeting.

Each takes all of Hugging Face's names that are known so far, and says what they set here. `transformers`'
`TrainingArguments.__post_init__` and `optimization.py` (5.23) are the source of what a name does there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from ganeum.config.source import Value, joined, scalar
from ganeum.errors import ConfigError

Given = Mapping[str, Value]


@dataclass(frozen=True)
class Setting:
    """A key of ours and its value. What is only implied yields to what the user says of that key beside it."""

    key: str
    value: object
    implied: bool = False


@dataclass(frozen=True)
class Meaning:
    """What some names set here, and a word on where that is not quite what they do there."""

    settings: tuple[Setting, ...] = ()
    note: str = ""


Rule = Callable[[Given], Meaning]

OPTIMIZERS = {
    "adamw": ("adamw_torch", "adamw_torch_fused", "adamw_hf", "adamw", "paged_adamw_32bit", "paged_adamw"),
    "adamw8bit": ("adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit", "paged_adamw_8bit"),
    "adafactor": ("adafactor",),
    "sgd": ("sgd",),
    "muon": ("muon",),
}
TRACKERS = {
    "tensorboard": "log.tensorboard",
    "wandb": "log.wandb.project",
    "mlflow": "log.mlflow.experiment",
    "trackio": "log.trackio.project",
}
PROJECT = "huggingface"  # what the Trainer calls it unless told


def refusal(given: Given, *names: str, why: str, suggestion: str | None = None, what: str | None = None) -> ConfigError:
    """The error that these names mean nothing here, as they were written; or `what` instead of that."""
    verb = "has" if len(names) == 1 else "have"
    return ConfigError(
        what or f"{written(given, *names)} {verb} no meaning here",
        where=joined(given[name].place for name in names),
        why=why,
        suggestion=suggestion,
    )


def written(given: Given, *names: str) -> str:
    """`fp16: true, bf16: true`, as the user wrote it; of a mapping its name, and nothing that is secret."""

    def one(name: str) -> str:
        value = given[name]
        if isinstance(value.value, dict):
            return name
        return f"{name}: " + ("…" if name.endswith("token") else value.text or str(value.value))

    return ", ".join(map(one, names))


def first(given: Given, *names: str) -> str | None:
    """The first of the names that is given and not null: the new name before the old one."""
    return next((name for name in names if name in given and given[name].value is not None), None)


def number(given: Given, *names: str) -> float | None:
    """The number that the first given of the names holds; None if none is given."""
    if (name := first(given, *names)) is None:
        return None
    value = given[name].value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise refusal(given, name, what=f"{name} must be a number, but it is {given[name].text!r}", why="")
    return value


def whole(given: Given, *names: str) -> int | None:
    """As `number`, of at least 1 and without a fraction."""
    if (value := number(given, *names)) is None:
        return None
    if value < 1 or value != int(value):
        name = first(given, *names) or ""
        what = f"{name} must be a whole number of at least 1, but it is {given[name].text}"
        raise refusal(given, name, what=what, why="")
    return int(value)


def truth(given: Given, *names: str) -> bool | None:
    """The truth value that the first given of the names holds; None if none is given."""
    if (name := first(given, *names)) is None:
        return None
    if not isinstance(value := given[name].value, bool):
        raise refusal(given, name, what=f"{name} must be true or false, but it is {given[name].text!r}", why="")
    return value


def word(given: Given, *names: str) -> str | None:
    """The word that the first given of the names holds, in lower case; YAML's `no` is a word here too."""
    name = first(given, *names)
    return None if name is None else given[name].text.lower()


def mapping(given: Given, name: str) -> dict[str, Any]:
    """The keys below a name: a mapping in YAML, or text that holds one, as on the command line; empty if not given."""
    value = given[name].value if name in given else None
    if isinstance(value, str) and value.lstrip().startswith("{"):
        import yaml

        try:
            value = yaml.safe_load(value)
        except yaml.YAMLError:
            value = None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise refusal(given, name, what=f"{name} must hold keys, but it is {given[name].text!r}", why="")
    return {key: scalar(item) if isinstance(item, str) else item for key, item in value.items()}


def batch(given: Given) -> Meaning:
    """Sequences per step are per_device_train_batch_size × gradient_accumulation_steps, on one device."""
    at_once = whole(given, "per_device_train_batch_size", "per_gpu_train_batch_size")
    accumulated = whole(given, "gradient_accumulation_steps") or 1
    finds = truth(given, "auto_find_batch_size")
    if at_once is None:
        if accumulated > 1:
            raise refusal(
                given,
                "gradient_accumulation_steps",
                what="gradient_accumulation_steps says nothing without per_device_train_batch_size",
                why="it follows from train.batch_size, which the model learns with, "
                "and train.micro_batch_size, which fits",
                suggestion="per_device_train_batch_size beside it, or train.batch_size without it",
            )
        return Meaning((Setting("train.micro_batch_size", "auto"),) if finds else ())
    return Meaning(
        (
            Setting("train.batch_size", at_once * accumulated),
            Setting("train.micro_batch_size", "auto" if finds else at_once),
        )
    )


def length(given: Given) -> Meaning:
    """max_steps above 0 overrides num_train_epochs; the Trainer sees every sample once an epoch, shuffled."""
    steps, epochs = number(given, "max_steps"), number(given, "num_train_epochs")
    if steps is not None and steps > 0:
        return Meaning((Setting("train.max_iters", steps),), "it overrides num_train_epochs" if epochs else "")
    if epochs is None:
        return Meaning()
    return Meaning((Setting("train.epochs", epochs), Setting("data.order", "epochs", implied=True)))


def warmup(given: Given) -> Meaning:
    """Steps, or below 1 a share of all of them; steps above 0 win over the share of older versions."""
    steps, ratio = number(given, "warmup_steps"), number(given, "warmup_ratio")
    if steps or ratio is None:
        return Meaning((Setting("train.warmup_iters", steps),) if steps is not None else ())
    if not 0 <= ratio < 1:
        raise refusal(given, "warmup_ratio", what=f"warmup_ratio must be below 1, but it is {ratio:g}", why="")
    return Meaning((Setting("train.warmup_iters", ratio),))


def precision(given: Given) -> Meaning:
    """fp16 or bf16; neither is fp32 there, with tf32's matrix products where that is true."""
    fp16, bf16, tf32 = (truth(given, name) for name in ("fp16", "bf16", "tf32"))
    if fp16 and bf16:
        raise refusal(
            given,
            "fp16",
            "bf16",
            what="fp16 and bf16 cannot both be true",
            why="a run computes in one precision",
            suggestion="train.precision: auto",
        )
    if fp16 is bf16 is tf32 is None:
        return Meaning()
    return Meaning((Setting("train.precision", "fp16" if fp16 else "bf16" if bf16 else "tf32" if tf32 else "fp32"),))


def checkpointing(given: Given) -> Meaning:
    """True is every block computed again in the backward pass."""
    wanted = truth(given, "activation_checkpointing", "gradient_checkpointing")
    if wanted is None:
        return Meaning()
    return Meaning((Setting("train.activation_checkpointing", "whole" if wanted else "none"),))


def optimizer(given: Given) -> Meaning:
    """The optimizer of that name; the Trainer's SGD has no momentum."""
    if (name := word(given, "optim")) is None:
        return Meaning()
    ours = next((key for key, names in OPTIMIZERS.items() if name in names), None)
    if ours is None:
        raise refusal(
            given,
            "optim",
            why="the optimizers are adamw, muon, adamw8bit, adafactor and sgd",
            suggestion="train.optimizer: " + ("adamw8bit" if "8bit" in name else "adamw"),
        )
    settings = [Setting("train.optimizer", ours)]
    if ours == "sgd":
        settings.append(Setting("train.momentum", 0.0, implied=True))
    paged = "its state stays on the device; train.optimizer_offload: true puts it into the CPU's memory"
    return Meaning(tuple(settings), paged if name.startswith("paged") else "")


def logging(given: Given) -> Meaning:
    """Steps between logged steps, or below 1 a share of all."""
    return Meaning(_interval(given, "log.interval", "logging_steps", "logging_strategy"))


def evaluation(given: Given) -> Meaning:
    """Steps between evaluations, by `eval_strategy: steps` as many as logging_steps unless eval_steps says more."""
    kind = word(given, "eval_strategy", "evaluation_strategy")
    if kind == "no":
        note = "there is always an evaluation, which finds the best checkpoint; train.eval_interval says how often"
        return Meaning(note=note)
    steps = "logging_steps" if kind == "steps" and not first(given, "eval_steps") else "eval_steps"
    return Meaning(_interval(given, "train.eval_interval", steps, "eval_strategy", "evaluation_strategy"))


def saving(given: Given) -> Meaning:
    """Steps between checkpoints."""
    match word(given, "save_strategy"):
        case "no":
            return Meaning(note="there is always a checkpoint to go on from; train.keep_last says how many are kept")
        case "best":
            return Meaning(note="the best checkpoint is always kept, besides the last ones")
    return Meaning(_interval(given, "train.checkpoint_interval", "save_steps", "save_strategy"))


def _interval(given: Given, key: str, steps: str, *strategies: str) -> tuple[Setting, ...]:
    """Steps, or below 1 a share of all of them; `epoch` is the share that one epoch has."""
    kind, name = word(given, *strategies), first(given, *strategies) or ""
    if kind == "epoch":
        epochs, most = number(given, "num_train_epochs"), number(given, "max_steps")
        if epochs is None or (most is not None and most > 0):
            raise refusal(
                given,
                name,
                what=f"{name}: epoch needs num_train_epochs beside it, and no max_steps",
                why="an epoch is a share of all steps here",
                suggestion=f"{key}, in steps or as a share of all",
            )
        return (Setting(key, 1 / epochs),) if epochs > 1 else ()  # the end of a run is always one
    if kind not in (None, "steps"):
        raise refusal(given, name, why="it is one of steps and epoch", suggestion=key)
    wanted = number(given, steps)
    return () if wanted is None else (Setting(key, wanted),)


def kept(given: Given) -> Meaning:
    """How many checkpoints are kept; without a limit the Trainer keeps all of them."""
    limit = number(given, "save_total_limit")
    if limit is None or limit <= 0:
        return Meaning(note="train.keep_last are kept, and the best one") if "save_total_limit" in given else Meaning()
    return Meaning((Setting("train.keep_last", limit),), "the best one is kept besides")


def naming(given: Given) -> Meaning:
    """The run's directory: run_name, else the last part of output_dir."""
    if (name := first(given, "run_name")) is not None:
        return Meaning((Setting("name", given[name].text),))
    if (name := first(given, "output_dir")) is None:
        return Meaning()
    path = PurePath(given[name].text.replace("\\", "/"))
    return Meaning((Setting("name", path.name or str(path)),), "runs lie under results/, or $GANEUM_RESULTS")


def seeds(given: Given) -> Meaning:
    """One seed serves weights, order of the data and dropout."""
    seed, data = number(given, "seed"), number(given, "data_seed")
    if data is not None and data != seed:
        raise refusal(
            given, "data_seed", why="one seed serves weights, order of the data and dropout", suggestion="seed"
        )
    return Meaning((Setting("seed", seed),) if seed is not None else ())


def place(given: Given) -> Meaning:
    """use_cpu, in older versions no_cuda."""
    wanted = truth(given, "use_cpu", "no_cuda")
    return Meaning((Setting("device", "cpu"),) if wanted else ())


def tracking(given: Given) -> Meaning:
    """The trackers that are listed, under `project`; TensorBoard's files only if they are."""
    if (name := first(given, "report_to")) is None:
        return Meaning()
    listed = given[name].value
    words = listed if isinstance(listed, list) else given[name].text.replace(",", " ").split()
    asked = [str(item).lower() for item in words]
    trackers = [item for item in asked if item not in ("none", "null")]
    if trackers and trackers != asked:
        raise refusal(
            given,
            name,
            what=f"{name} cannot be both none and {', '.join(trackers)}",
            why="only one of them could count",
            suggestion="remove one of them",
        )
    unknown = [tracker for tracker in trackers if tracker not in TRACKERS]
    if unknown:
        raise refusal(
            given,
            name,
            what=f"report_to: {', '.join(unknown)} has no meaning here",
            why=f"the trackers are {', '.join(TRACKERS)}",
            suggestion="report_to: tensorboard, whose files most trackers read",
        )
    project = given["project"].text if first(given, "project") else PROJECT
    settings = [Setting(TRACKERS[tracker], project, implied=True) for tracker in trackers if tracker != "tensorboard"]
    return Meaning((Setting("log.tensorboard", "tensorboard" in trackers), *settings))
