"""What a DeepSpeed config comes to on one device: who takes the steps, what lies in the CPU's memory, how it learns.

From stage 2 on DeepSpeed's own engine takes the steps (`train.zero`), with the file's own numbers for it; below, there
is nothing that one device could share out, and ganeum's step does what the file says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganeum.config.huggingface_rules import Given, Meaning, Setting, refusal
from ganeum.config.source import Value, shown
from ganeum.config.zero import ENGINE, OFFLOADS, TOLD, is_number
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
# What changes nothing where one process talks to nobody, checkpoints are ganeum's own, and no disk is offloaded to.
IDLE = {
    "elastic_checkpoint",
    "load_from_fp32_weights",
    "overlap_comm",
    "stage3_gather_16bit_weights_on_model_save",
    "stage3_gather_fp16_weights_on_model_save",
    "use_multi_rank_bucket_allreduce",
}
OF_A_DISK = {"buffer_count", "buffer_size", "fast_init", "max_in_cpu", "nvme_path", "pipeline_read", "pipeline_write"}
OF_AN_OFFLOAD = {"device", "pin_memory", *OF_A_DISK}
ONE_DEVICE = "on one device ZeRO's stages 0 and 1 have nothing to share out: ganeum's own step, with the offload"
THEIR_ENGINE = "DeepSpeed's engine takes the steps"
STRAIGHT = "; the warm-up is a straight line"  # where DeepSpeed's is logarithmic unless told otherwise


def deepspeed(given: Given) -> Meaning:
    """`deepspeed`: a path or the config itself → train.zero, the offload, precision, clipping, optimizer and schedule.

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
            why="of its parts zero_optimization, optimizer, scheduler, bf16, fp16 and gradient_clipping are understood",
            suggestion="train.activation_checkpointing, if that is what it was for"
            if "activation_checkpointing" in unknown
            else "the file without it",
        )
    engine = any(setting.key == "train.zero.stage" for setting in settings)
    if engine:
        settings += _options(given, config)
    return Meaning(
        tuple(settings), (THEIR_ENGINE if engine else ONE_DEVICE) + (STRAIGHT if "scheduler" in config else "")
    )


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
        except (OSError, UnicodeDecodeError) as error:
            missing = isinstance(error, FileNotFoundError)
            raise ConfigError(
                f"the DeepSpeed config {shown(path)} cannot be read",
                where=str(value.place),
                why="there is no such file, neither beside the config nor here" if missing else str(error),
                suggestion="the file's own path; or without one train.optimizer_offload: true, which such a file is "
                "for on one device",
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
    stage = options.get("stage", 0)
    if stage not in range(4):
        raise _no_meaning(given, "zero_optimization.stage", stage, "it is one of 0, 1, 2 and 3")
    device = {
        part: _keys(given, f"zero_optimization.{part}", options.get(part)).get("device", "none") for part in OFFLOADS
    }
    if options.get("cpu_offload") is True:  # as they were written until DeepSpeed 0.3.16
        device["offload_optimizer"] = "cpu"
    if options.get("cpu_offload_param") is True:
        device["offload_param"] = "cpu"
    for part, where in device.items():
        if where not in ("none", "cpu"):
            raise refusal(
                given,
                "deepspeed",
                what=f"deepspeed: zero_optimization.{part} cannot be on {where} here",
                why="what is offloaded lies in the CPU's memory",
                suggestion=f'"{part}": {{"device": "cpu"}}',
            )
    if device["offload_param"] == "cpu" and stage != 3:
        raise refusal(
            given,
            "deepspeed",
            what=f"deepspeed: zero_optimization.offload_param has no meaning in stage {stage}",
            why="only stage 3 takes a weight to the device when its layer computes",
            suggestion='"stage": 3, or offload_optimizer alone',
        )
    settings = [Setting("train.optimizer_offload", True)] if device["offload_optimizer"] == "cpu" else []
    if stage >= ENGINE:
        settings.append(Setting("train.zero.stage", stage))
        settings += [Setting("train.zero.weights_offload", True)] if device["offload_param"] == "cpu" else []
    return settings


def _options(given: Given, config: Mapping[str, Any]) -> list[Setting]:
    """What the engine is told as the file says; `auto` is what is said nowhere.

    Raises:
        ConfigError: for what it would do otherwise than DeepSpeed does with this file.
    """
    zero = _keys(given, "zero_optimization", config["zero_optimization"])
    half = {part: _keys(given, part, config.get(part)) for part in ("fp16", "bf16")}
    same = {"enabled": half["bf16"].get("enabled"), "check_grad_overflow": True, "immediate_grad_update": False}
    found: dict[str, dict[str, Any]] = {"zero_optimization": {}, "fp16": {}}
    for name, value in zero.items():
        if name in OFFLOADS:
            found["zero_optimization"] |= _offload(given, name, _keys(given, f"zero_optimization.{name}", value))
        elif name not in {*IDLE, "stage", "cpu_offload", "cpu_offload_param"}:
            found["zero_optimization"] |= _told(given, "zero_optimization", name, value)
    for name, value in half["fp16"].items():
        if name != "enabled" and (name, value) != ("auto_cast", False):
            found["fp16"] |= _told(given, "fp16", name, value)
    for name, value in half["bf16"].items():
        if value not in ("auto", same.get(name)):
            raise _no_meaning(
                given, f"bf16.{name}", value, "a gradient that is not finite is skipped, all else is fp32"
            )
    text = json.dumps({part: content for part, content in found.items() if content}, sort_keys=True)
    return [Setting("train.zero.options", text)] if text != "{}" else []


def _told(given: Given, part: str, name: str, value: object) -> dict[str, Any]:
    if name not in TOLD[part]:
        raise _no_meaning(given, f"{part}.{name}", value, f"known are {', '.join(TOLD[part])}")
    if value != "auto" and not is_number(value):
        raise _no_meaning(given, f"{part}.{name}", value, 'it is a number, true, false or "auto"')
    return {} if value == "auto" else {name: value}


def _offload(given: Given, part: str, content: Mapping[str, Any]) -> dict[str, Any]:
    for name, value in content.items():
        if name not in OF_AN_OFFLOAD and (name, value) != ("ratio", 1.0):
            raise _no_meaning(given, f"zero_optimization.{part}.{name}", value, "known are device and pin_memory")
    pinned = content.get("pin_memory", "auto")
    if pinned != "auto" and not isinstance(pinned, bool):
        raise _no_meaning(given, f"zero_optimization.{part}.pin_memory", pinned, "it is true or false")
    return {} if pinned == "auto" else {part: {"pin_memory": pinned}}


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
