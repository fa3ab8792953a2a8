"""What nvidia-smi calls a figure, in each of its forms and generations, and what it is called here.

Wording by driver: "Clocks Throttle Reasons" until 530, "Clocks Event Reasons" since, their counters since 580; "Power
Draw" became "Average" and "Instantaneous Power Draw" between 550 and 570, "Power Limit" became "Current Power Limit" at
535 and lies under "GPU Ceiling Power Limit" from 610 on; temperatures are absolute, or margins ("T.Limit").
"""

from __future__ import annotations

Known = tuple[str, str]  # our name, the kind of its figure

# The reasons and the counters, by every name that they have had.
REASONS = {
    "gpu_idle": ("idle", "gpu_idle"),
    "applications_clocks_setting": ("applications clocks setting", "applications_clocks_setting"),
    "sw_power_cap": ("sw power cap", "sw power capping", "sw_power_cap"),
    "hw_slowdown": ("hw slowdown", "hw_slowdown"),
    "hw_thermal_slowdown": ("hw thermal slowdown", "hw_thermal_slowdown", "hw_therm_slowdown"),
    "hw_power_brake_slowdown": (
        "hw power brake slowdown", "hw power braking", "hw_power_brake_slowdown", "hw_power_brake",
    ),
    "sync_boost": ("sync boost", "sync_boost"),
    "sw_thermal_slowdown": ("sw thermal slowdown", "sw_thermal_slowdown", "sw_therm_slowdown"),
    "display_clock_setting": ("display clock setting", "display_clock_setting", "display_clocks_setting"),
    "board_limit": ("board limit", "board_limit"),
    "reliability": ("reliability", "reliability"),
}  # fmt: skip
REASON_OF = {said: reason for reason, names in REASONS.items() for said in names}

# `nvidia-smi -q`: (section, label) → what it is. Section "": the label says it alone.
QUERY: dict[tuple[str, str], Known] = {
    ("", "timestamp"): ("time_s", "time"),
    ("", "driver version"): ("driver", "name"),
    ("", "kmd version"): ("driver", "name"),
    ("", "product name"): ("name", "name"),
    ("driver model", "current"): ("driver_model", "model"),
    ("", "performance state"): ("performance_state", "state"),
    ("utilization", "gpu"): ("utilization_percent", "%"),
    ("", "gpu current temp"): ("temperature_c", "C"),
    ("", "gpu t.limit temp"): ("margin_c", "C"),
    ("", "gpu current t.limit temp"): ("margin_c", "C"),
    ("", "gpu slowdown temp"): ("slowdown_c", "C"),
    ("", "memory current temp"): ("memory_temperature_c", "C"),
    ("fb memory usage", "total"): ("memory_total_mib", "MiB"),
    ("fb memory usage", "used"): ("memory_used_mib", "MiB"),
    ("clocks", "sm"): ("sm_mhz", "MHz"),
    ("clocks", "graphics"): ("graphics_mhz", "MHz"),
    ("clocks", "memory"): ("memory_mhz", "MHz"),
    ("max clocks", "sm"): ("sm_max_mhz", "MHz"),
    ("max clocks", "graphics"): ("graphics_max_mhz", "MHz"),
    ("max clocks", "memory"): ("memory_max_mhz", "MHz"),
    ("applications clocks", "graphics"): ("sm_set_mhz", "MHz"),
    ("pcie generation", "max"): ("pcie_generation_max", "whole"),
    ("pcie generation", "current"): ("pcie_generation", "whole"),
    ("link width", "max"): ("pcie_width_max", "whole"),
    ("link width", "current"): ("pcie_width", "whole"),
    ("remapped rows", "pending"): ("remap_pending", "yes"),
    ("remapped rows", "remapping failure occurred"): ("remap_failed", "yes"),
    ("retired pages", "pending page blacklist"): ("remap_pending", "yes"),
    ("gpu base power", "max power limit"): ("power_max_w", "W"),
}  # fmt: skip
for _section in ("power readings", "gpu power readings", "gpu ceiling power limit"):
    for _label, _name in (
        ("power draw", "power_w"),
        ("instantaneous power draw", "power_w"),
        ("average power draw", "power_average_w"),
        ("power limit", "power_limit_w"),
        ("current power limit", "power_limit_w"),
        ("enforced power limit", "power_enforced_w"),
        ("default power limit", "power_default_w"),
        ("max power limit", "power_max_w"),
    ):
        QUERY[_section, _label] = (_name, "W")

