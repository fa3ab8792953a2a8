"""What an NVIDIA GPU is doing at this moment: clocks, power, temperature, memory, and what holds its clocks down.

Everything comes from NVML through nvidia-ml-py, whose calls leave Python's other threads running while they wait for
the driver. A card or a driver that does not know a figure leaves it out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from ganeum.hardware.nvml import GIB

# Bits of nvmlDeviceGetCurrentClocksEventReasons (nvml.h, "nvmlClocksEventReasons"; the last two are from driver 615).
REASONS = {
    0x1: "gpu_idle",
    0x2: "applications_clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal_slowdown",
    0x40: "hw_thermal_slowdown",
    0x80: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}


class Sensors:
    """One card, from when it is entered until it is left.

    Args:
        addresses: what it may be called, UUIDs (``GPU-…``) and PCI addresses (``00000000:01:00.0``); the first that
            NVML knows is taken.
    """

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = addresses
        self._fields: list[Callable[[Any], dict[str, Any]]] = []

    def __enter__(self) -> Sensors:
        """Raises pynvml.NVMLError: no driver, or none of the addresses is a card."""
        import pynvml  # type: ignore[import-untyped]

        pynvml.nvmlInit()
        try:
            self._handle = _handle(self._addresses)
        except BaseException:
            pynvml.nvmlShutdown()
            raise
        self._fields = _fields()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import pynvml

        pynvml.nvmlShutdown()

    def read(self) -> dict[str, Any]:
        """The figures by name, each name ending in its unit; ``throttle_reasons`` is a list of names of `REASONS`.

        Raises:
            pynvml.NVMLError: the card answers nothing at all any more (it was lost from the bus, say).
        """
        import pynvml

        found: dict[str, Any] = {}
        unknown: pynvml.NVMLError | None = None
        for field in list(self._fields):
            try:
                found |= field(self._handle)
            except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound) as error:
                self._fields.remove(field)  # it never will be
                unknown = error
            except pynvml.NVMLError as error:
                unknown = error
        if unknown is not None and not found:
            raise unknown
        return found


def _handle(addresses: Sequence[str]) -> Any:
    import pynvml

    unknown: pynvml.NVMLError = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    for address in addresses:
        by_uuid = address.startswith(("GPU-", "MIG-"))
        find = pynvml.nvmlDeviceGetHandleByUUID if by_uuid else pynvml.nvmlDeviceGetHandleByPciBusId
        try:
            return find(address.encode())
        except pynvml.NVMLError as error:
            unknown = error
    raise unknown


def _fields() -> list[Callable[[Any], dict[str, Any]]]:
    """One function a call of NVML, so that each can be missing alone."""
    import pynvml as nvml

    def utilization(handle: Any) -> dict[str, Any]:
        share = nvml.nvmlDeviceGetUtilizationRates(handle)
        return {"gpu_utilization_percent": share.gpu, "memory_utilization_percent": share.memory}

    def performance_state(handle: Any) -> dict[str, Any]:
        state = nvml.nvmlDeviceGetPerformanceState(handle)
        return {} if state == nvml.NVML_PSTATE_UNKNOWN else {"performance_state": f"P{state}"}

    def reasons(handle: Any) -> dict[str, Any]:
        try:
            bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
        except nvml.NVMLError_FunctionNotFound:  # a driver before 535 knows them by their old name
            bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        return {"throttle_reasons": names(bits)}

    return [
        lambda handle: {"sm_clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)},
        lambda handle: {"sm_clock_max_mhz": nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)},
        lambda handle: {"memory_clock_mhz": nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)},
        lambda handle: {"power_w": nvml.nvmlDeviceGetPowerUsage(handle) / 1000},
        lambda handle: {"power_limit_w": nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000},
        lambda handle: {"temperature_c": nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)},
        lambda handle: {"memory_used_gib": nvml.nvmlDeviceGetMemoryInfo(handle).used / GIB},
        utilization,
        performance_state,
        reasons,
    ]


def names(bits: int) -> list[str]:
    """``0x24`` → ``["sw_power_cap", "sw_thermal_slowdown"]``; a bit that is newer than this list stays a number."""
    found = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return [REASONS.get(bit, f"{bit:#x}") for bit in found]
