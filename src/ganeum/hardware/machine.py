"""The machine without torch: its CPU and memory, and the device that a run would take here."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from dataclasses import replace
from pathlib import Path

import psutil

from ganeum.errors import DeviceError
from ganeum.hardware import catalogue, limits, nvml, peaks
from ganeum.hardware.device import Device
from ganeum.hardware.nvml import GIB, NvidiaGpu

CPU_SHARE = 0.8  # of the free memory: the rest stays for the page cache, which holds the tokens, and for other programs
UNKNOWN = "not in the catalogue of GPUs: its peak, and so MFU, is not known"
# Of a Mac's memory for its GPU: the least that Metal's recommendedMaxWorkingSetSize came to; on newer systems it was
# 11.8 of 16 GB (AlexsJones/llmfit pull request 754) and 107.5 of 128 GiB (antirez/ds4 pull request 893).
METAL_SHARE = 2 / 3
CUDA_CONTEXT_GIB = 0.6  # what CUDA and its libraries take before the first tensor; 0.3 to 0.8 by card and version


def cpu_name() -> str:
    """The CPU's model, as the system gives it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "Apple"
    return platform.processor() or platform.machine()


def bf16_unit() -> str | None:
    """The CPU's bf16 multiplier by its name (AMX, AVX512-BF16), or None: Linux's list of flags says it, and torch where
    there is no such list. It is the one answer that a plan and its run both go by."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        import torch

        probes = {"amx_bf16": "_is_amx_tile_supported", "avx512_bf16": "_is_avx512_bf16_supported"}
        flags = [flag for flag, probe in probes.items() if getattr(torch.cpu, probe, lambda: False)()]
    return "AMX" if "amx_bf16" in flags else "AVX512-BF16" if "avx512_bf16" in flags else None


def cores() -> int:
    """Cores that this process may use: those it is bound to, or as many as its cgroup gives it the time of, rounded
    up."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([bound, *(math.ceil(given) for given in limits.cores())]))


def memory_gib() -> tuple[float, float]:
    """(all, free) memory for this process: the machine's, or what its cgroup (a container, a job of a cluster) or its
    shell (ulimit) limits it to."""
    memory = psutil.virtual_memory()
    total, free = float(memory.total), float(memory.available)
    for limit, used in limits.memory():
        total, free = min(total, limit), max(0.0, min(free, limit - used))
    return total / GIB, free / GIB


def cpu() -> Device:
    """The CPU as a device. Its peaks are those measured here before, if any were (:mod:`ganeum.hardware.peaks`)."""
    total, free = memory_gib()
    measured = peaks.remembered(cpu_name())
    return Device(
        name=cpu_name(),
        kind="cpu",
        memory_gib=total,
        usable_gib=CPU_SHARE * free,
        peak_flops_per_second=dict(measured),
        source="matrix products measured on this machine" if measured else "no matrix product measured here yet",
        bf16_unit=bf16_unit(),
    )


def nvidia(
    name: str,
    memory: float,
    usable: float,
    capability: tuple[int, int],
    index: int,
    known: catalogue.Gpu | None = None,
) -> Device:
    """A GPU as a device: what the driver says (GiB), with rates from the catalogue where it knows the card.

    Args:
        known: the card, where it is one of the catalogue's and not in this machine.
    """
    device = Device(
        name, "cuda", memory, usable, source=UNKNOWN, index=index, here=known is None, capability=capability
    )
    return _with_rates(device, known or catalogue.find(name, memory))


def apple() -> Device:
    """Apple's GPU, which shares the machine's memory."""
    return apple_share(cpu_name(), *memory_gib())


def apple_share(name: str, memory: float, free: float) -> Device:
    """An Apple GPU in a machine with so much memory (GiB), with rates from the catalogue where it knows the chip."""
    device = Device(name, "mps", memory, min(CPU_SHARE * free, METAL_SHARE * memory), source=UNKNOWN)
    return _with_rates(device, catalogue.find(name, memory))


def _with_rates(device: Device, known: catalogue.Gpu | None) -> Device:
    """``device`` with what the catalogue knows of it."""
    if known is None:
        return device
    return replace(
        device,
        peak_flops_per_second=known.peak_flops_per_second,
        memory_bandwidth_gb_s=known.memory_bandwidth_gb_s,
        source=known.source,
        note=known.note,
        peak_uncertainty=known.peak_uncertainty,
        bandwidth_uncertainty=known.figures["memory_bandwidth_gb_s"].uncertainty,
        power_w=known.figures["power_w"].high if "power_w" in known.figures else None,
    )


def look(device: str = "auto") -> Device:
    """The device that a run with ``device:`` would take here, found without torch (``detect`` asks torch itself).

    Raises:
        DeviceError: the device is not in this machine, or its name means nothing.
    """
    kind, index = parse(device)
    found = nvml.read() if kind in ("auto", "cuda") else None
    gpus = nvml.visible(found.gpus) if found else ()
    if kind == "cuda" and index >= len(gpus):
        raise absent(device, [gpu.name for gpu in gpus])
    if kind == "cuda" or (kind == "auto" and gpus and "+cpu" not in peaks.torch_version()):
        return from_nvml(gpus[index], index)
    if kind == "mps" and not is_mac():
        raise absent(device, [])
    return apple() if kind == "mps" or (kind == "auto" and is_mac()) else cpu()


def is_mac() -> bool:
    """Whether this machine has a GPU of Apple's."""
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def from_nvml(gpu: NvidiaGpu, index: int) -> Device:
    """A card of this machine as NVML describes it: what is free now, less what CUDA will take."""
    return nvidia(gpu.name, gpu.memory_gib, max(0.0, gpu.free_gib - CUDA_CONTEXT_GIB), gpu.capability, index)


def parse(device: str) -> tuple[str, int]:
    """``cuda:1`` → ``("cuda", 1)``.

    Raises:
        DeviceError: neither ``auto``, ``cpu``, ``mps``, ``cuda`` nor ``cuda:<number>``.
    """
    kind, colon, number = device.partition(":")
    if kind in ("auto", "cpu", "mps", "cuda") and (not colon or (kind == "cuda" and number.isdigit())):
        return kind, int(number or 0)
    raise DeviceError(
        f"device {device!r} is not one that ganeum knows",
        where="device",
        suggestion="auto, cpu, cuda, cuda:1 (the second GPU) or mps",
    )


def absent(device: str, gpus: list[str]) -> DeviceError:
    """The error for a device that is not there; ``gpus``: the names of those that are."""
    there = ", ".join(f"cuda:{index} ({name})" for index, name in enumerate(gpus))
    return DeviceError(
        f"device {device!r} is not in this machine",
        where="device",
        why=f"there is {there}, and the CPU" if there else "no such GPU is visible to this process",
        suggestion="device: auto takes the first GPU, or the CPU where there is none",
    )
