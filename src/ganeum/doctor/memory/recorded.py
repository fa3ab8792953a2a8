"""What a run recorded of its own memory: planned beside measured, growth over its steps, memory in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganeum.config import Config
from ganeum.doctor.finding import Finding
from ganeum.doctor.memory import levers, peak
from ganeum.doctor.memory.growth import Growth, growth
from ganeum.doctor.memory.peak import IN_PIECES, WORTH, Peak
from ganeum.errors import GaneumError
from ganeum.hardware.device import Device
from ganeum.record import RunDirectory, read_metrics
from ganeum.record.files import read_json
from ganeum.units import GIB

READ = ("by_component", "tensors", "at")  # what a plan must have of its memory: older ones have not
# Over which a process on a CPU must grow, and by what share of what it holds: honest runs of adopted models grew by 7 %
# over 240 steps, for code kept for each new shape.
FEWEST_STEPS, LEAST_SHARE = 100, 0.25
TOKEN, EXAMPLE = 4, 24  # bytes at most of a token of examples that are mapped, and of where one begins and ends
WAYS = "a loss or an output kept with its graph (loss.item() or .detach()), a list that only gets longer, a cache"


def of_run(run: RunDirectory, config: Config) -> tuple[list[Finding], dict[str, Any]]:
    """Findings, and what was read, for ``doctor.json``."""
    lines = list(read_metrics(run.metrics_path))
    plan = _plan(run)
    kind = (plan.get("device") or {}).get("kind", "cpu")
    facts: dict[str, Any] = {}
    allocated, reserved = (_largest(lines, name) for name in ("memory_allocated_gib", "memory_reserved_gib"))
    if allocated is not None:
        facts["measured_gib"] = {"allocated": allocated, "reserved": reserved}
    findings = list(_beside_plan(plan, allocated, reserved, kind))
    if reserved and allocated:
        facts["fragmentation"] = 1 - allocated / reserved
        findings += _pieces(allocated, reserved)
    grown = of_lines(lines)
    if grown is not None:
        if kind == "cpu" and not _surely(grown, _mapped(config, plan)):
            grown = replace(grown, lasting=False)
        facts["growth"] = grown.as_dict()
        findings += of_growth(grown, "its metrics", torch_counts=kind == "cuda")
    facts["planned_gib"] = {
        name: value
        for name in ("peak_allocated", "peak_reserved", "low", "high")
        if (value := (plan.get("memory_gib") or {}).get(name)) is not None
    }
    return findings, facts


def _surely(grown: Growth, mapped: float) -> bool:
    """Whether a process on a CPU holds more than allocators, caches by shape and pages of its data account for.

    Args:
        mapped: bytes of data files, whose pages count as its memory once they are read.
    """
    return grown.steps >= FEWEST_STEPS and grown.by * grown.steps > mapped + LEAST_SHARE * grown.held


def _mapped(config: Config, plan: Mapping[str, Any]) -> float:
    """Bytes of files that a run maps: tokens of ours, or what examples became as tokens, at the most."""
    if not config.data.train:
        return sum(file.stat().st_size for file in Path(config.data.directory).glob("*.bin"))
    data = plan.get("data") or {}
    held_out = max(1.0, 1 + (data.get("val_examples") or 0) / (data.get("examples") or 1))
    return held_out * (TOKEN * (data.get("tokens") or 0) + EXAMPLE * (data.get("examples") or 0))


def peak_of(run: RunDirectory, config: Config, device: Device, *, trace: bool = False) -> tuple[Peak | None, str]:
    """The peak as it was planned before the run, with its levers; and why these are not there, if so.

    None: it was planned for another device, by an older version, or not at all.

    Args:
        trace: the levers by traces, as far as there is time.
    """
    plan = _plan(run)
    memory, planned_for = plan.get("memory_gib") or {}, plan.get("device") or {}
    if not all(name in memory for name in READ) or planned_for.get("name") != device.name:
        return None, ""
    try:
        ways = levers.by_closed_form(config, device)
    except GaneumError as error:  # its model lay beside where it was trained, say
        return peak.of_plan(plan), error.what
    if trace and ways:
        from ganeum.plan.trace.child import Child

        with Child(limit_s=peak.LIMIT_S) as child:
            ways = levers.traced(child, config, device, ways)
    return peak.of_plan(plan, ways), ""


def of_lines(lines: Sequence[Mapping[str, Any]]) -> Growth | None:
    """Of what its metrics hold: a process's memory on a CPU; on a GPU the most so far, which only new heights move."""
    told = [
        (line["step"], line["memory_allocated_gib"] * GIB)
        for line in lines
        if isinstance(line.get("step"), int) and isinstance(line.get("memory_allocated_gib"), (int, float))
    ]
    return growth([step for step, _ in told], [held for _, held in told])


