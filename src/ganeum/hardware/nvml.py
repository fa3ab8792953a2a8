"""NVIDIA's GPUs and driver as NVML reports them: no torch, no CUDA context, nothing where there is no driver."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True)
class NvidiaGpu:
    """One card: its place in NVML's order, name, memory in GiB and compute capability."""

    index: int
    uuid: str
    name: str
    memory_gib: float
    free_gib: float
    capability: tuple[int, int]


@dataclass(frozen=True)
class Nvidia:
    """The driver (``580.65.06``) and the cards it drives."""

    driver: str
    gpus: tuple[NvidiaGpu, ...]


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
    """What NVML says, or None without an NVIDIA driver. A card that cannot be asked (lost from the bus) is left out."""
    if not has_library():
        return None
    import pynvml

    gpus = []
    try:
        with _session():
            driver = pynvml.nvmlSystemGetDriverVersion()
            for index in range(pynvml.nvmlDeviceGetCount()):
                try:
                    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
                    gpus.append(
                        NvidiaGpu(
                            index=index,
                            uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
                            name=_text(pynvml.nvmlDeviceGetName(handle)),
                            memory_gib=memory.total / GIB,
                            free_gib=memory.free / GIB,
                            capability=(major, minor),
                        )
                    )
                except pynvml.NVMLError:
                    continue
    except pynvml.NVMLError:
        return None
    return Nvidia(_text(driver), tuple(gpus))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def visible(gpus: tuple[NvidiaGpu, ...], environment: Mapping[str, str] = os.environ) -> tuple[NvidiaGpu, ...]:
    """The cards that CUDA would show to this process, in its order, as CUDA_VISIBLE_DEVICES says.

    Numbers and (shortened) UUIDs; as in CUDA, the first entry that names no card ends the list.
    """
    wanted = environment.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return gpus
    chosen: list[NvidiaGpu] = []
    for entry in (part.strip() for part in wanted.split(",")):
        match = [g for g in gpus if (entry.isdigit() and g.index == int(entry)) or (entry and g.uuid.startswith(entry))]
        if len(match) != 1:
            break
        chosen += match
    return tuple(chosen)
