"""What a DeepSpeed config comes to on one device: where the optimizer's state lies, and how it says to learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganeum.config.huggingface_rules import Given, Meaning, Setting, refusal
from ganeum.config.source import Value, shown
from ganeum.errors import ConfigError

# Parts that change nothing on one device.
WITHOUT_EFFECT = {
    "communication_data_type",
    "comms_logger",
    "dump_state",
    "prescale_gradients",
    "sparse_gradients",
    "steps_per_print",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
}
BATCH = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size")
# What a part's numbers are here; of a tuple those that say what is so anyway. DeepSpeed's Adam is AdamW unless told
# otherwise (0.19.8, deepspeed/ops/adam: adam_w_mode), and its schedules are those of deepspeed/runtime/lr_schedules.py.
OPTIMIZER: dict[str, str | tuple[object, ...]] = {
    "lr": "train.learning_rate",
    "weight_decay": "train.weight_decay",
    "betas": ("train.beta1", "train.beta2"),
    "eps": (1e-8,),
    "adam_w_mode": (True,),
    "torch_adam": (True, False),
    "bias_correction": (True,),
}
SCHEDULER: dict[str, str | tuple[object, ...]] = {
    "warmup_max_lr": "train.learning_rate",
    "warmup_num_steps": "train.warmup_iters",
    "total_num_steps": "train.max_iters",
    "warmup_min_lr": (0,),
    "warmup_type": ("linear",),
    "last_batch_iteration": (-1,),
}
SCHEDULES = {
    "WarmupLR": (Setting("train.schedule", "constant"),),
    "WarmupDecayLR": (
        Setting("train.schedule", "wsd"),
        Setting("train.decay_share", 1.0, implied=True),
        Setting("train.min_learning_rate", 0.0, implied=True),
    ),
}
ADAMW = (Setting("train.optimizer", "adamw"),)
ONE_DEVICE = "on one device ZeRO has nothing to share out: of its stages only the offload is left"
STRAIGHT = "; the warm-up is a straight line"  # where DeepSpeed's is logarithmic unless told otherwise


def deepspeed(given: Given) -> Meaning:
    """`deepspeed`: a path or the config itself → train.optimizer_offload, precision, clipping, optimizer and schedule.

    A number there is that number here; `auto` is what Hugging Face's own names say, as in the Trainer.

    Raises:
        ConfigError: it cannot be read, or holds a part that means nothing here and changes what is learnt.
    """
    if "deepspeed" not in given or not given["deepspeed"].value:
        return Meaning()
    config = _read(given["deepspeed"])
    settings: list[Setting] = []
    unknown: list[str] = []
    for part, content in config.items():
        if part == "zero_optimization":
            settings += _zero(given, content)
        elif part in ("bf16", "fp16"):
            enabled = _keys(given, part, content).get("enabled", "auto")
            if not isinstance(enabled, bool) and enabled != "auto":
                raise _no_meaning(given, f"{part}.enabled", enabled, 'it is one of true, false and "auto"')
            settings += [Setting("train.precision", part)] if enabled is True else []
        elif part == "gradient_clipping":
            settings += [] if content == "auto" else [Setting("train.grad_clip", content)]
        elif part in BATCH:
            _check_batch(given, part, content)
        elif part == "optimizer":
            settings += _learning(given, part, content, dict.fromkeys(("Adam", "AdamW"), ADAMW), OPTIMIZER)
        elif part == "scheduler":
            settings += _learning(given, part, content, SCHEDULES, SCHEDULER)
        elif part not in WITHOUT_EFFECT:
            unknown.append(part)
    if len({setting.value for setting in settings if setting.key == "train.precision"}) > 1:
        raise _no_meaning(given, "bf16.enabled", True, "fp16 is enabled too, and a run computes in one precision")
    if unknown:
        raise refusal(
            given,
            "deepspeed",
            what=f"deepspeed: {', '.join(unknown)} {'has' if len(unknown) == 1 else 'have'} no meaning here",
            why="of its parts the optimizer, its offload, scheduler, bf16, fp16 and gradient_clipping are understood",
            suggestion="train.activation_checkpointing, if that is what it was for"
            if "activation_checkpointing" in unknown
            else "the file without it",
        )
    return Meaning(tuple(settings), ONE_DEVICE + (STRAIGHT if "scheduler" in config else ""))


def _read(value: Value) -> Mapping[str, Any]:
    """The config itself, JSON text that holds it, or the file there: beside the config, else where the user stands."""
    content = value.value
    if isinstance(content, dict):
        return content
    text = str(content)
    if not text.lstrip().startswith("{"):
        beside = value.place.file.parent / text if value.place.file else Path(text)
        path = beside if beside.is_file() else Path(text)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            raise ConfigError(
                f"the DeepSpeed config {shown(path)} cannot be read",
                where=str(value.place),
                suggestion="train.optimizer_offload: true, which such a file is for on one device",
            ) from None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise ConfigError(
            "the DeepSpeed config is not valid JSON", where=str(value.place), why=str(error).lower()
        ) from None
    if not isinstance(config, dict):
        raise ConfigError("the DeepSpeed config must hold keys", where=str(value.place))
    return config


def _keys(given: Given, part: str, content: object) -> Mapping[str, Any]:
    """What lies below a part; null is nothing."""
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _no_meaning(given, part, content, "it holds keys with values")
    return content


def _no_meaning(
    given: Given, name: str, value: object, why: str, suggestion: str = "the file without it"
) -> ConfigError:
    what = f"deepspeed: {name}: {json.dumps(value)} has no meaning here"
    return refusal(given, "deepspeed", what=what, why=why, suggestion=suggestion)


def _zero(given: Given, content: object) -> list[Setting]:
    options = _keys(given, "zero_optimization", content)
    if options.get("stage", 0) not in range(4):
        raise _no_meaning(given, "zero_optimization.stage", options["stage"], "it is one of 0, 1, 2 and 3")
    device = {
        part: _keys(given, f"zero_optimization.{part}", options.get(part)).get("device")
        for part in ("offload_optimizer", "offload_param")
    }
    if device["offload_param"] not in (None, "none"):
        raise refusal(
            given,
            "deepspeed",
            what="deepspeed: zero_optimization.offload_param has no meaning here",
            why="weights stay on the device that computes with them",
            suggestion="offload_optimizer, and train.weights: bf16",
        )
    if device["offload_optimizer"] == "nvme":
        raise refusal(
            given,
            "deepspeed",
            what="deepspeed: zero_optimization.offload_optimizer cannot be on nvme here",
            why="the optimizer's state lies on the device or in the CPU's memory",
            suggestion='"offload_optimizer": {"device": "cpu"}',
        )
    offloaded = device["offload_optimizer"] == "cpu" or options.get("cpu_offload") is True
    return [Setting("train.optimizer_offload", True)] if offloaded else []


def _learning(
    given: Given,
    part: str,
    content: object,
    types: Mapping[str, tuple[Setting, ...]],
    known: Mapping[str, str | tuple[object, ...]],
) -> list[Setting]:
    """What `optimizer` and `scheduler` say: a type with its parameters, of which none is passed over."""
    options = _keys(given, part, content)
    kind = options.get("type")
    if not isinstance(kind, str) or kind not in types:
        instead = "train.optimizer" if part == "optimizer" else "lr_scheduler_type in its place"
        raise _no_meaning(given, f"{part}.type", kind, f"it is one of {', '.join(types)}", instead)
    settings = list(types[kind])
    for name, value in _keys(given, f"{part}.params", options.get("params")).items():
        meaning = known.get(name, ())
        if value == "auto":
            continue
        if isinstance(meaning, str):
            settings.append(Setting(meaning, value))
        elif name == "betas":
            if not isinstance(value, list) or len(value) != len(meaning):
                raise _no_meaning(given, f"{part}.params.betas", value, "they are two numbers")
            settings += [Setting(str(key), beta) for key, beta in zip(meaning, value, strict=True)]
        elif value not in meaning:
            why = f"it is {json.dumps(meaning[0])} here" if meaning else f"known are {', '.join(known)}"
            raise _no_meaning(given, f"{part}.params.{name}", value, why)
    return settings


def _check_batch(given: Given, part: str, content: object) -> None:
    """A number in both places must be one number, as the Trainer has it."""
    sequences, accumulated = "per_device_train_batch_size", "gradient_accumulation_steps"
    at_once = given[sequences].value if sequences in given else None
    steps = given[accumulated].value if accumulated in given else 1
    name, said = {
        "train_micro_batch_size_per_gpu": (sequences, at_once),
        "gradient_accumulation_steps": (accumulated, steps),
        "train_batch_size": (
            f"{sequences} × {accumulated}",
            at_once * steps if isinstance(at_once, int) and isinstance(steps, int) else None,
        ),
    }[part]
    if content not in ("auto", said):
        raise refusal(
            given,
            "deepspeed",
            what=f"deepspeed: {part} is {content}, but {name} " + (f"is {said}" if said else "is not set beside it"),
            why="",
            suggestion=f'"{part}": "auto", and {name} in the config',
        )
