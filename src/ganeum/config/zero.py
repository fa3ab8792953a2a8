"""`train.zero`: what DeepSpeed's engine can be told, and what it does not go together with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ganeum.config.schema import Config
from ganeum.errors import ConfigError

ENGINE = 2  # from this stage on DeepSpeed's engine takes the steps
# What it is told as the file says (0.19.8, deepspeed/runtime/zero/config.py and precision_config.py).
TOLD = {
    "zero_optimization": (
        "allgather_bucket_size",
        "allgather_partitions",
        "contiguous_gradients",
        "ignore_unused_parameters",
        "reduce_bucket_size",
        "reduce_scatter",
        "round_robin_gradients",
        "stage3_max_live_parameters",
        "stage3_max_reuse_distance",
        "stage3_model_persistence_threshold",
        "stage3_param_persistence_threshold",
        "stage3_prefetch_bucket_size",
        "sub_group_size",
    ),
    "fp16": (
        "consecutive_hysteresis",
        "hysteresis",
        "initial_scale_power",
        "loss_scale",
        "loss_scale_window",
        "min_loss_scale",
    ),
}
OFFLOADS = ("offload_optimizer", "offload_param")


def check(config: Config, at: Callable[..., str], right: Callable[..., bool]) -> Iterator[ConfigError]:
    """Every contradiction of `config` that is about DeepSpeed's engine; the arguments are those of
    `checks.contradictions`."""
    train, zero = config.train, config.train.zero
    if not right("train.zero.stage", "train.zero.weights_offload", "train.zero.options"):
        return
    if zero.weights_offload and zero.stage != 3:
        yield ConfigError(
            f"train.zero.weights_offload is true, and train.zero.stage {zero.stage}",
            where=at("train.zero.weights_offload", "train.zero.stage"),
            why="only stage 3 takes a weight to the device when its layer computes",
            suggestion="train.zero.stage: 3, or train.zero.weights_offload: false",
        )
    if zero.options is not None and (wrong := _wrong(zero.options)):
        yield ConfigError(
            f"train.zero.options {wrong}", where=at("train.zero.options"), suggestion="train.zero.options: null"
        )
    if zero.stage < ENGINE:
        return
    for key, said, those, why in (
        (
            "train.optimizer",
            train.optimizer,
            ("adamw",),
            "it keeps all weights in one flat row, where no matrix is seen",
        ),
        ("train.weights", train.weights, ("fp32",), "it keeps them in train.precision, and in fp32 behind that"),
        ("train.lora.rank", train.lora.rank, (None,), "what it saves is the state of weights that are trained"),
        (
            "train.compile",
            train.compile,
            ("auto", False),
            "it gathers weights between the layers, where code is not compiled",
        ),
        (
            "device",
            config.device.split(":")[0],
            ("auto", "cpu", "cuda"),
            "it was tried on CPUs and written for NVIDIA GPUs",
        ),
    ):
        if right(key) and said not in those:
            yield ConfigError(
                f"{key} is {str(said).lower()}, and train.zero.stage {zero.stage}",
                where=at(key, "train.zero.stage"),
                why=f"DeepSpeed's engine does not take that: {why}",
                suggestion=f"{key}: {'null' if those[0] is None else those[0]}, or train.zero.stage: 0",
            )


def options(text: str | None) -> dict[str, dict[str, Any]]:
    """`train.zero.options` → what DeepSpeed is told, by its own names: `zero_optimization`, `fp16`."""
    return json.loads(text) if text else {}


def _wrong(text: str) -> str | None:
    """What `train.zero.options` cannot be, if it is not what config/deepspeed.py writes."""
    try:
        parts = options(text)
    except ValueError as error:
        return f"is no JSON: {str(error).lower()}"
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        return "must hold the parts of a ds_config.json, each with its keys"
    names = [f"{part}.{name}" for part, content in parts.items() for name in content]
    known = {f"{part}.{name}" for part, found in TOLD.items() for name in found}
    known |= {f"zero_optimization.{offload}" for offload in OFFLOADS}
    if unknown := [name for name in names if name not in known]:
        return f"says {', '.join(unknown)}, which means nothing here"
    return next((f"says {name}: {json.dumps(value)}" for name, value in _numbers(parts) if not is_number(value)), None)


def _numbers(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, object]]:
    for part, content in parts.items():
        for name, value in content.items():
            yield f"{part}.{name}", value.get("pin_memory") if isinstance(value, dict) else value


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and value >= 0  # true and false are numbers too
