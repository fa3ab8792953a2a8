"""A GPU watched through NVML while it works: while a training runs on it, or while a child of ours keeps it busy."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Literal

from ganeum.doctor.smi.sample import Process, Reading, Sample
from ganeum.errors import DeviceError
from ganeum.hardware import nvml, sensors

INTERVAL_S = 0.5
STARTING_S = 60.0  # until a child that loads torch keeps the card busy
MIB = 2**20
# Policies of nvmlDeviceGetViolationStatus, whose times are what nvidia-smi prints as counters. Asked by policy: field
# ids of the newer counters mean different things in different drivers.
POLICIES = {0: "sw_power_cap", 1: "sw_thermal_slowdown", 2: "sync_boost", 3: "board_limit", 5: "reliability"}
SOURCES: dict[int, Literal["mains", "battery", "weak supply"]] = {0: "mains", 1: "battery", 2: "weak supply"}


def watch(index: int = 0, *, seconds: float = 10.0, load: bool = True) -> tuple[Reading, str]:
    """The card ``index`` of those that this process may use, for so long; and how it was kept busy, in words.

    Args:
        index: as CUDA counts them here.
        seconds: of looks, once it is busy.
        load: keep it busy with products of matrices, in a child, where it is not busy already.

    Raises:
        DeviceError: there is no such card, or no driver that answers.
    """
    found = nvml.read()
    cards = nvml.visible(found.gpus) if found else ()
    if found is None or index >= len(cards):
        raise DeviceError(
            "no NVIDIA GPU answers here" if found is None else f"there is no GPU {index} here",
            why="; ".join(found.troubles) if found and found.troubles else None,
            suggestion="call it on the machine that has it; or there `nvidia-smi -q`, and here `--from-text FILE`",
        )
    card = cards[index]
    try:
        return _watched(card, index, seconds, load)
    except Lost as lost:  # from the bus: nothing more can be asked of it
        return Reading((), (f"GPU {card.index} ({card.name}): {lost}",)), "it stopped answering"


class Lost(Exception):
    """A card that answers nothing any more, in the driver's words."""


def _watched(card: nvml.NvidiaGpu, index: int, seconds: float, load: bool) -> tuple[Reading, str]:
    with _opened(card) as look:
        first = look()
        at_work = first.busy or any(_busy(look) for _ in range(3))
        if at_work or not load:
            return Reading(tuple(_looks(look, seconds))), (
                "it was busy already" if at_work else "it was only watched, and not kept busy"
            )
        with _load(index, seconds) as child:
            began = time.monotonic()
            while not _busy(look) and child.poll() is None and time.monotonic() - began < STARTING_S:
                pass
            if child.poll() is not None:
                return Reading((look(),)), "torch could not use it, so it was only looked at, at rest"
            samples = [replace(s, processes=_without(s, child.pid)) for s in _looks(look, seconds)]
        working = [sample for sample in samples if sample.busy]
        return Reading(tuple(working or samples)), "it was kept busy with products of matrices in bf16 or fp16"


def _busy(look: Callable[[], Sample]) -> bool:
    time.sleep(INTERVAL_S)
    return look().busy


def _looks(look: Callable[[], Sample], seconds: float) -> Iterator[Sample]:
    end = time.monotonic() + seconds
    while True:
        yield look()
        if time.monotonic() >= end:
            return
        time.sleep(min(INTERVAL_S, seconds))