# Headings that end one section and begin another, of which some hold labels like those above.
SECTIONS = {section for section, _ in QUERY if section} | {
    "pci", "gpu link info", "bridge chip", "clocks throttle reasons", "clocks event reasons", "volatile",
    "aggregate",
    "clocks event reasons counters", "clocks throttle reasons counters", "bar1 memory usage", "ecc mode", "ecc errors",
    "conf compute protected memory usage", "encoder stats", "fbc stats", "dram encryption mode", "inforom version",
    "gpu operation mode", "mig mode", "aggregate uncorrectable sram sources", "bank remap availability histogram",
    "temperature", "gpu memory power readings", "module power readings", "power smoothing", "workload power profiles",
    "gpu base power", "default applications clocks", "deferred clocks", "max customer boost clocks", "clock policy",
    "sm clock samples", "memory clock samples", "power samples", "voltage", "fabric", "processes", "capabilities",
    "gpu virtualization mode", "gsp firmware version", "ibmnpu", "accounting mode", "jpeg", "ofa", "single bit",
    "double bit", "device memory", "register file", "l1 cache", "l2 cache", "texture memory", "supported clocks",
}  # fmt: skip

# `nvidia-smi -q -x`: tag, with the tag around it where that alone tells it from another.
XML: dict[tuple[str, str], Known] = {
    ("", "timestamp"): ("time_s", "time"),
    ("", "driver_version"): ("driver", "name"),
    ("", "product_name"): ("name", "name"),
    ("", "current_dm"): ("driver_model", "model"),
    ("", "performance_state"): ("performance_state", "state"),
    ("", "gpu_util"): ("utilization_percent", "%"),
    ("", "gpu_temp"): ("temperature_c", "C"),
    ("", "gpu_temp_tlimit"): ("margin_c", "C"),
    ("", "gpu_temp_slow_threshold"): ("slowdown_c", "C"),
    ("", "memory_temp"): ("memory_temperature_c", "C"),
    ("fb_memory_usage", "total"): ("memory_total_mib", "MiB"),
    ("fb_memory_usage", "used"): ("memory_used_mib", "MiB"),
    ("clocks", "sm_clock"): ("sm_mhz", "MHz"),
    ("clocks", "graphics_clock"): ("graphics_mhz", "MHz"),
    ("clocks", "mem_clock"): ("memory_mhz", "MHz"),
    ("max_clocks", "sm_clock"): ("sm_max_mhz", "MHz"),
    ("max_clocks", "graphics_clock"): ("graphics_max_mhz", "MHz"),
    ("max_clocks", "mem_clock"): ("memory_max_mhz", "MHz"),
    ("applications_clocks", "graphics_clock"): ("sm_set_mhz", "MHz"),
    ("", "max_link_gen"): ("pcie_generation_max", "whole"),
    ("", "current_link_gen"): ("pcie_generation", "whole"),
    ("", "max_link_width"): ("pcie_width_max", "whole"),
    ("", "current_link_width"): ("pcie_width", "whole"),
    ("", "remapped_row_pending"): ("remap_pending", "yes"),
    ("", "remapped_row_failure"): ("remap_failed", "yes"),
}
# Memory errors that could not be corrected, since the driver was loaded and ever; the sums of their kinds.
for _kind in ("dram uncorrectable", "sram uncorrectable", "sram uncorrectable parity", "sram uncorrectable sec-ded"):
    for _since, _name in (("volatile", "uncorrected"), ("aggregate", "uncorrected_ever")):
        QUERY[_since, _kind] = (f"{_name}:{_kind}", "whole")
        XML[_since, _kind.replace(" ", "_").replace("sec-ded", "secded")] = (f"{_name}:{_kind}", "whole")
