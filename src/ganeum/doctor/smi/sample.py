"""What is known of one GPU at one moment, wherever it was read: a pasted text of any form, or NVML itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

BUSY_PERCENT = 90  # of utilisation: below it the clocks follow the demand
AWAKE = ("P0", "P1", "P2", "P3")  # the states in which a GPU computes


@dataclass(frozen=True, kw_only=True)
class Process:
    """A program on a GPU: its kind as nvidia-smi has it (C computes, G draws), the MiB that it holds."""

    pid: int
    kind: str
    name: str
    memory_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One GPU at one moment; None is what nobody said.

    Attributes:
        gpu: what tells it from the others: a bus address, an index.
        time_s: seconds since some moment that is the same for all samples of one reading.
        reasons: what holds the clocks down, by NVML's names (``sw_power_cap``), and whether it does now.
        counters_s: how long each has done so, in seconds since the driver was loaded. One reading of them says nothing
            of a run; the difference of two does.
        sm_max_mhz, sm_rated_mhz: the highest that the card can be set to, which few reach under load; what its maker
            promises, its boost clock.
        margin_c: degrees left until it slows itself down (T.Limit).
    """

    gpu: str = ""
    name: str = ""
    driver: str = ""
    driver_model: str = ""
    time_s: float | None = None
    performance_state: str | None = None
    utilization_percent: float | None = None
    reasons: dict[str, bool] = field(default_factory=dict)
    counters_s: dict[str, float] = field(default_factory=dict)
    power_w: float | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    power_max_w: float | None = None
    power_source: Literal["mains", "battery", "weak supply"] | None = None
    temperature_c: float | None = None
    margin_c: float | None = None
    slowdown_c: float | None = None
    memory_temperature_c: float | None = None
    sm_mhz: float | None = None
    sm_max_mhz: float | None = None
    sm_set_mhz: float | None = None
    sm_rated_mhz: float | None = None
    memory_mhz: float | None = None
    memory_max_mhz: float | None = None
    pcie_generation: float | None = None
    pcie_generation_max: float | None = None
    pcie_width: float | None = None
    pcie_width_max: float | None = None
    memory_total_mib: float | None = None
    memory_used_mib: float | None = None
    uncorrected: float | None = None
    uncorrected_ever: float | None = None
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    processes: tuple[Process, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether it does nothing worth the name, as far as that was said: a reason then says nothing about a run."""
        if self.utilization_percent is not None and self.utilization_percent >= BUSY_PERCENT:
            return False
        asleep = self.performance_state is not None and self.performance_state not in AWAKE
        resting = self.utilization_percent is not None and self.utilization_percent < 10
        return self.reasons.get("gpu_idle", False) or asleep or resting

    @property
    def busy(self) -> bool:
        """Whether it is known to compute without a pause."""
        return self.utilization_percent is not None and self.utilization_percent >= BUSY_PERCENT

    def active(self, reason: str) -> bool:
        """Whether that reason holds the clocks down now."""
        return self.reasons.get(reason, False)


@dataclass(frozen=True)
class Reading:
    """All that a text, or a look at NVML, says: its samples in order, and what went wrong in the driver's own words."""

    samples: tuple[Sample, ...] = ()
    failures: tuple[str, ...] = ()

    def by_gpu(self) -> dict[str, list[Sample]]:
        """The samples of each GPU. Those that do not say which are the only GPU's that is named, if there is one; of
        several with one name and no index each moment has as many cards as it names, and a name is no moment."""
        keyed = list(zip(_keys(self.samples), self.samples, strict=True))
        keys = list(dict.fromkeys(key for key, _ in keyed))
        named = [key for key in keys if key]
        if len(named) == 1:
            return {named[0]: list(self.samples)}
        return {key: [sample for of, sample in keyed if of == key] for key in keys}


def _keys(samples: Sequence[Sample]) -> list[str]:
    """Which GPU each is of: its address or index, else its name, with a number where one moment has it twice."""
    keys, seen = [], dict[tuple[str, float | None], int]()
    for sample in samples:
        key = sample.gpu or sample.name
        if sample.name and not sample.gpu:
            seen[key, sample.time_s] = number = seen.get((key, sample.time_s), 0) + 1
            key = key if number == 1 else f"{key} ({number})"
        keys.append(key)
    return keys


def merged(samples: Sequence[Sample]) -> Sample:
    """What stays the same on a card (names, limits, maxima), from whichever sample says it; the rest of the last."""
    lasting = (
        "gpu", "name", "driver", "driver_model", "power_limit_w", "power_default_w", "power_max_w", "slowdown_c",
        "sm_max_mhz", "memory_max_mhz", "pcie_generation_max", "pcie_width_max", "memory_total_mib",
    )  # fmt: skip
    found = {}
    for name in lasting:
        said = [value for sample in samples if (value := getattr(sample, name)) not in (None, "")]
        if said:
            found[name] = said[-1]
    return replace(samples[-1], **found)
