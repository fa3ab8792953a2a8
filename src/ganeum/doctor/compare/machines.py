"""What two trainings ran on and with: devices, versions, variables, and a GPU's clocks and temperatures meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ganeum.doctor.compare.side import Side, section
from ganeum.train.throttling import AT_WORK_PERCENT, LEAST_SAMPLES, throttling

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
DEBUG = ("CUDA_LAUNCH_BLOCKING", "TORCH_SHOW_CPP_STACKTRACES", "TORCH_LOGS", "NCCL_DEBUG", "TORCH_DISTRIBUTED_DEBUG")
IDLE = ("GANEUM_", "HF_", "TORCHINDUCTOR_CACHE_DIR")  # of names: where things lie, which costs a step nothing
FIGURES = {
    "sm_clock_mhz": ("SM clock", "MHz"),
    "memory_clock_mhz": ("memory clock", "MHz"),
    "power_w": ("power", "W"),
    "temperature_c": ("temperature", "°C"),
}
LOWER = 0.97  # of the other's clock


@dataclass(frozen=True)
class Changed:
    """Something that differs; ``cause``: of slowness, where it can be one."""

    what: str
    run: Any
    baseline: Any
    cause: str | None = None

    def sentence(self) -> str:
        """``torch: 2.11.0, the baseline 2.13.0``."""
        return f"{self.what}: {_said(self.run)}, the baseline {_said(self.baseline)}"


def device(side: Side) -> str | None:
    """Its name, as the plan or the environment has it; None: not said."""
    gpus = side.environment.get("gpus")
    first = gpus[0] if isinstance(gpus, list) and gpus else None
    told = (section(side.plan, "device"), first, section(side.environment, "cpu"))
    return next((name for one in told if isinstance(one, dict) and isinstance(name := one.get("name"), str)), None)


def changed(run: Side, baseline: Side) -> Iterator[Changed]:
    """What differs of devices, drivers, versions, code and variables; nothing where one of them does not say."""
    ours, theirs = run.environment, baseline.environment
    if (a := device(run)) and (b := device(baseline)) and a != b:
        yield Changed("device", a, b)
    if not ours or not theirs:
        return
    cores = [section(one, "cpu").get("cores") for one in (ours, theirs)]
    if cores[0] != cores[1]:
        yield Changed("CPU cores", *cores)
    for name in ("driver", "python", "os"):
        if ours.get(name) != theirs.get(name):
            yield Changed(name, ours.get(name), theirs.get(name))
    for name, one, other in _apart(section(ours, "packages"), section(theirs, "packages")):
        yield Changed(name, one, other)
    commits = [section(one, "git").get("commit") for one in (ours, theirs)]
    if commits[0] != commits[1]:
        yield Changed("ganeum's commit", *(str(commit or "")[:9] or None for commit in commits))
    elif section(ours, "git").get("diff") != section(theirs, "git").get("diff"):
        yield Changed("ganeum's code", "changed by hand", "changed by hand in another way")
    own = [section(one, "git_of_working_directory").get("commit") for one in (ours, theirs)]
    if own[0] != own[1]:
        yield Changed("the commit around it", *(str(commit or "")[:9] or None for commit in own))
    for name, one, other in _apart(section(ours, "variables"), section(theirs, "variables")):
        if not name.startswith(IDLE):
            cause = "oversubscription" if name in THREADS else "debug_mode" if name in DEBUG else None
            yield Changed(name, one, other, cause)


def at_work(side: Side) -> dict[str, Any] | None:
    """Medians of a GPU's figures while it worked, and what held it down; None: it was not watched, or too shortly."""
    busy = [line for line in side.system if (line.get("gpu_utilization_percent") or 0) >= AT_WORK_PERCENT]
    if len(busy) < LEAST_SAMPLES:
        return None
    found: dict[str, Any] = {name: middle for name in FIGURES if (middle := _median(busy, name)) is not None}
    if held := throttling(side.system):
        found |= {"throttled_share": held["share"], "throttle_reasons": held["reasons"]}
    return found


def clocks(run: Side, baseline: Side) -> list[str]:
    """A line for each figure of two GPUs that were both watched at work."""
    ours, theirs = at_work(run), at_work(baseline)
    if ours is None or theirs is None:
        return []
    return [
        f"{title} at work: {ours[name]:,.0f} {unit}, the baseline {theirs[name]:,.0f} {unit}"
        for name, (title, unit) in FIGURES.items()
        if name in ours and name in theirs
    ]


def clock_ratio(run: Side, baseline: Side) -> float | None:
    """The run's SM clock by the baseline's, on one model of card; None: not known."""
    ours, theirs = at_work(run), at_work(baseline)
    if ours is None or theirs is None or device(run) != device(baseline):
        return None
    if "sm_clock_mhz" not in ours or not theirs.get("sm_clock_mhz"):
        return None
    return float(ours["sm_clock_mhz"] / theirs["sm_clock_mhz"])


def _median(lines: Sequence[Mapping[str, Any]], name: str) -> float | None:
    values = [line[name] for line in lines if line.get(name) is not None]
    return median(values) if values else None


def _apart(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            yield name, ours.get(name), theirs.get(name)


def _said(value: Any) -> str:
    return "not set" if value is None else str(value)
