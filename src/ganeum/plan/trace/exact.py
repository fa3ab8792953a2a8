"""The exact memory of a run: its own step traced, replayed, and put into its plan beside the closed form's.

Loads no torch: traces are made in a child process (:mod:`ganeum.plan.trace.child`). Where there is none, the plan stays
as the closed form has it and says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ganeum import units
from ganeum.config import Config
from ganeum.config.batch import divisors
from ganeum.config.change import change
from ganeum.hardware.device import Device
from ganeum.plan import execution, fastest, levers
from ganeum.plan.architecture import configured
from ganeum.plan.execution import Execution
from ganeum.plan.fastest import LEVELS
from ganeum.plan.trace import learnt, timed
from ganeum.plan.trace.child import Answer, Child, NotTraced
from ganeum.plan.trace.events import Trace
from ganeum.plan.trace.replay import Replayed, last_step, replay, sizes
from ganeum.plan.trace.roofline import Operation
from ganeum.plan.trace.room import SPARE, Room, largest, longest

Plan = dict[str, Any]
# Two real steps of a settled config, so much at once → bytes allocated and reserved at most, or why not.
Prober = Callable[[Config, Device, Execution], "tuple[int, int] | str"]
LISTED = 24  # parts of the peak in a plan
START_LIMIT_S = 90.0  # what a run waits for its own trace


@dataclass(frozen=True)
class Exact:
    """What was found of one way to run.

    Attributes:
        replayed: its memory, on a device without end.
        room: what the device has.
        fits: whether it goes through there.
        seconds: what the tracing took.
        trace: the trace itself.
        operations: of a step, where they were asked for.
    """

    replayed: Replayed
    room: Room
    fits: bool
    seconds: float
    trace: Trace
    operations: dict[Operation, float] | None = None


def of(
    child: Child, config: Config, device: Device, way: Execution, *, operations: bool = False, between: bool = False
) -> Exact:
    """One way to run, traced; ``operations``: with what it computes; ``between``: with an evaluation and a sample.

    Where these or compiled code cannot be traced, the steps alone are, uncompiled, and ``uncertain`` says so.

    Raises:
        NotTraced: with the reason.
    """
    begun = time.perf_counter()
    try:
        answer = child.run(config, device, way, operations=operations, between=between)
    except NotTraced as reason:
        if not way.compiled and not between:
            raise
        answer = child.run(config, device, replace(way, compiled=False), operations=operations)
        told = f"compiled code could not be traced ({reason}): it takes a little less than this"
        if not way.compiled:
            told = f"evaluations and samples could not be traced ({reason}): these are the steps alone"
        answer = replace(answer, trace=replace(answer.trace, uncertain=(*answer.trace.uncertain, told)))
    return found(answer, device, time.perf_counter() - begun)


def found(answer: Answer, device: Device, seconds: float) -> Exact:
    """What a trace comes to on ``device``."""
    room, trace = Room.of(device, answer), answer.trace
    if trace.settings.get("purpose") == "evaluation":
        trace = last_step(trace)
    replayed = replay(trace, room.settings, memory=room.memory)
    if device.kind == "cuda":
        fits = replayed.peak_reserved <= room.free or room.holds(sizes(trace))
    else:
        fits = replayed.peak_allocated <= room.free
    return Exact(replayed, room, fits, seconds, trace, answer.operations)


def refined(plan: Plan, config: Config, device: Device, *, explain: bool = False, probe: Prober | None = None) -> Plan:
    """The plan with the traced memory of its step in ``memory_gib``, and ``method: traced``.

    The closed form's stays in ``memory_gib.closed_form``. On a GPU ``largest_micro_batch`` is exact, and where
    micro-batch and checkpointing were ``auto`` they become the fastest that fits by traces. A run that sets
    ``train.compile`` is traced compiled; that of ``auto`` is not, which takes a little more memory, and much less time
    to trace.

    Args:
        plan: of ``config`` on ``device``; its choices are what is traced.
        explain: also ``memory_gib.levers``, what each lever would save, and on a GPU ``batch.largest_length``.
        probe: takes two real steps, for ``memory_gib.probe``, and what it measures is kept.
    """
    settled = change(config, _chosen(plan, config))
    size = plan["batch"]["micro_batch_size"]
    way = first = execution.of(settled, device, size)
    batch, choices = dict(plan["batch"]), list(plan["choices"])
    with Child() as child:
        try:
            exact = of(child, settled, device, way, operations=True)
            if device.kind == "cuda":
                best = _fastest(child, plan, config, settled, device, way, exact)
                batch["largest_micro_batch"] = best.most
                if best.way != way:
                    choices = [_rechosen(one, best, device) for one in choices]
                    way, exact = best.way, best.exact
                    settled = change(settled, {"train.activation_checkpointing": way.checkpointing})
                    batch |= {"micro_batch_size": way.micro_batch_size, "gradient_accumulation_steps": way.accumulation}
                if explain:
                    batch["largest_length"] = longest(child, settled, device, replace(way, compiled=False))
        except NotTraced as reason:
            return plan | {"memory_gib": plan["memory_gib"] | {"not_traced": str(reason)}}
        memory = section(exact, device, plan["memory_gib"])
        if way != first and "closed_form" in memory:  # its figures are those of the way that it chose
            memory["closed_form"] |= {
                "micro_batch_size": first.micro_batch_size,
                "activation_checkpointing": first.checkpointing,
            }
        if explain:
            memory["levers"] = _levers(child, settled, device, way, exact)
    if probe is not None:
        memory["probe"] = _probed(probe(settled, device, way), plan, device, exact)
    plan = timed.retimed(plan, device, way, exact.operations or {})
    return plan | {"method": "traced", "batch": batch, "memory_gib": memory, "choices": choices}


@dataclass(frozen=True)
class Best:
    """The way to take: ``most`` sequences would fit at once; ``step_s``: seconds, where the device's rates are known;
    ``instead``: the way without recomputation, where that fits too and is slower."""

    way: Execution
    exact: Exact
    most: int
    step_s: float | None
    instead: Best | None = None


def _fastest(
    child: Child, plan: Plan, config: Config, settled: Config, device: Device, way: Execution, exact: Exact
) -> Best:
    """Of the levels of checkpointing that may be chosen the fastest, each at the largest share of the batch that fits;
    of those about as fast the one that computes least twice. What is set stays; ``way`` where nothing fits.

    Args:
        config: as the user has it, ``auto`` where something may be chosen; ``settled``: with the closed form's choices.
        way: the closed form's, traced as ``exact``.
    """
    free = config.train.activation_checkpointing == "auto"
    sequences = way.micro_batch_size * way.accumulation
    found: list[Best] = []
    for level in LEVELS if free else (way.checkpointing,):
        this = replace(way, checkpointing=level)
        guess = fastest.largest(configured.of(settled), replace(this, accumulation=1), device)
        most = largest(child, settled, device, replace(this, accumulation=1, compiled=False), guess)
        size = way.micro_batch_size
        if config.train.micro_batch_size == "auto":
            size = _better(config, size, most)
        if not most and free:
            continue
        this = replace(this, micro_batch_size=size, accumulation=max(1, sequences // size))
        traced = exact if this == way else of(child, settled, device, this, operations=True)
        found.append(Best(this, traced, most, timed.step_s(plan, device, this, traced.operations or {})))
        if size == sequences and traced.fits:  # nothing is gained by computing anything twice
            break
    fitting = [one for one in found if one.exact.fits]
    if not fitting:
        return Best(way, exact, max((one.most for one in found), default=0), None)
    paces = [1 / one.step_s if one.step_s else 0.0 for one in fitting]
    best = next(one for one, pace in zip(fitting, paces, strict=True) if pace * (1 + fastest.EQUAL) >= max(paces))
    return best if best is fitting[0] else replace(best, instead=fitting[0])


def micro_batch(config: Config, device: Device) -> tuple[int, str] | None:
    """The value of ``train.micro_batch_size: auto`` on a GPU by traces, and the reason; None where the closed form's
    stays: the whole batch goes through at once by it, or nothing could be traced.

    Args:
        config: the closed form's choices made.
    """
    size, tokens = config.train.micro_batch_size, config.train.batch_tokens
    assert size != "auto", "chosen before"
    if tokens is not None or size == config.train.batch_size:
        return None
    way = replace(execution.of(config, device, size), accumulation=2, compiled=False)
    with Child(limit_s=START_LIMIT_S) as child:
        try:
            most = largest(child, config, device, way, size)
        except NotTraced:
            return None
    better = _better(config, size, most)
    return (better, f"the largest that fits: {most:,} would, traced for this GPU") if most else None


def started(plan: Plan, config: Config, device: Device) -> Plan:
    """The plan of a run that is about to start, every key of its config settled: its step is traced as it is, once,
    with an evaluation and a sample, which may take more, and which leave their mark on what is reserved."""
    size = config.train.micro_batch_size
    assert size != "auto", "settled before"
    with Child(limit_s=START_LIMIT_S) as child:
        try:
            exact = of(child, config, device, execution.of(config, device, size), between=True)
        except NotTraced as reason:
            return plan | {"memory_gib": plan["memory_gib"] | {"not_traced": str(reason)}}
    return plan | {"method": "traced", "memory_gib": section(exact, device, plan["memory_gib"])}


def ended(plan: Plan, measured_allocated_gib: float | None, measured_reserved_gib: float | None) -> None:
    """Keeps what a run measured beside what was traced for it, for the plans after it."""
    memory = plan.get("memory_gib") or {}
    if memory.get("source") != "traced" or measured_allocated_gib is None or measured_reserved_gib is None:
        return
    factor = memory.get("correction", {}).get("factor", 1.0)
    traced = [round(memory[name] * units.GIB / factor) for name in ("peak_allocated", "peak_reserved")]
    measured = [round(value * units.GIB) for value in (measured_allocated_gib, measured_reserved_gib)]
    learnt.remember(plan["device"]["name"], "run", plan["config_sha256"], traced, measured)


def _chosen(plan: Plan, config: Config) -> dict[str, Any]:
    """What the plan decided of what the config leaves open, as far as memory depends on it."""
    keys = ("model.vocab_size", "model.block_size", "data.max_length")
    return {
        one["key"]: one["value"]
        for one in plan["choices"]
        if one["key"] in keys or one["key"] in ("train.precision", "train.activation_checkpointing")
    } | {"train.micro_batch_size": plan["batch"]["micro_batch_size"]}


def _better(config: Config, size: int, most: int) -> int:
    """The largest share of the batch that fits."""
    if config.train.batch_tokens is not None:
        return size
    return max((one for one in divisors(config.train.batch_size) if one <= most), default=size)


def _rechosen(choice: Mapping[str, Any], best: Best, device: Device) -> dict[str, Any]:
    """A choice of the closed form, as the traces have it."""
    needs = f"{best.exact.replayed.peak_reserved / units.GIB:.2f} GiB of {device.usable_gib:.2f} GiB usable"
    if choice["key"] == "train.micro_batch_size":
        return {**choice, "value": best.way.micro_batch_size, "reason": f"the largest that fits, traced: {needs}"}
    if choice["key"] != "train.activation_checkpointing" or choice["value"] == best.way.checkpointing:
        return dict(choice)
    reason = f"the fastest that fits, traced: {needs}"
    if (other := best.instead) is not None and other.step_s and best.step_s:
        size = units.things(other.way.micro_batch_size, "sequence")
        reason = (
            f"{other.step_s / best.step_s - 1:.0%} faster than {other.way.checkpointing} with {size} at once, traced"
        )
    return {**choice, "value": best.way.checkpointing, "reason": reason}


def section(exact: Exact, device: Device, closed: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """``memory_gib`` of a plan, from a trace; ``closed``: the same from the closed form, where there is one."""
    closed = closed or {}
    replayed = exact.replayed
    learned = learnt.correction(device.name) if device.kind == "cuda" else learnt.Correction()
    gib = learned.factor / units.GIB
    told = {key: closed[key] for key in ("framework", "context", "before_the_model") if key in closed}
    beside = told.get("framework", 0.0) + told.get("before_the_model", 0.0)
    high = max(replayed.peak_reserved * (1 + SPARE), replayed.peak_allocated) * gib
    memory: dict[str, Any] = {
        "tensors": replayed.peak_allocated * gib,
        "by_component": {kind: size * gib for kind, size in replayed.by_kind.items()},
        "at": _at(replayed),
        "low": replayed.peak_requested * gib + (closed["low"] - closed["tensors"] if beside else 0.0),
        "high": high + (closed["high"] - closed["tensors"] if beside else 0.0),
        **told,
        "fits": exact.fits,
        "source": "traced",
    }
    if device.kind == "cuda":
        memory |= {"peak_allocated": memory["tensors"], "peak_reserved": replayed.peak_reserved * gib}
        memory["fragmentation"] = replayed.fragmentation
        if learned.factor != 1:
            memory["correction"] = {"factor": learned.factor, "configs": learned.configs, "spread": learned.spread}
    elif "peak_allocated" in closed:
        memory["peak_allocated"] = memory["tensors"] + beside
    if closed:
        kept = ("tensors", "low", "high", "at", "fits", "peak_reserved")
        memory["closed_form"] = {key: closed[key] for key in kept if key in closed}
    return memory | {
        "operation": replayed.at.operation,
        "layer": replayed.at.layer,
        "source_line": replayed.at.source,
        "phase": replayed.at.phase,
        "step": replayed.step,
        "parts": [
            {"kind": p.kind, "layer": p.layer, "operation": p.operation, "gib": p.bytes * gib, "count": p.count}
            for p in replayed.parts[:LISTED]
        ],
        "curve": {
            "event": [moment.event for moment in replayed.curve],
            "phase": [moment.phase for moment in replayed.curve],
            "allocated_gib": [round(moment.allocated * gib, 4) for moment in replayed.curve],
            "reserved_gib": [round(moment.reserved * gib, 4) for moment in replayed.curve],
        },
        "traced_s": round(exact.seconds, 1),
        "events": len(exact.trace.events),
        "attention": exact.trace.settings.get("attention", {}),
        "uncertain": list(exact.trace.uncertain),
    }


def _at(replayed: Replayed) -> str:
    """The moment of the peak in words: ``forward of blocks.11.mlp``, ``update``."""
    at = replayed.at
    return at.phase + (f" of {at.layer}" if at.layer else "")


def _probed(measured: tuple[int, int] | str, plan: Plan, device: Device, exact: Exact) -> dict[str, Any]:
    """What two real steps took, beside the trace without correction; kept for the plans after this one."""
    if isinstance(measured, str):
        return {"out_of_memory": measured}
    predicted = exact.replayed.peak_allocated, exact.replayed.peak_reserved
    learnt.remember(device.name, "probe", plan["config_sha256"], predicted, measured)
    allocated, reserved = measured
    told: dict[str, Any] = {
        "allocated": allocated / units.GIB,
        "traced_by_measured": predicted[0] / allocated - 1 if allocated else None,
    }
    if reserved:
        told |= {"reserved": reserved / units.GIB, "traced_by_measured": predicted[1] / reserved - 1}
    return told


def _levers(child: Child, config: Config, device: Device, way: Execution, exact: Exact) -> list[dict[str, Any]]:
    """What each lever that keeps model and text would save, the most first; without those that cannot be traced."""
    found = []
    size = way.micro_batch_size
    for key, value, cost in levers.keeping(config, device):
        try:
            pulled = change(config, {key: value})
            other = replace(execution.of(pulled, device, size), accumulation=way.accumulation, compiled=way.compiled)
            needs = of(child, pulled, device, other).replayed
        except (NotTraced, ValueError):
            continue
        saved = (_needed(exact.replayed) - _needed(needs)) / units.GIB
        found.append({"key": key, "value": value, "gib": _needed(needs) / units.GIB, "saves": saved, "cost": cost})
    halves = [half for half in divisors(size) if half < size]
    if halves:
        less = of(child, config, device, replace(way, micro_batch_size=halves[-1], accumulation=2)).replayed
        saved = (_needed(exact.replayed) - _needed(less)) / units.GIB
        found.append(
            {"key": "train.micro_batch_size", "value": halves[-1], "gib": _needed(less) / units.GIB, "saves": saved}
            | {"cost": "the same result; more passes of smaller batches"}
        )
    return sorted(found, key=lambda lever: -lever["saves"])


def _needed(replayed: Replayed) -> int:
    return replayed.peak_reserved or replayed.peak_allocated
