"""Whether it fits into the device's memory, what happens where it does not, and what is given up for nothing."""

from __future__ import annotations

import platform
from collections.abc import Iterator

from ganeum import units
from ganeum.config.change import change
from ganeum.config.schema import Config
from ganeum.hardware.device import Device
from ganeum.plan import execution, fastest, memory
from ganeum.plan.architecture import configured
from ganeum.plan.critique.facts import Facts, Step, Warning
from ganeum.plan.levers import by_estimate, needs, table, that_fit
from ganeum.plan.memory import Memory

AGAINST_SPILLING = {
    "Windows": "or make it fail instead: NVIDIA control panel, CUDA - Sysmem Fallback Policy, Prefer No Sysmem "
    "Fallback (driver 546.01 and later)",
    "WSL": "(the driver's setting against it is not obeyed under WSL: microsoft/WSL#11050)",
}


def impossible(config: Config, device: Device) -> Memory | None:
    """What a run takes with one sequence at once and everything computed twice that may be, if even that cannot fit:
    what it takes at the very least is more than is usable. None: it may fit.

    Args:
        config: with ``model.vocab_size`` resolved; ``train.activation_checkpointing`` may be ``auto``.
    """
    level = config.train.activation_checkpointing
    levels = fastest.LEVELS if level == "auto" else (level,)
    ways = [change(config, {"train.activation_checkpointing": one}) for one in levels]
    least = min(
        (memory.of(configured.of(way), execution.of(way, device, 1)) for way in ways),
        key=lambda needed: needed.least,
    )
    return least if least.least > device.usable_gib * units.GIB else None


def does_not_fit(facts: Facts) -> Iterator[Warning]:
    """More than there is; on Windows the driver then takes the system's memory, and nothing fails but the speed."""
    size, device, needed = facts.execution.micro_batch_size, facts.device, facts.memory
    if needed.fits(device):
        return
    usable = device.usable_gib * units.GIB
    fitting = (
        "train.micro_batch_size=auto"
        if size > 1
        else table(that_fit(facts.config, device, by_estimate(usable))) or "a far smaller model"
    )
    figure = (
        f"about {units.gib(needed.total)}, {units.gib(needed.least)} to {units.gib(needed.most)}, with "
        f"{size} of {units.things(facts.batch_size, 'sequence')} at once "
        f"({needs(needed)}); {units.gib(usable)} are usable"
    )
    if device.kind == "cuda" and (system := spilling_system()):
        yield Warning(
            "warning",
            f"it will spill out of the memory of {device.name}",
            f"{figure}; on {system} the driver (536.40 and later) then uses the system's memory across PCIe instead of "
            "failing: no error, and steps many times as long",
            f"{fitting}\n{AGAINST_SPILLING[system]}",
            lost=0.95,
        )
        return
    sure, likely = needed.least > usable, needed.total > usable
    yield Warning(
        "error" if impossible(facts.config, device) else "warning" if likely else "note",
        f"it {'does' if sure else 'may'} not fit into the memory of {device.name}",
        figure,
        fitting,
        lost=1.0,
    )


def spilling_system() -> str | None:
    """Windows or WSL, where NVIDIA's driver lets a program have more memory than the card; None anywhere else."""
    if platform.system() == "Windows":
        return "Windows"
    return "WSL" if "microsoft" in platform.release().lower() else None


def computed_twice_for_nothing(step: Step) -> Iterator[Warning]:
    """Activation checkpointing where there is room without it."""
    mode, device, key = step.execution.checkpointing, step.device, f"{step.section}activation_checkpointing"
    if mode == "none" or step.execution.purpose != "training" or not (needed := step.fitting(checkpointing="none")):
        return
    more = step.flops.recomputed / (step.flops.forward + step.flops.backward)
    yield Warning(
        "warning" if more > 0.1 else "note",
        "activations are computed twice although there is room for them",
        f"{key}={mode} adds {more:.0%} to the arithmetic; without it "
        f"{units.gib(needed.total)} of {units.gib(device.usable_gib * units.GIB)} are needed",
        f"{key}=auto",
        lost=more / (1 + more),
    )


def offloaded_for_nothing(step: Step) -> Iterator[Warning]:
    """The optimizer's state on the CPU where the GPU has room for it."""
    device = step.device
    if step.execution.offload == "none" or not (needed := step.fitting(offload="none")):
        return
    what = "the optimizer's state" if step.execution.offload == "optimizer" else "what is trained"
    yield Warning(
        "warning",
        f"{what} lies in the CPU's memory although there is room for it on the GPU",
        f"without offload {units.gib(needed.total)} of {units.gib(device.usable_gib * units.GIB)} are needed, and no "
        "update waits for PCIe",
        "train.optimizer_offload=false" if step.section else "offload=none",
        lost=0.3,
    )


OF_ANY_MODEL = (computed_twice_for_nothing, offloaded_for_nothing)
LOOKS = (does_not_fit, *OF_ANY_MODEL)
