"""What this machine has for runs: its GPUs, or parts of them, and its CPU, with what is free of each now.

A card is known by its UUID: numbers change with the driver's order, with CUDA's and with what is visible.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from ganeum.hardware import machine, nvml, peaks
from ganeum.hardware.device import Device
from ganeum.hardware.machine import CUDA_CONTEXT_GIB

PROCESS_GIB = 0.5  # what a training on a CPU holds before there is a model: Python, torch, our own code


@dataclass(frozen=True)
class Slot:
    """Something that a run can be given: a GPU, a part of one that MIG made, Apple's GPU, the CPU.

    name: what an entry keeps: the GPU's UUID, `mps` or `cpu`. title: what people call it (`GPU 0`).
    device: its facts. free_gib: of its memory, now, other programs' taken off.
    held_gib: process id → GiB of it, None where the driver does not say. cores: the CPU's.
    """

    name: str
    title: str
    device: Device
    free_gib: float
    held_gib: Mapping[int, float | None] = field(default_factory=dict)
    cores: int = 0

    @property
    def at_most_gib(self) -> float:
        """What would be free with nothing else on it."""
        share = {"cpu": machine.CPU_SHARE, "mps": machine.METAL_SHARE}.get(self.device.kind, 1.0)
        return share * self.device.memory_gib

    @property
    def before_gib(self) -> float:
        """What a run takes of it that no plan counts: CUDA's context, a process."""
        return {"cuda": CUDA_CONTEXT_GIB, "cpu": PROCESS_GIB}.get(self.device.kind, 0.0)


@dataclass(frozen=True)
class Machine:
    """What there is for runs, GPUs in the order in which `cuda:0`, `cuda:1` name them.

    auto: the kind that `device: auto` means here. trouble: why cards are missing; empty when all is well. passing: it
        may pass by itself, as when the driver is being renewed: then runs wait for it.
    per_gpu: runs that may share a GPU where their memory fits together; two on one card slow each other down.
    """

    slots: tuple[Slot, ...]
    auto: str = "cpu"
    trouble: str = ""
    passing: bool = False
    per_gpu: int = 1

    def of_kind(self, kind: str) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.device.kind == kind)


def look(per_gpu: int = 1, environment: Mapping[str, str] = os.environ) -> Machine:
    """This machine now: memory is measured, other programs' included; without torch, in a few milliseconds.

    The queue gives what CUDA_VISIBLE_DEVICES and its cgroup leave to it, and no other card.
    """
    found = nvml.read()
    gpus = nvml.visible(found.gpus, environment) if found else ()
    slots = [
        Slot(gpu.uuid, f"GPU {place}", machine.from_nvml(gpu, 0), gpu.free_gib, gpu.held_gib)
        for place, gpu in enumerate(gpus)
    ]
    auto = "cuda" if gpus and "+cpu" not in peaks.torch_version() else "cpu"
    if machine.is_mac():
        apple = machine.apple()
        slots.append(Slot("mps", "the Mac's GPU", apple, apple.usable_gib))
        auto = "mps"
    cpu = machine.cpu()
    slots.append(Slot("cpu", "the CPU", cpu, cpu.usable_gib, cores=machine.cores()))
    silent = found is None and nvml.has_library()
    trouble = "NVIDIA's library is here, but its driver does not answer: `nvidia-smi` says why" if silent else ""
    if found:
        trouble = "; ".join([*found.troubles, *nvml.unclear(found.gpus, environment)])
    return Machine(tuple(slots), auto, trouble, passing=silent, per_gpu=per_gpu)
