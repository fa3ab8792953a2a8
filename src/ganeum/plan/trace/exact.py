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
from ganeum.plan import execution, levers
from ganeum.plan.execution import Execution
from ganeum.plan.trace import affine, learnt, timed
from ganeum.plan.trace.allocator import CachingAllocator
from ganeum.plan.trace.allocator_settings import Settings, of_environment
from ganeum.plan.trace.child import Answer, Child, NotTraced
from ganeum.plan.trace.events import Trace
from ganeum.plan.trace.replay import Replayed, last_step, peaks, replay, sizes
from ganeum.plan.trace.roofline import Operation

Plan = dict[str, Any]
# Two real steps of a settled config, so much at once → bytes allocated and reserved at most, or why not.
Prober = Callable[[Config, Device, Execution], "tuple[int, int] | str"]
LISTED = 24  # parts of the peak in a plan
START_LIMIT_S = 90.0  # what a run waits for its own trace

# Of what is free on a GPU this much is left to what no trace sees: kernels' own buffers, and the driver's rounding.
SPARE = 0.02


@dataclass(frozen=True)
class Room:
    """What a device has for tensors: bytes free, bytes in all, and how its allocator works."""

    free: int
    memory: int
    settings: Settings

    @classmethod
    def of(cls, device: Device, answer: Answer) -> Room:
        """The environment's settings hold where there are any, as for a run."""
        return cls(
            round(device.usable_gib * units.GIB * (1 - SPARE)),
            round(device.memory_gib * units.GIB),
            of_environment() or Settings(expandable_segments=answer.expandable),
        )

    def holds(self, events: list[tuple[int, int]]) -> bool:
        """Whether these requests go through, the allocator's own retries included."""
        return peaks(events, CachingAllocator(self.settings, capacity=self.free, memory=self.memory))


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


def of(child: Child, config: Config, device: Device, way: Execution, *, operations: bool = False) -> Exact:
    """One way to run, traced; ``operations``: with what it computes.

    Where compiled code cannot be traced, it is traced uncompiled, and ``uncertain`` says so.

    Raises:
        NotTraced: with the reason.
    """
    begun = time.perf_counter()
    try:
        answer = child.run(config, device, way, operations=operations)
    except NotTraced as reason:
        if not way.compiled:
            raise
        answer = child.run(config, device, replace(way, compiled=False), operations=operations)
        told = f"compiled code could not be traced ({reason}): it takes a little less than this"
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


def largest(child: Child, config: Config, device: Device, way: Execution, guess: int) -> int:
    """The most sequences at once that fit: from traces at two sizes, proved by one at the size itself.

    Args:
        guess: about how many, as the closed form has it.

    Raises:
        NotTraced: with the reason.
    """

    def traced(size: int) -> Answer:
        return child.run(config, device, replace(way, micro_batch_size=size))

    low, high = _apart(way, max(guess, 2))
    one, other = traced(low), traced(high)
    room = Room.of(device, one)
    try:
        family = affine.fit({low: one.trace, high: other.trace})
    except affine.Unalike:
        return affine.largest(lambda size: _holds(room, traced(size).trace))
    size = affine.largest(lambda size: room.holds(family.events(size)))
    while size and not _holds(room, traced(size).trace):
        size -= 1
    return size


def _holds(room: Room, trace: Trace) -> bool:
    return room.holds(sizes(trace))


def _apart(way: Execution, guess: int) -> tuple[int, int]:
    """Two sizes to trace, whose losses go around alike: of several whole chunks each, or both within the first."""
    rows, step = way.loss_chunk, 1
    if rows is not None and rows % way.length == 0:
        step = rows // way.length
    if 2 * step <= guess:
        low = max(2, 2 * step)
        return low, max(2 * low, guess // low * low)
    return (2, max(4, min(guess, step))) if step >= 4 else (1, 2)


def refined(plan: Plan, config: Config, device: Device, *, explain: bool = False, probe: Prober | None = None) -> Plan:
    """The plan with the traced memory of its step in ``memory_gib``, and ``method: traced``.

    The closed form's stays in ``memory_gib.closed_form``. ``largest_micro_batch`` becomes exact on a GPU, and where
    ``train.micro_batch_size`` was ``auto`` it follows. A run that sets ``train.compile`` is traced compiled; that of
    ``auto`` is not, which takes a little more memory, and much less time to trace.

    Args:
        plan: of ``config`` on ``device``; its choices are what is traced.
        explain: also ``memory_gib.levers``: what each lever would save, traced as well.
        probe: takes two real steps, for ``memory_gib.probe``, and what it measures is kept.
    """
    settled = change(config, _chosen(plan, config))
    size = plan["batch"]["micro_batch_size"]
    way = execution.of(settled, device, size)
    batch, choices = dict(plan["batch"]), list(plan["choices"])
    with Child() as child:
        try:
            exact = of(child, settled, device, way, operations=True)
            if device.kind == "cuda":
                guess = plan["batch"].get("largest_micro_batch", 2)
                batch["largest_micro_batch"] = most = largest(
                    child, settled, device, replace(way, accumulation=1, compiled=False), guess
                )
                if config.train.micro_batch_size == "auto" and (better := _better(settled, size, most)) != size:
                    way = replace(way, micro_batch_size=better, accumulation=max(1, batch["batch_size"] // better))
                    exact = of(child, settled, device, way, operations=True)
                    batch |= {"micro_batch_size": better, "gradient_accumulation_steps": way.accumulation}
                    choices = [_resized(one, better, exact, device) for one in choices]
        except NotTraced as reason:
            return plan | {"memory_gib": plan["memory_gib"] | {"not_traced": str(reason)}}
        memory = section(exact, device, plan["memory_gib"])
        if explain:
            memory["levers"] = _levers(child, settled, device, way, exact)
    if probe is not None:
        memory["probe"] = _probed(probe(settled, device, way), plan, device, exact)
    plan = timed.retimed(plan, device, way, exact.operations or {})
    return plan | {"method": "traced", "batch": batch, "memory_gib": memory, "choices": choices}


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
    """The plan of a run that is about to start, every key of its config settled: its step is traced as it is, once."""
    size = config.train.micro_batch_size
    assert size != "auto", "settled before"
    with Child(limit_s=START_LIMIT_S) as child:
        try:
            exact = of(child, config, device, execution.of(config, device, size))
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


def _resized(choice: Mapping[str, Any], size: int, exact: Exact, device: Device) -> dict[str, Any]:
    if choice["key"] != "train.micro_batch_size":
        return dict(choice)
    needs = exact.replayed.peak_reserved / units.GIB
    reason = f"the largest that fits, traced: {needs:.2f} GiB of {device.usable_gib:.2f} GiB usable"
    return {**choice, "value": size, "reason": reason}


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
