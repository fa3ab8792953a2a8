"""The device that training takes, as torch sees it."""

from __future__ import annotations

from ganeum.errors import DeviceError
from ganeum.hardware.device import Device
from ganeum.hardware.machine import absent, apple, cpu, nvidia, parse
from ganeum.hardware.nvml import GIB


def detect(device: str = "auto") -> Device:
    """The device that ``device:`` of a config means here: ``auto`` is a GPU where torch can use one, else the CPU.

    Raises:
        DeviceError: torch cannot use that device, or its name means nothing. Why it cannot is
            :func:`ganeum.hardware.check.check_torch`'s to say, and training asks that first.
    """
    import torch

    kind, index = parse(device)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [torch.cuda.get_device_name(i) for i in range(gpus)]
    if kind == "cuda" and index >= gpus:
        raise absent(device, names)
    if kind == "cuda" or (kind == "auto" and gpus):
        properties = torch.cuda.get_device_properties(index)
        free, _ = torch.cuda.mem_get_info(index)
        # Asking made the CUDA context, so what is free now is free for tensors.
        capability = (properties.major, properties.minor)
        return nvidia(names[index], properties.total_memory / GIB, free / GIB, capability, index)
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            "device 'mps' cannot be used by this torch",
            where="device",
            why="it needs a Mac with Apple silicon",
            suggestion="device: auto",
        )
    return apple() if kind == "mps" or (kind == "auto" and torch.backends.mps.is_available()) else cpu()