def of_growth(found: Growth, source: str, seen: Sequence[str] = (), *, torch_counts: bool = False) -> Iterator[Finding]:
    """Memory that grows for good; ``seen``: what was seen that does it, in sentences."""
    if not found.lasting:
        return
    mib, (low, high) = found.by / 2**20, (found.low / 2**20, found.high / 2**20)
    steps = 2**30 / found.by
    yield Finding(
        cause="memory_growth",
        title=f"memory grows by {mib:.3g} MiB a step, and goes on growing",
        evidence=(
            f"over {found.steps:,} steps, by {source}: 1 GiB more every {steps:,.0f} steps",
            "the most that torch gave out so far" if torch_counts else "what the process holds in memory (RSS)",
            *seen,
        ),
        change="keep a number of it, or the last few"
        if seen
        else f"look for what is kept: {WAYS}; rows of many lengths let an allocator grow for a while",
        sure="measured",
        size=mib,
        interval=(low, high),
        unit="MiB a step",
    )


def _beside_plan(
    plan: Mapping[str, Any], allocated: float | None, reserved: float | None, kind: str
) -> Iterator[Finding]:
    memory = plan.get("memory_gib") or {}
    planned, low, high = (memory.get(name) for name in ("peak_allocated", "low", "high"))
    if allocated is None or planned is None or low is None or high is None:
        return
    shown = f"measured {allocated:.2f} GiB, planned {planned:.2f} GiB ({low:.2f} to {high:.2f})"
    if reserved is not None and "peak_reserved" in memory:
        shown += f"; reserved {reserved:.2f} GiB, planned {memory['peak_reserved']:.2f} GiB"
    above = allocated > high
    yield Finding(
        cause="unplanned_memory",
        title=f"its peak is {allocated / planned - 1:+.0%} of what was planned"
        + (", above all bounds" if above else ""),
        evidence=(shown, "of the process" if kind == "cpu" else "of torch's allocator"),
        change="ganeum plan --exact traces the step; look for what callbacks and extras hold" if above else "",
        severity="warning" if above else "note",
        sure="measured",
        size=allocated,
        unit="GiB",
    )


def _pieces(allocated: float, reserved: float) -> Iterator[Finding]:
    share = 1 - allocated / reserved
    if share > IN_PIECES and reserved - allocated > WORTH:
        yield Finding(
            cause="fragmentation",
            title=f"{reserved - allocated:.2f} GiB were reserved beside the most that was given out",
            evidence=(f"{share:.0%} of {reserved:.2f} GiB, as torch counted them",),
            change="train.expandable_segments=true (PYTORCH_ALLOC_CONF=expandable_segments:True); fixed shapes",
            severity="warning" if share > 2 * IN_PIECES else "note",
            sure="measured",
            size=reserved - allocated,
            unit="GiB",
        )


def _largest(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    return max((line[name] for line in lines if isinstance(line.get(name), (int, float))), default=None)


def _plan(run: RunDirectory) -> Mapping[str, Any]:
    try:
        found = read_json(run.plan_path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
