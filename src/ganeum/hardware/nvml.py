"""NVIDIA's GPUs and driver as NVML reports them: no torch, no CUDA context, nothing where there is no driver."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

GIB = 2**30


@dataclass(frozen=True)
class NvidiaGpu:
    """One card, or one instance of a card that MIG divides: its card's place in NVML's order, its own UUID, name and
    memory in GiB, the card's compute capability; and the GiB that each process holds of it, by process id, None where
    the driver does not say (in a container's process names, on Windows)."""

    index: int
    uuid: str
    name: str
    memory_gib: float
    free_gib: float
    capability: tuple[int, int]
    held_gib: Mapping[int, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Nvidia:
    """The driver (``580.65.06``), the cards it drives, and a sentence for each card that cannot be used."""

    driver: str
    gpus: tuple[NvidiaGpu, ...]
    troubles: tuple[str, ...] = ()


@contextmanager
def _session() -> Iterator[None]:
    import pynvml  # type: ignore[import-untyped]

    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def has_library() -> bool:
    """Whether NVIDIA's library is there to be loaded. Asked first: pynvml takes as long to import as a small plan."""
    if sys.platform != "linux":
        return True
    try:
        ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return False
    return True


def read() -> Nvidia | None:
    """What NVML says, or None without an NVIDIA driver that answers. A card that cannot be asked (lost from the bus,
    withheld by a cgroup, divided by MIG into no part) is left out, and a sentence says so."""
    if not has_library():
        return None
    import pynvml

    gpus: list[NvidiaGpu] = []
    troubles: list[str] = []
    try:
        with _session():
            driver = pynvml.nvmlSystemGetDriverVersion()
            for index in range(pynvml.nvmlDeviceGetCount()):
                try:
                    card = pynvml.nvmlDeviceGetHandleByIndex(index)
                    capability = pynvml.nvmlDeviceGetCudaComputeCapability(card)
                    parts = _instances(card)
                    gpus += [_gpu(index, handle, capability) for handle in ([card] if parts is None else parts)]
                    if parts == []:
                        troubles.append(f"GPU {index} is in MIG mode and divided into no part that CUDA could take")
                except pynvml.NVMLError_NoPermission:  # another's, by a cgroup: for this process it is not there
                    continue
                except pynvml.NVMLError as error:
                    troubles.append(f"GPU {index} cannot be asked: {error}")
    except pynvml.NVMLError:
        return None
    return Nvidia(text(driver), tuple(gpus), tuple(troubles))


def _instances(card: Any) -> list[Any] | None:
    """The parts that MIG divides a card into; None where it is whole. CUDA takes them and never the divided card."""
    import pynvml

    try:
        if not pynvml.nvmlDeviceGetMigMode(card)[0]:
            return None
    except pynvml.NVMLError:  # a card, or a driver, that does not know MIG
        return None
    parts = []
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(card)):
        with suppress(pynvml.NVMLError):  # an empty place
            parts.append(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(card, place))
    return parts


def _gpu(index: int, handle: Any, capability: tuple[int, int]) -> NvidiaGpu:
    import pynvml

    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    held: dict[int, float | None] = {}
    with suppress(pynvml.NVMLError):
        for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
            held[process.pid] = None if process.usedGpuMemory is None else process.usedGpuMemory / GIB
    return NvidiaGpu(
        index=index,
        uuid=text(pynvml.nvmlDeviceGetUUID(handle)),
        name=text(pynvml.nvmlDeviceGetName(handle)),
        memory_gib=memory.total / GIB,
        free_gib=memory.free / GIB,
        capability=(capability[0], capability[1]),
        held_gib=held,
    )


def text(value: str | bytes) -> str:
    """What NVML names, of which older nvidia-ml-py gives bytes."""
    return value.decode() if isinstance(value, bytes) else value


def visible(gpus: tuple[NvidiaGpu, ...], environment: Mapping[str, str] = os.environ) -> tuple[NvidiaGpu, ...]:
    """The cards that CUDA would show to this process, in its order, as CUDA_VISIBLE_DEVICES says.

    Numbers and (shortened) UUIDs; as in CUDA, the first entry that names no card ends the list. A number counts the
    cards that may be used: one that a cgroup withholds (NO_PERMISSION: a job of a cluster) has none.
    """
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return gpus
    chosen: list[NvidiaGpu] = []
    for entry in (part.strip() for part in wanted.split(",")):
        match = [
            gpu
            for place, gpu in enumerate(gpus)
            if (entry.isdigit() and place == int(entry)) or (entry and gpu.uuid.startswith(entry))
        ]
        if len(match) != 1:
            break
        chosen += match
    return tuple(chosen)


def unclear(gpus: tuple[NvidiaGpu, ...], environment: Mapping[str, str] = os.environ) -> list[str]:
    """A sentence where CUDA_VISIBLE_DEVICES may mean other cards to CUDA than to :func:`visible`."""
    numbers = any(part.strip().isdigit() for part in environment.get("CUDA_VISIBLE_DEVICES", "").split(","))
    by_bus = environment.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    if not numbers or by_bus or len({gpu.name for gpu in gpus}) < 2:
        return []
    return [
        "CUDA_VISIBLE_DEVICES counts cards that differ: here as nvidia-smi does, by CUDA the fastest first; "
        "CUDA_DEVICE_ORDER=PCI_BUS_ID makes it the same, and UUIDs are always clear"
    ]
