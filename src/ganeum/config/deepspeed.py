"""What a DeepSpeed config comes to on one device: where the optimizer's state lies, the precision, the clipping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ganeum.config.huggingface_rules import Given, Meaning, Setting, refusal
from ganeum.config.source import Value, shown
from ganeum.errors import ConfigError

# Parts that change nothing on one device, or that Hugging Face's own names say.
WITHOUT_EFFECT = {
    "communication_data_type",
    "comms_logger",
    "dump_state",
    "optimizer",
    "prescale_gradients",
    "scheduler",
    "sparse_gradients",
    "steps_per_print",
    "train_batch_size",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
}
ONE_DEVICE = "on one device ZeRO has nothing to share out: of its stages only the offload is left"


def deepspeed(given: Given) -> Meaning:
    """`deepspeed`: a path or the config itself → train.optimizer_offload, train.precision, train.grad_clip.

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
            if isinstance(content, dict) and content.get("enabled") is True:
                settings.append(Setting("train.precision", part))
        elif part == "gradient_clipping":
            settings += [] if content == "auto" else [Setting("train.grad_clip", content)]
        elif part in ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps"):
            _check_batch(given, part, content)
        elif part not in WITHOUT_EFFECT:
            unknown.append(part)
    if unknown:
        raise refusal(
            given,
            "deepspeed",
            what=f"deepspeed: {', '.join(unknown)} {'has' if len(unknown) == 1 else 'have'} no meaning here",
            why="of its parts the optimizer's offload, bf16, fp16 and gradient_clipping are understood",
            suggestion="train.activation_checkpointing, if that is what it was for"
            if "activation_checkpointing" in unknown
            else "the file without it",
        )
    return Meaning(tuple(settings), ONE_DEVICE)


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


def _zero(given: Given, content: object) -> list[Setting]:
    options = content if isinstance(content, dict) else {}
    offloads = {part: options.get(part) for part in ("offload_optimizer", "offload_param")}
    device = {part: one.get("device") if isinstance(one, dict) else None for part, one in offloads.items()}
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


def _check_batch(given: Given, part: str, content: object) -> None:
    """A number in both places must be one number, as the Trainer has it."""
    name = "per_device_train_batch_size" if part.startswith("train_") else part
    said = given[name].value if name in given else None
    if content != "auto" and content != said:
        raise refusal(
            given,
            "deepspeed",
            what=f"deepspeed: {part} is {content}, but {name} " + (f"is {said}" if said else "is not set beside it"),
            why="",
            suggestion=f'"{part}": "auto", and {name} in the config',
        )