@contextmanager
def _load(index: int, seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    """A child that keeps the card busy, and is ended with us however we end: it looks whether we are still there."""
    command = [sys.executable, "-m", "ganeum.doctor.load", str(index), str(seconds + STARTING_S)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(5)
        if child.poll() is None:
            child.kill()
            child.wait()


def _without(sample: Sample, pid: int) -> tuple[Process, ...]:
    return tuple(process for process in sample.processes if process.pid != pid)


@contextmanager
def _opened(card: nvml.NvidiaGpu) -> Iterator[Callable[[], Sample]]:
    """A look at the card, as often as one wants; what the card or its driver does not know is not asked again."""
    import pynvml  # type: ignore[import-untyped]

    pynvml.nvmlInit()
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(card.uuid.encode())
        driver = nvml.text(pynvml.nvmlSystemGetDriverVersion())
        asked = list(_fields())

        def look() -> Sample:
            values: dict[str, Any] = {}
            last: Exception | None = None
            for one in list(asked):
                try:
                    values |= one(handle)
                except (pynvml.NVMLError_NotSupported, pynvml.NVMLError_FunctionNotFound):
                    asked.remove(one)
                except (pynvml.NVMLError, AttributeError) as error:  # an older nvidia-ml-py lacks the newest names
                    last = error
            if not any(value for name, value in values.items() if name not in ("counters_s", "processes")):
                raise Lost(str(last))
            name = f"GPU {card.index}"
            return Sample(gpu=name, name=card.name, driver=driver, time_s=time.monotonic(), **values)

        yield look
    except pynvml.NVMLError as error:
        raise DeviceError(f"GPU {card.index} cannot be asked: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def _fields() -> Sequence[Callable[[Any], dict[str, Any]]]:
    """One function a call of NVML, so that each can be missing alone."""
    import pynvml as nv

    def reasons(handle: Any) -> dict[str, Any]:
        try:
            bits = nv.nvmlDeviceGetCurrentClocksEventReasons(handle)
        except nv.NVMLError_FunctionNotFound:  # a driver before 535 knows them by their old name
            bits = nv.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        active = sensors.names(bits)
        return {"reasons": {name: name in active for name in (*sensors.REASONS.values(), *active)}}

    def counters(handle: Any) -> dict[str, Any]:
        found = {}
        for policy, name in POLICIES.items():
            with suppress(nv.NVMLError):
                found[name] = nv.nvmlDeviceGetViolationStatus(handle, policy).violationTime / 1e9
        return {"counters_s": found}

    def state(handle: Any) -> dict[str, Any]:
        number = nv.nvmlDeviceGetPerformanceState(handle)
        return {} if number == nv.NVML_PSTATE_UNKNOWN else {"performance_state": f"P{number}"}

    def memory(handle: Any) -> dict[str, Any]:
        held = nv.nvmlDeviceGetMemoryInfo(handle)
        return {"memory_total_mib": held.total / MIB, "memory_used_mib": held.used / MIB}

    def rows(handle: Any) -> dict[str, Any]:
        _, _, pending, failed = nv.nvmlDeviceGetRemappedRows(handle)
        return {"remap_pending": bool(pending), "remap_failed": bool(failed)}

    def errors(handle: Any) -> dict[str, Any]:
        kind = nv.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
        return {
            "uncorrected": nv.nvmlDeviceGetTotalEccErrors(handle, kind, nv.NVML_VOLATILE_ECC),
            "uncorrected_ever": nv.nvmlDeviceGetTotalEccErrors(handle, kind, nv.NVML_AGGREGATE_ECC),
        }

    def processes(handle: Any) -> dict[str, Any]:
        found = []
        too_old = getattr(nv, "NVMLLibraryMismatchError", nv.NVMLError)  # no error of NVML's own, and newer than some
        lists = ("C", nv.nvmlDeviceGetComputeRunningProcesses), ("G", nv.nvmlDeviceGetGraphicsRunningProcesses)
        for kind, ask in lists:
            with suppress(nv.NVMLError, too_old):
                for one in ask(handle):
                    held = None if one.usedGpuMemory is None else one.usedGpuMemory / MIB
                    found.append(Process(pid=one.pid, kind=kind, name="", memory_mib=held))
        return {"processes": tuple(found)}

    def one(name: str, read: Callable[[Any], float], per: float = 1.0) -> Callable[[Any], dict[str, Any]]:
        return lambda handle: {name: read(handle) / per}

    sm, mem = nv.NVML_CLOCK_SM, nv.NVML_CLOCK_MEM
    return [
        one("utilization_percent", lambda handle: float(nv.nvmlDeviceGetUtilizationRates(handle).gpu)),
        state,
        reasons,
        counters,
        one("power_w", lambda handle: nv.nvmlDeviceGetPowerUsage(handle), 1000),
        one("power_limit_w", lambda handle: nv.nvmlDeviceGetEnforcedPowerLimit(handle), 1000),
        one("power_default_w", lambda handle: nv.nvmlDeviceGetPowerManagementDefaultLimit(handle), 1000),
        one("power_max_w", lambda handle: nv.nvmlDeviceGetPowerManagementLimitConstraints(handle)[1], 1000),
        lambda handle: {"power_source": SOURCES.get(nv.nvmlDeviceGetPowerSource(handle))},
        one("temperature_c", lambda handle: nv.nvmlDeviceGetTemperature(handle, nv.NVML_TEMPERATURE_GPU)),
        one("margin_c", lambda handle: nv.nvmlDeviceGetMarginTemperature(handle)),
        one(
            "slowdown_c",
            lambda handle: nv.nvmlDeviceGetTemperatureThreshold(handle, nv.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        ),
        one("sm_mhz", lambda handle: nv.nvmlDeviceGetClockInfo(handle, sm)),
        one("sm_max_mhz", lambda handle: nv.nvmlDeviceGetMaxClockInfo(handle, sm)),
        one("sm_set_mhz", lambda handle: nv.nvmlDeviceGetApplicationsClock(handle, sm)),
        one("memory_mhz", lambda handle: nv.nvmlDeviceGetClockInfo(handle, mem)),
        one("memory_max_mhz", lambda handle: nv.nvmlDeviceGetMaxClockInfo(handle, mem)),
        one("pcie_generation", lambda handle: nv.nvmlDeviceGetCurrPcieLinkGeneration(handle)),
        one("pcie_generation_max", lambda handle: nv.nvmlDeviceGetMaxPcieLinkGeneration(handle)),
        one("pcie_width", lambda handle: nv.nvmlDeviceGetCurrPcieLinkWidth(handle)),
        one("pcie_width_max", lambda handle: nv.nvmlDeviceGetMaxPcieLinkWidth(handle)),
        memory,
        rows,
        errors,
        processes,
    ]
