"""The plan of a model by its name: what training, evaluating or running somebody else's model takes on a device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ganeum
from ganeum import units
from ganeum.config.batch import divisors
from ganeum.config.checks import beyond
from ganeum.config.schema import Lora
from ganeum.errors import ConfigError
from ganeum.hardware.device import Device
from ganeum.plan import critique, execution, fastest, flops, memory, parameters, sections
from ganeum.plan.architecture import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.fastest import Choice, Found, Open
from ganeum.plan.question.use import Use

LENGTH, SOURCE_LENGTH, TARGET_LENGTH = 1024, 512, 128  # tokens, where nothing is said and the model knows as many
LARGEST = {"length": 10**9, "source_length": 10**9, "batch_size": 10**9, "micro_batch_size": 10**9, "devices": 10**6}
LARGEST |= {"beams": 10**6, "tokens": 10**18, "hours": 10**6}
TOGETHER = tuple(2**power for power in range(11))  # sequences, where the batch is as large as fits


def plan(architecture: Architecture, use: Use, device: Device, *, may_shorten: bool = False) -> dict[str, Any]:
    """Like :func:`ganeum.plan.closed_form.plan`, of a model that is not one of our configs.

    Args:
        may_shorten: the lengths are halved until something fits.

    Returns:
        ganeum_version, name, method, purpose, model, device, parameters, flops, data (of training with ``tokens``),
        batch, memory_gib, time (of one step; without training of one batch), choices, warnings.

    Raises:
        ConfigError: what is asked for cannot be together, or not of this model.
    """
    _check(architecture, use, device)
    found = _planned(architecture, use, device)
    asked = length = found["model"]["length"]
    while may_shorten and not found["memory_gib"]["fits"] and (length := length // 2) >= fastest.SHORTEST:
        source = {key: max(1, found["model"][key] // 2) for key in ("source_length",) if key in found["model"]}
        found = _planned(architecture, use.model_copy(update={"length": length} | source), device)
    if length < asked and found["memory_gib"]["fits"]:
        reason = f"{asked:,} tokens fit in no way that is allowed: halved until they did"
        found["choices"].insert(0, {"key": "length", "value": length, "reason": reason})
    return found


def _planned(architecture: Architecture, use: Use, device: Device) -> dict[str, Any]:
    choices: list[Choice] = []
    base = _base(architecture, use, device, choices)
    found = fastest.among(architecture, base, device, _open(use, base, device))
    way = found.way.execution
    if use.weights == "auto" and use.purpose != "training":
        choices.append({"key": "weights", "value": way.weights, "reason": "as they are computed with"})
    choices += _choices(use, found, device)
    counted, work = parameters.of(architecture, way.lora), flops.of(architecture, way)
    sequences = way.micro_batch_size * way.accumulation * way.devices
    step = found.way.time
    steps = math.ceil(use.tokens / (sequences * way.length)) if use.tokens else None
    if use.hours and step:
        steps = max(1, int(use.hours * 3600 / step.step_s))
    hours = None if steps is None or step is None else steps * step.step_s / 3600
    result: dict[str, Any] = {
        "ganeum_version": ganeum.__version__,
        "name": architecture.name,
        "method": "closed_form",
        "purpose": use.purpose,
        "model": sections.somebody_elses(architecture, way),
        "device": sections.device(device, way.precision),
        "parameters": sections.parameters(counted),
        "flops": sections.flops(work, steps),
        "data": {"steps": steps, "tokens_seen": None if steps is None else steps * sequences * way.length},
        "batch": {
            "batch_size": sequences,
            "micro_batch_size": way.micro_batch_size,
            "gradient_accumulation_steps": way.accumulation,
            "devices": way.devices if way.devices > 1 else None,
            "largest_micro_batch": fastest.largest(architecture, way, device),
            "tokens_per_step": sequences * way.length,
            "source_tokens_per_step": sequences * way.source_length or None,
        },
        "memory_gib": sections.memory(found.way.memory, device),
        "time": step
        and sections.predicted_time(step, work.per_step, device.peak(way.precision), hours, devices=way.devices),
        "choices": choices,
        "warnings": _warnings(architecture, use, found, device, steps),
    }
    return {key: sections.without_none(value) for key, value in result.items() if value is not None}


def settled(architecture: Architecture, use: Use, device: Device) -> Execution:
    """How ``use`` runs on ``device`` before anything is chosen: one sequence at once where no batch is asked for.

    Raises:
        ConfigError: what is asked for cannot be together, or not of this model.
    """
    _check(architecture, use, device)
    return _base(architecture, use, device, [])


def _check(architecture: Architecture, use: Use, device: Device) -> None:
    name = architecture.name
    for key, most in LARGEST.items():
        if error := beyond(key, getattr(use, key), most, where=f"{key}={getattr(use, key)}"):
            raise error
    longest = architecture.longest
    if longest is not None and use.length != "auto" and use.length > longest:
        raise ConfigError(
            f"{name} knows positions for {longest:,} tokens, and length is {use.length:,}",
            where=f"length={use.length}",
            suggestion=f"length={longest}",
        )
    if use.tokens and use.hours:
        raise ConfigError(
            "tokens and hours are both given",
            where=f"tokens={use.tokens:g} hours={use.hours:g}",
            why="each says when a training ends; the other follows from the speed",
            suggestion="one of them",
        )
    if use.source_length != "auto" and not architecture.encoder_decoder:
        raise ConfigError(
            f"{name} has no encoder, and source_length is {use.source_length:,}",
            where=f"source_length={use.source_length}",
            suggestion=f"length={use.source_length}, the tokens of one sequence",
        )
    if use.purpose == "training" and use.weights in ("int8", "nf4") and use.lora.rank is None:
        raise ConfigError(
            f"weights in {use.weights} cannot be trained",
            where=f"weights={use.weights}",
            why="an update is smaller than the step between two of their values: adapters are trained on them instead",
            suggestion="lora.rank=16",
        )
    if use.offload != "none" and device.kind != "cuda":
        raise ConfigError(
            f"offload is {use.offload}, and {device.name} is no GPU",
            where=f"offload={use.offload}",
            why="what is offloaded lies in the CPU's memory, where everything is here anyway",
            suggestion='--gpu "RTX 4090", or offload=none',
        )
    if use.batch_size != "auto" and use.batch_size % use.devices:
        raise ConfigError(
            f"batch_size must be a multiple of devices, but {use.batch_size} is not a multiple of {use.devices}",
            where=f"batch_size={use.batch_size} devices={use.devices}",
            why="each of them takes an equal share",
            suggestion=f"batch_size={-(-use.batch_size // use.devices) * use.devices}",
        )
    both = use.batch_size != "auto" and use.micro_batch_size != "auto" and use.purpose == "training"
    if both and use.batch_size % (use.micro_batch_size * use.devices):  # type: ignore[operator]
        raise ConfigError(
            f"batch_size must be a multiple of micro_batch_size · devices, but {use.batch_size} is none of "
            f"{use.micro_batch_size} · {use.devices}",
            where=f"batch_size={use.batch_size} micro_batch_size={use.micro_batch_size} devices={use.devices}",
            why="an optimizer step cannot end inside a micro-batch",
            suggestion="micro_batch_size=auto",
        )


def _base(architecture: Architecture, use: Use, device: Device, choices: list[Choice]) -> Execution:
    """What is settled before the micro-batch; the batch is that of one device."""

    def decided(key: str, value: Any, reason: str) -> Any:
        choices.append({"key": key, "value": value, "reason": reason})
        return value

    length, source = use.length, 0 if use.source_length == "auto" else use.source_length
    if architecture.encoder_decoder:
        if length == "auto":
            length = decided("length", TARGET_LENGTH, "a usual length of what is written; say length=N for another")
        if use.source_length == "auto":
            source = decided("source_length", SOURCE_LENGTH, "a usual length of what is read")
    elif length == "auto":
        most = min(architecture.longest or LENGTH, LENGTH)
        known = "all that" if most == architecture.longest else "of those that"
        length = decided("length", most, f"{known} the model knows positions for; say length=N for another")
    precision: execution.Precision = device.fast_precision if use.precision == "auto" else use.precision
    if use.precision == "auto" and (use.weights == "bf16" or use.weights == "fp16"):  # cast whole: nothing is autocast
        precision = use.weights
    weights = use.weights
    if weights == "auto":
        half: execution.Weights = precision if precision in ("bf16", "fp16") else "fp32"
        weights = "fp32" if use.purpose == "training" else half
    sequences = 1 if use.batch_size == "auto" else use.batch_size // use.devices
    return Execution(
        purpose=use.purpose,
        micro_batch_size=sequences,
        length=length,
        source_length=source,
        beams=use.beams,
        kind=device.kind,
        precision=precision,
        weights=weights,
        optimizer=use.optimizer,
        attention=execution.kernel(device, precision, architecture) if use.attention == "auto" else use.attention,
        lora=use.lora,
        zero_stage=use.zero_stage,
        offload=use.offload,
        devices=use.devices,
    )


def _open(use: Use, base: Execution, device: Device) -> Open:
    """What is left to choose."""
    if use.micro_batch_size != "auto":
        sizes: tuple[int, ...] = (use.micro_batch_size,)
    elif use.batch_size == "auto":
        sizes = TOGETHER
    elif use.purpose == "training":
        sizes = tuple(divisors(base.micro_batch_size))
    else:  # nothing is accumulated: it is all at once, or not at all
        sizes = (base.micro_batch_size,)
    level = use.activation_checkpointing
    levels: tuple[execution.Checkpointing, ...] = ("none", "whole") if level == "auto" else (level,)
    return Open(
        sizes=fastest.not_too_many(sizes, base.length + base.source_length, device),
        checkpointing=levels if use.purpose == "training" else ("none",),
        precisions=(base.precision,),
    )


def _choices(use: Use, found: Found, device: Device) -> Iterator[Choice]:
    way = found.way.execution
    why_size = fastest.why_size(found, device, None if use.batch_size == "auto" else use.batch_size // use.devices)
    if use.batch_size == "auto" and way.micro_batch_size == TOGETHER[-1]:
        why_size = "the most that is planned at once where no batch is asked for"
    cast = use.weights in ("bf16", "fp16")
    for key, value, reason in (
        ("precision", way.precision, "as the weights" if cast else fastest.why_precision(found, device)),
        ("activation_checkpointing", way.checkpointing, fastest.why_checkpointing(found, device)),
        ("attention", way.attention, _why_kernel(way)),
        ("micro_batch_size", way.micro_batch_size, why_size),
    ):
        if getattr(use, key) == "auto" and (use.purpose == "training" or key != "activation_checkpointing"):
            yield {"key": key, "value": value, "reason": reason}


def _why_kernel(way: Execution) -> str:
    if way.attention == "flash":
        return "torch's scaled_dot_product_attention takes it here: no T × T square in memory"
    return "torch's scaled_dot_product_attention, where flash does not take this card, precision or bias"


def _warnings(
    architecture: Architecture, use: Use, found: Found, device: Device, steps: int | None
) -> list[dict[str, Any]]:
    """What to mind, the gravest first."""
    way = found.way.execution
    step = critique.Step(
        architecture=architecture,
        execution=way,
        device=device,
        flops=flops.of(architecture, way),
        steps=steps,
        step_s=found.way.time.step_s if found.way.time else None,
        precision_chosen=use.precision == "auto" and use.weights not in ("bf16", "fp16"),
    )
    seen = [warning.as_dict() for warning in critique.of_any_model(step)]
    return seen if found.way.fits else [_does_not_fit(architecture, found, device), *seen]


@dataclass(frozen=True)
class _WayOut:
    typed: str
    changes: dict[str, Any]
    cost: str


WAYS_OUT = (
    _WayOut("optimizer=adamw8bit", {"optimizer": "adamw8bit"}, "AdamW with its state in 8 bits"),
    _WayOut("optimizer=adafactor", {"optimizer": "adafactor"}, "next to no state; another learning rate"),
    _WayOut("offload=optimizer", {"offload": "optimizer"}, "the state in the CPU's memory; each update waits for it"),
    _WayOut("lora.rank=16", {"lora": Lora(rank=16)}, "only adapters are trained"),
    _WayOut("lora.rank=16 weights=nf4", {"lora": Lora(rank=16), "weights": "nf4"}, "adapters on 4-bit weights"),
    _WayOut(
        "offload=optimizer_and_weights zero_stage=3",
        {"offload": "optimizer_and_weights", "zero_stage": 3},
        "everything in the CPU's memory; each layer waits for its weights",
    ),
)
INFERENCE = (
    _WayOut("weights=int8", {"weights": "int8"}, "a byte a weight"),
    _WayOut("weights=nf4", {"weights": "nf4"}, "half a byte a weight, and a little quality"),
)


def _does_not_fit(architecture: Architecture, found: Found, device: Device) -> dict[str, Any]:
    """As a warning of plan.json: what is needed, and what would make it fit."""
    least = found.way
    ways: list[str] = []
    for out in WAYS_OUT if least.execution.purpose == "training" else INFERENCE:
        needed = memory.of(architecture, replace(least.execution, **out.changes))
        if needed.fits(device):
            ways.append(f"{out.typed}: {units.gib(needed.total)}; {out.cost}")
    length = least.execution.length // 2
    while length >= fastest.SHORTEST:
        needed = memory.of(architecture, replace(least.execution, length=length))
        if needed.fits(device):
            ways.append(f"length={length}: {units.gib(needed.total)}")
            break
        length //= 2
    return {
        "severity": "error",
        "what": f"it does not fit into the memory of {device.name}",
        "figure": f"{units.gib(least.memory.total)} with {units.things(least.execution.micro_batch_size, 'sequence')} "
        f"at once, {device.usable_gib:.2f} GiB are usable",
        "try": "\n".join(ways[:4]) or "a larger GPU (--which-gpu lists those it fits on), or a smaller model",
    }
