"""The card around its clocks: where its power comes from, its memory, its link, who else is on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ganeum import units
from ganeum.doctor.finding import Finding
from ganeum.doctor.health.words import NEAR_LIMIT, acting, clocks, power, warmth
from ganeum.doctor.smi.sample import Sample, merged

CLOSE_C = 3.0  # to the temperature at which it slows itself down
MUCH_MIB = 300.0  # that another process holds


def power_source(samples: Sequence[Sample]) -> Iterator[Finding]:
    for sample in samples[-1:]:
        if sample.power_source in ("battery", "weak supply"):
            battery = sample.power_source == "battery"
            yield Finding(
                cause="battery",
                title="the laptop runs on its battery" if battery else "the power supply is too weak for this laptop",
                evidence=(*power(sample), *clocks(sample)),
                change="its own charger, plugged in",
            )


def memory_errors(samples: Sequence[Sample]) -> Iterator[Finding]:
    sample = samples[-1]
    if sample.uncorrected:
        yield Finding(
            cause="ecc",
            title="memory errors that could not be corrected",
            severity="error",
            evidence=(f"{sample.uncorrected:.0f} uncorrected errors since the driver was loaded",),
            change="end what runs, reset the GPU or restart; if they come again, have it exchanged",
        )
    elif sample.uncorrected_ever:
        yield Finding(
            cause="ecc",
            title="memory errors long ago",
            severity="note",
            evidence=(f"{sample.uncorrected_ever:.0f} uncorrected errors ever, none since the driver was loaded",),
        )
    if sample.remap_failed:
        yield Finding(
            cause="ecc",
            title="a damaged row of its memory could not be replaced",
            severity="error",
            evidence=("Remapping Failure Occurred: Yes",),
            change="have the card exchanged",
        )
    if sample.remap_pending:
        yield Finding(
            cause="ecc",
            title="a damaged piece of its memory waits to be replaced",
            evidence=("Pending: Yes",),
            change="reset the GPU, or restart the machine, when nothing runs",
        )


def nearly_hot(samples: Sequence[Sample]) -> Iterator[Finding]:
    for sample in samples[-1:]:
        margin = sample.margin_c
        if margin is None and sample.slowdown_c is not None and sample.temperature_c is not None:
            margin = sample.slowdown_c - sample.temperature_c
        if margin is not None and margin <= CLOSE_C and not any(acting(one) for one in samples):
            yield Finding(
                cause="thermal",
                title="close to the temperature at which it slows itself down",
                severity="note",
                evidence=(f"{margin:.0f} °C left", *warmth(sample)),
                change="air, fans, dust",
            )


def link(samples: Sequence[Sample]) -> Iterator[Finding]:
    """A narrow link under load; of no weight where only token ids are moved."""
    busy = [sample for sample in samples if sample.busy]
    for sample in busy[-1:]:
        width, most = sample.pcie_width, sample.pcie_width_max
        generation, newest = sample.pcie_generation, sample.pcie_generation_max
        if (width and most and width < most) or (generation and newest and generation < newest):
            yield Finding(
                cause="pcie",
                title="the PCIe link is narrower or slower than it could be",
                severity="note",
                evidence=(
                    f"under load: generation {generation or 0:.0f} of {newest or 0:.0f}, "
                    f"{width or 0:.0f} of {most or 0:.0f} lanes",
                    "a step moves kilobytes of token ids: no effect on it, unless memory is offloaded or spills; many "
                    "cloud machines give a T4, A10G or L40S 8 lanes by design",
                ),
            )


def lowered(samples: Sequence[Sample]) -> Iterator[Finding]:
    sample = merged(list(samples))
    if sample.power_limit_w and sample.power_default_w and sample.power_limit_w < NEAR_LIMIT * sample.power_default_w:
        yield Finding(
            cause="power_cap",
            title="the power limit is set below the card's own",
            severity="note",
            evidence=(f"{sample.power_limit_w:.0f} W; by default {sample.power_default_w:.0f} W",),
            change="nvidia-smi -pl (as root), if that was not meant",
        )


def others(samples: Sequence[Sample]) -> Iterator[Finding]:
    programs = [process for process in samples[-1].processes if (process.memory_mib or 0) >= MUCH_MIB]
    computing = [process for process in programs if "C" in process.kind and "G" not in process.kind]
    if len(computing) > 1:
        yield Finding(
            cause="other_processes",
            title="several programs compute on this GPU",
            severity="note",
            evidence=tuple(
                f"{one.name or 'process'} ({one.pid}): {units.size((one.memory_mib or 0) * 2**20)}" for one in programs
            ),
            change="end those that are not your run: they take its time, too",
        )


def full(samples: Sequence[Sample]) -> Iterator[Finding]:
    sample = merged(list(samples))
    used, total = sample.memory_used_mib, sample.memory_total_mib
    if used and total and used > 0.97 * total and sample.driver_model == "WDDM":
        yield Finding(
            cause="spill",
            title="its memory is full, and Windows then moves some of it into the machine's",
            evidence=(f"{used:,.0f} of {total:,.0f} MiB",),
            severity="note",
            sure="unconfirmed here",
            change="a smaller micro-batch; or 'Prefer No Sysmem Fallback' in NVIDIA's control panel (driver 546.01 on)",
        )
