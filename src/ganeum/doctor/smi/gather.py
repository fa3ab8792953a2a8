"""Figures as they come, gathered into samples: where one GPU ends and the next begins, pieces missing or not."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ganeum.doctor.smi.sample import Process, Sample

# The order in which nvidia-smi prints them. A figure that stands further up than one before it is another GPU's, or
# another moment's, even where the line between the two was lost.
ORDER = (
    "time_s", "driver", "name", "driver_model", "pcie_generation_max", "pcie_generation", "pcie_width_max",
    "pcie_width", "performance_state", "reason", "counter", "memory_total_mib", "memory_used_mib",
    "utilization_percent", "uncorrected", "uncorrected_ever", "remap_pending", "remap_failed", "temperature_c",
    "margin_c", "slowdown_c", "memory_temperature_c", "power", "clock", "set", "maximum",
)  # fmt: skip
RANK = {name: place for place, name in enumerate(ORDER)}
TOGETHER = {
    "power_w": "power", "power_average_w": "power", "power_limit_w": "power", "power_enforced_w": "power",
    "power_default_w": "power", "power_max_w": "power", "sm_mhz": "clock", "graphics_mhz": "clock",
    "memory_mhz": "clock", "sm_set_mhz": "set", "sm_max_mhz": "maximum", "graphics_max_mhz": "maximum",
    "memory_max_mhz": "maximum",
}  # fmt: skip
OF_ALL = ("time_s", "driver")  # said once, above all GPUs
IN_PLACE_OF = {  # what stands in where the better name was not said
    "sm_mhz": ("graphics_mhz",),
    "sm_max_mhz": ("graphics_max_mhz",),
    "power_w": ("power_instant_w", "power_average_w"),
    "power_limit_w": ("power_enforced_w",),
}
FIELDS = frozenset(field.name for field in fields(Sample))


def sample(values: dict[str, Any]) -> Sample:
    """A sample of figures by their names; a reason's and a counter's are ``reason:…`` and ``counter:…``."""
    values = dict(values)
    for name, others in IN_PLACE_OF.items():
        for other in others:
            if values.get(name) is None and values.get(other) is not None:
                values[name] = values[other]
    if values.get("graphics_mhz") and values.get("sm_mhz"):  # one clock by two names; a lost digit makes it smaller
        values["sm_mhz"] = max(values["sm_mhz"], values["graphics_mhz"])
    kept = {name: value for name, value in values.items() if name in FIELDS and value is not None}
    for kind, target in (("reason:", "reasons"), ("counter:", "counters_s")):
        kept[target] = {name.removeprefix(kind): v for name, v in values.items() if name.startswith(kind)}
    for name in ("uncorrected", "uncorrected_ever"):
        if kinds := [v for key, v in values.items() if key.startswith(name + ":")]:
            kept[name] = sum(kinds)
    return Sample(**kept)


class Gatherer:
    """Takes figures in the order of a text; `samples` are those that say anything."""

    def __init__(self) -> None:
        self._done: list[Sample] = []
        self._shared: dict[str, Any] = {}
        self._now: dict[str, Any] = {}
        self._furthest = -1

    def snapshot(self) -> None:
        """A new look begins: what was said of all GPUs is no longer so."""
        self.gpu("")
        self._shared = {}

    def gpu(self, address: str) -> None:
        """Another GPU begins."""
        self._end()
        self._now["gpu"] = address

    def put(self, name: str, value: Any) -> None:
        """A figure; the first of its name counts, as long as the text goes on downwards."""
        if value is None:
            return
        if name in OF_ALL:
            self._shared.setdefault(name, value)
            return
        rank = RANK.get(TOGETHER.get(name, name.partition(":")[0]), self._furthest)
        if rank < self._furthest:
            self._end()
        self._now.setdefault(name, value)
        self._furthest = max(rank, self._furthest)

    def process(self, process: Process) -> None:
        """A program on the GPU that is being read."""
        self._now.setdefault("processes", []).append(process)

    def samples(self) -> list[Sample]:
        """All that was said."""
        self._end()
        return self._done

    def _end(self) -> None:
        if any(name != "gpu" for name in self._now):
            processes = tuple(self._now.pop("processes", ()))
            self._done.append(sample({**self._shared, **self._now, "processes": processes or None}))
        self._now, self._furthest = {}, -1
