"""Where the memory of a training goes: every GiB at its peak with its levers, and what grows or lies there idle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganeum.config import Config
from ganeum.doctor.finding import Finding, Report, worst_first
from ganeum.doctor.memory import peak, recorded, snapshot
from ganeum.doctor.memory.peak import Peak
from ganeum.errors import TraceError
from ganeum.hardware.device import Device
from ganeum.record import RunDirectory
from ganeum.units import GIB

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Subject

__all__ = ["of_config", "of_run", "of_script", "of_snapshot"]


def of_config(
    config: Config,
    device: Device,
    tokens: int | None = None,
    *,
    trace: bool = True,
    steps: int = 0,
    seconds: float = 60.0,
    subject: str = "",
) -> Report:
    """A run of ours that may not have started yet.

    Args:
        trace: its step is traced (seconds to a minute); else the closed form alone answers, at once.
        steps: to be taken here and watched; 0: none. ``seconds``: that these take at most.
    """
    found = peak.of_config(config, device, tokens, trace=trace)
    more, facts, ruled_out = _watched(config, steps, seconds)
    return _report(found, subject or config.name or "a run", more, facts, ruled_out)


def of_run(
    run: RunDirectory,
    config: Config,
    device: Device,
    tokens: int | None = None,
    *,
    trace: bool = True,
    steps: int = 0,
    seconds: float = 60.0,
) -> Report:
    """A run of ours that has recorded its memory: the same, with planned beside measured.

    Its peak is that of its plan.json where the run was planned for ``device``.

    Args:
        trace: the step that each lever makes is traced; and its own, where it was planned for another device.
    """
    found, no_levers = recorded.peak_of(run, config, device, trace=trace)
    if found is None:
        found = peak.of_config(config, device, tokens, trace=trace)
    more, facts, ruled_out = _watched(config, steps, seconds)
    beside, measured = recorded.of_run(run, config)
    ruled_out = [*ruled_out, *_not_growing(measured)]
    if no_levers:
        ruled_out.append(f"levers could not be computed here: {no_levers}")
    return _report(found, run.name, [*beside, *more], facts | {"recorded": measured}, ruled_out)


def of_script(text: str, device: Device, *, trace: bool = True, steps: int = 60, seconds: float = 60.0) -> Report:
    """Somebody's own training, ``FILE.py:FUNCTION``: traced for ``device``, and watched for some steps here.

    A function that gives ``build`` and ``step`` alone (as ``ganeum plan --script`` takes) is traced and not run.

    Raises:
        ConfigError: there is no such file, or no function is named.
        TraceError: it can neither be traced nor watched; with both reasons.
    """
    from ganeum.plan.question.script import script

    found: Peak | None = None
    not_traced = ""
    if trace:
        try:
            found = peak.of_plan(script(text, device).found)
        except TraceError as error:
            not_traced = error.what
    more, facts, ruled_out = _watched(text, steps, seconds)
    if found is None:
        if not facts:
            raise TraceError(not_traced or "nothing was asked for", where=text, why="; ".join(ruled_out) or None)
        headline = f"not traced: {not_traced}" if not_traced else "watched, not traced"
        return Report(
            subject=text, headline=headline, findings=worst_first(more), ruled_out=tuple(ruled_out), facts=facts
        )
    return _report(found, text, more, facts, ruled_out)


def of_snapshot(path: Path, device: int = 0) -> Report:
    """What ``torch.cuda.memory._dump_snapshot`` wrote: the fullest moment that it recorded, and who asked.

    Raises:
        DataError: it is none.
    """
    from ganeum.doctor.memory import observed

    found = snapshot.load(path, device)
    told = {**vars(found), "at_peak": dict(found.at_peak)}
    headline = (
        f"{found.peak_requested / GIB:.2f} GiB were asked for at its peak; now {found.allocated / GIB:.2f} GiB of "
        f"{found.reserved / GIB:.2f} GiB reserved, {found.idle / GIB:.2f} GiB of it idle"
    )
    if not found.complete:
        headline += "; it was not recorded from the beginning, so an earlier peak may be missing"
    return Report(subject=path.name, headline=headline, findings=worst_first(observed.of_snapshot(told)), facts=told)


def _watched(subject: Subject, steps: int, seconds: float) -> tuple[list[Finding], dict[str, Any], list[str]]:
    """Findings of some steps taken here, what was read, what was not found; where they cannot be taken, that."""
    if steps <= 0 or seconds <= 0:
        return [], {}, []
    from ganeum.doctor.measured.worker import Gone
    from ganeum.doctor.memory import observed

    began = time.perf_counter()
    try:
        seen = observed.observe(subject, steps=steps, seconds=seconds)
    except Gone as error:
        if error.memory:
            return [_ran_out(str(error))], {}, []
        return [], {}, [f"growth, dead and duplicated parameters: its steps could not be taken here ({error})"]
    facts = {"watched": observed.facts(seen) | {"seconds": time.perf_counter() - began}}
    return list(observed.findings(seen)), facts, list(observed.silent(seen))


def _ran_out(why: str) -> Finding:
    return Finding(
        cause="does_not_fit",
        title="memory ran out while its steps were taken here",
        evidence=(why.splitlines()[0],),
        change="the levers of the parts below; `ganeum doctor message` explains the message itself",
        severity="error",
        sure="measured",
    )


def _report(found: Peak, subject: str, more: list[Finding], facts: dict[str, Any], ruled_out: list[str]) -> Report:
    device, memory = found.device, found.memory
    headline = f"{peak.shown(found.needed)} at the fullest moment of a step on {device['name']}"
    if device.get("memory_gib"):
        headline += f", of {device['memory_gib']:.2f} GiB"
    if memory.get("source") != "traced":
        why = memory.get("not_traced")
        headline += f" (closed form{'; not traced: ' + why if why else ''})"
    uncertain = [f"uncertain: {doubt}" for doubt in memory.get("uncertain", ())]
    uncertain += _checked(memory, (facts.get("watched") or {}).get("snapshot"), device.get("kind") == "cuda")
    return Report(
        subject=subject,
        headline=headline,
        findings=worst_first([*found.findings(), *more]),
        ruled_out=(*ruled_out, *uncertain),
        drawn=found.table(),
        facts={"peak": found.as_dict(), **facts},
    )


def _checked(memory: Mapping[str, Any], told: Mapping[str, Any] | None, on_gpu: bool) -> list[str]:
    """The peak beside what torch counted of a step here."""
    if not on_gpu or memory.get("source") != "traced":
        return []
    if not told:
        return ["unconfirmed here: on that GPU --steps 60 holds this peak against torch's own record of a step"]
    counted = told["counted_allocated"] / GIB
    return [f"the trace is off by {memory['tensors'] / counted - 1:+.2%} of what a step took here ({counted:.3f} GiB)"]


def _not_growing(measured: dict[str, Any]) -> list[str]:
    grown = measured.get("growth")
    if not grown or grown["lasting"]:
        return []
    low, high = (end / 1024 for end in grown["interval"])
    return [f"memory that grows: {low:+.3g} to {high:+.3g} KiB a step over {grown['steps']:,} steps of its metrics"]
