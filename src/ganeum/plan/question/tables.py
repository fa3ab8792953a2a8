"""What fits where: models × GPUs × ways to run them, each with its memory, its largest micro-batch and its speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ganeum import units
from ganeum.hardware.device import Device
from ganeum.plan import fastest, memory, parameters, time
from ganeum.plan.architecture import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory import state
from ganeum.plan.page.table import Column, Table
from ganeum.plan.question import named
from ganeum.plan.question.use import Use, read
from ganeum.plan.time import StepTime

# How people make a training fit, as `ganeum plan` takes it. Offloading needs ZeRO, which needs no second GPU.
WHOLE = "activation_checkpointing=whole"
LEVERS: Mapping[str, tuple[str, ...]] = {
    "plain": ("activation_checkpointing=none",),
    "checkpointing": (WHOLE,),
    "8-bit state too": (WHOLE, "optimizer=adamw8bit"),
    "ZeRO-2 offload": (WHOLE, "zero_stage=2", "offload=optimizer"),
    "ZeRO-3 offload": (WHOLE, "zero_stage=3", "offload=optimizer_and_weights"),
}


def levers(settings: Sequence[str] = ()) -> dict[str, Use]:
    """The ways of ``LEVERS``, with these keys set in all of them (``["precision=fp16", "length=512"]``)."""
    return {name: read([*settings, *added]) for name, added in LEVERS.items()}


def row(architecture: Architecture, device: Device, use: Use, way: str = "") -> dict[str, Any]:
    """One line: ``use`` of the model on the device.

    Returns:
        model, parameters, gpu, usable_gib, purpose, way, length, source_length, batch (sequences at once that memory is
        given for: those asked for, else one), gib, low, high (memory of the device, expected and its bounds), fits
        (``yes``; ``perhaps``, when only its lower bound does; ``no``), host_gib (what is in the CPU's memory instead),
        largest (sequences at once; 0: not even one), tokens_per_second (with these; not where something is offloaded),
        hours (of ``use.tokens``). What is not known is not there.

    Raises:
        ConfigError: what is asked for cannot be together, or not of this model.
    """
    level = "none" if use.activation_checkpointing == "auto" else use.activation_checkpointing
    size = 1 if use.micro_batch_size == "auto" else use.micro_batch_size
    one = replace(named.settled(architecture, use, device), checkpointing=level, micro_batch_size=size)
    needed, usable = memory.of(architecture, one), device.usable_gib * units.GIB
    largest = fastest.largest(architecture, one, device)
    step = _time(architecture, replace(one, micro_batch_size=largest), device)
    found = {
        "model": architecture.name,
        "parameters": parameters.of(architecture).total,
        "gpu": device.name,
        "usable_gib": device.usable_gib,
        "purpose": use.purpose,
        "way": way or None,
        "length": one.length,
        "source_length": one.source_length or None,
        "batch": size,
        "gib": needed.total / units.GIB,
        "low": needed.least / units.GIB,
        "high": needed.most / units.GIB,
        "fits": "yes" if needed.fits(device) else "perhaps" if needed.least <= usable else "no",
        "host_gib": state.of(architecture, one).host / units.GIB or None,
        "largest": largest,
        "tokens_per_second": step.tokens_per_second if step else None,
        "hours": use.tokens / step.tokens_per_second / 3600 if step and use.tokens else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _time(architecture: Architecture, one: Execution, device: Device) -> StepTime | None:
    """None where nothing runs, and where each step waits for the CPU, whose share of the work is not known."""
    return time.of(architecture, one, device) if one.micro_batch_size and one.offload == "none" else None


COLUMNS = (
    Column("model", "model", left=True),
    Column("parameters", "parameters", units.count),
    Column("gpu", "GPU", left=True),
    Column("usable_gib", "usable GiB", "{:.1f}".format),
    Column("purpose", "for", left=True),
    Column("way", "how", left=True),
    Column("length", "tokens", "{:,}".format),
    Column("source_length", "of the source", "{:,}".format),
    Column("batch", "sequences", "{:,}".format),
    Column("low", "low", "{:.1f}".format),
    Column("gib", "GiB", "{:.1f}".format),
    Column("high", "high", "{:.1f}".format),
    Column("fits", "fits", left=True),
    Column("host_gib", "CPU's GiB", "{:.1f}".format),
    Column("largest", "at once", "{:,}".format),
    Column("tokens_per_second", "tokens/s", "{:,.0f}".format),
    Column("hours", "hours", "{:,.1f}".format),
)


def grid(models: Sequence[Architecture], gpus: Sequence[Device], ways: Mapping[str, Use]) -> Table:
    """Every model on every GPU in every way; ``ways``: a name for each, which may be empty. Those of ``LEVERS`` that
    offload are left out where there is no GPU to offload from."""
    rows = [
        row(model, gpu, use, way)
        for model in models
        for gpu in gpus
        for way, use in ways.items()
        if gpu.kind == "cuda" or use.offload == "none" or way not in LEVERS
    ]
    return Table(COLUMNS, rows, groups=("model", "parameters", "gpu", "usable_gib"))