for _around in ("power_readings", "gpu_power_readings", "gpu_ceiling_power_limit"):
    for _tag, _name in (
        ("power_draw", "power_w"),
        ("instant_power_draw", "power_w"),
        ("average_power_draw", "power_average_w"),
        ("power_limit", "power_limit_w"),
        ("current_power_limit", "power_limit_w"),
        ("enforced_power_limit", "power_enforced_w"),
        ("default_power_limit", "power_default_w"),
        ("max_power_limit", "power_max_w"),
    ):
        XML[_around, _tag] = (_name, "W")

# `nvidia-smi --query-gpu=…`: columns, without their unit.
COLUMNS: dict[str, Known] = {
    "timestamp": ("time_s", "time"),
    "driver_version": ("driver", "name"),
    "name": ("name", "name"),
    "gpu_name": ("name", "name"),
    "index": ("gpu", "name"),
    "pci.bus_id": ("gpu", "name"),
    "gpu_bus_id": ("gpu", "name"),
    "uuid": ("gpu", "name"),
    "gpu_uuid": ("gpu", "name"),
    "driver_model.current": ("driver_model", "model"),
    "clocks_throttle_reasons.active": ("reasons", "bits"),
    "clocks_event_reasons.active": ("reasons", "bits"),
    "pstate": ("performance_state", "state"),
    "utilization.gpu": ("utilization_percent", "%"),
    "temperature.gpu": ("temperature_c", "degrees"),
    "temperature.gpu.tlimit": ("margin_c", "degrees"),
    "temperature.memory": ("memory_temperature_c", "degrees"),
    "memory.total": ("memory_total_mib", "MiB"),
    "memory.used": ("memory_used_mib", "MiB"),
    "clocks.sm": ("sm_mhz", "MHz"),
    "clocks.gr": ("graphics_mhz", "MHz"),
    "clocks.graphics": ("graphics_mhz", "MHz"),
    "clocks.mem": ("memory_mhz", "MHz"),
    "clocks.memory": ("memory_mhz", "MHz"),
    "clocks.max.sm": ("sm_max_mhz", "MHz"),
    "clocks.max.gr": ("graphics_max_mhz", "MHz"),
    "clocks.max.graphics": ("graphics_max_mhz", "MHz"),
    "clocks.max.mem": ("memory_max_mhz", "MHz"),
    "clocks.max.memory": ("memory_max_mhz", "MHz"),
    "clocks.applications.gr": ("sm_set_mhz", "MHz"),
    "clocks.applications.graphics": ("sm_set_mhz", "MHz"),
    "pcie.link.gen.current": ("pcie_generation", "whole"),
    "pcie.link.gen.gpucurrent": ("pcie_generation", "whole"),
    "pcie.link.gen.max": ("pcie_generation_max", "whole"),
    "pcie.link.width.current": ("pcie_width", "whole"),
    "pcie.link.width.max": ("pcie_width_max", "whole"),
    "power.draw": ("power_w", "W"),
    "power.draw.instant": ("power_instant_w", "W"),
    "power.draw.average": ("power_average_w", "W"),
    "power.limit": ("power_limit_w", "W"),
    "enforced.power.limit": ("power_enforced_w", "W"),
    "power.default_limit": ("power_default_w", "W"),
    "power.max_limit": ("power_max_w", "W"),
    "ecc.errors.uncorrected.volatile.total": ("uncorrected", "whole"),
    "ecc.errors.uncorrected.aggregate.total": ("uncorrected_ever", "whole"),
    "remapped_rows.pending": ("remap_pending", "yes"),
    "remapped_rows.failure": ("remap_failed", "yes"),
}


def column(heading: str) -> tuple[Known | None, str]:
    """``clocks.current.sm [MHz]`` → (what it is, ``MHz``); None for a column that says nothing here."""
    name, _, unit = heading.strip().partition(" [")
    name, unit = name.strip().lower().replace(".current.", "."), unit.rstrip("] ")
    for kind, prefix in (("counter", "reasons_counters."), ("reason", "reasons.")):
        start, found, reason = name.partition(prefix)
        if found and start.startswith("clocks_") and reason in REASON_OF:
            return (f"{kind}:{REASON_OF[reason]}", "s" if kind == "counter" else "active"), unit
    return COLUMNS.get(name) or COLUMNS.get(heading.strip().partition(" [")[0].lower()), unit
