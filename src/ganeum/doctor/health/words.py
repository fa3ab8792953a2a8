"""What the looks at a GPU share: how much of its clock a sample lacks, and its figures in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ganeum.doctor.smi.sample import Sample

SMALL = 0.10  # of the clock: a loss below it is told, and no alarm
NEAR_LIMIT = 0.95  # of the power limit: a cap that is active below it is not what holds the clocks
CAPPED = 0.05  # of a busy window, or of a run: below it capping is noise


FLAGS = {
    "sw_power_cap": "SW power cap",
    "hw_slowdown": "HW slowdown",
    "hw_thermal_slowdown": "HW thermal slowdown",
    "hw_power_brake_slowdown": "HW power brake",
    "sw_thermal_slowdown": "SW thermal slowdown",
    "applications_clocks_setting": "applications clocks setting",
    "sync_boost": "sync boost",
    "display_clock_setting": "display clock setting",
    "board_limit": "board limit",
    "reliability": "reliability",
    "gpu_idle": "idle",
}


def acting(sample: Sample) -> list[str]:
    """The reasons that are active and hold clocks down."""
    return [name for name, active in sample.reasons.items() if active and name != "gpu_idle"]


def usual_mhz(sample: Sample) -> float | None:
    """The clock that can be expected under load: its maker's boost clock where the card is known, else its maximum."""
    known = [clock for clock in (sample.sm_rated_mhz, sample.sm_max_mhz) if clock]
    return min(known) if known else None


def clock_loss(sample: Sample) -> float | None:
    """The share of that clock that it lacks now; 0 above it."""
    usual = usual_mhz(sample)
    return max(0.0, 1 - sample.sm_mhz / usual) if sample.sm_mhz and usual else None


def power_share(sample: Sample) -> float | None:
    if sample.power_w is None or not sample.power_limit_w:
        return None
    return sample.power_w / sample.power_limit_w


def worst(samples: Sequence[Sample]) -> Sample:
    return max(samples, key=lambda sample: clock_loss(sample) or 0.0)


def of_looks(some: Sequence[Sample], samples: Sequence[Sample]) -> str:
    return f" in {len(some)} of {len(samples)} looks" if len(samples) > 1 else ""


def clocks(sample: Sample) -> Iterator[str]:
    usual = usual_mhz(sample)
    if sample.sm_mhz and usual:
        what = "its boost clock of" if usual == sample.sm_rated_mhz else "at most"
        yield f"clock {sample.sm_mhz:,.0f} of {what} {usual:,.0f} MHz ({sample.sm_mhz / usual:.0%})"
    elif sample.sm_mhz:
        yield f"clock {sample.sm_mhz:,.0f} MHz"


def power(sample: Sample) -> Iterator[str]:
    if sample.power_w is not None and sample.power_limit_w:
        yield f"power {sample.power_w:.0f} of {sample.power_limit_w:.0f} W ({power_share(sample):.0%})"
    elif sample.power_w is not None:
        yield f"power {sample.power_w:.0f} W"


def warmth(sample: Sample) -> Iterator[str]:
    if sample.temperature_c is not None:
        memory = f", memory {sample.memory_temperature_c:.0f} °C" if sample.memory_temperature_c is not None else ""
        yield f"temperature {sample.temperature_c:.0f} °C{memory}"


def state(sample: Sample) -> str:
    said = [sample.performance_state or ""]
    if sample.power_w is not None:
        said.append(f"{sample.power_w:.0f} W")
    if sample.utilization_percent is not None:
        said.append(f"{sample.utilization_percent:.0f} % utilisation")
    return ", ".join(word for word in said if word) or "rest"
