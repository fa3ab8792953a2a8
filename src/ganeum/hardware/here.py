"""What is in this machine, and what was measured of it: for `ganeum gpus`, without torch."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.hardware import catalogue, machine, nvml, rates
from ganeum.hardware.device import Device


@dataclass(frozen=True)
class Seen:
    """One device of this machine.

    Attributes:
        device: as a run would see it.
        known: its card in the catalogue; None of a CPU, and of a card that is not there.
        measured: when its rates were measured (``2026-11-21``); None: never.
    """

    device: Device
    known: catalogue.Gpu | None
    measured: str | None


@dataclass(frozen=True)
class Here:
    """NVIDIA's driver, None where there is none, and the devices: the GPUs that this process may use, then the CPU."""

    driver: str | None
    devices: tuple[Seen, ...]


def here() -> Here:
    """What is in this machine now."""
    found = nvml.read()
    gpus = nvml.visible(found.gpus) if found else ()
    devices = [machine.from_nvml(gpu, index) for index, gpu in enumerate(gpus)]
    devices += [machine.apple()] if machine.is_mac() else []
    return Here(found.driver if found else None, tuple(_seen(device) for device in [*devices, machine.cpu()]))


def _seen(device: Device) -> Seen:
    calibrated = rates.remembered(device.name, device.kind)
    known = None if device.kind == "cpu" else catalogue.find(device.name, device.memory_gib)
    return Seen(device, known, calibrated.date if calibrated else None)
