"""The exact memory of a run: its own step traced, replayed, and put into its plan beside the closed form's.

Loads no torch: traces are made in a child process (:mod:`ganeum.plan.trace.child`). Where there is none, the plan stays
as the closed form has it and says why.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
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
from ganeum.plan.trace.child import Answer, Child, NotTraced, OutOfTime
from ganeum.plan.trace.events import Trace
from ganeum.plan.trace.replay import Replayed, last_step, replay, sizes
from ganeum.plan.trace.roofline import Operation
from ganeum.plan.trace.room import Most, Room, largest, longest, split
from ganeum.plan.trace.section import section

Plan = dict[str, Any]
Pull = tuple[str, Any, str]  # of a lever: key, value, and what it costs in words
# Two real steps of a settled config, so much at once → bytes allocated and reserved at most, or why not.
Prober = Callable[[Config, Device, Execution], "tuple[int, int] | str"]
SEARCH_LIMIT_S, START_LIMIT_S = 25.0, 35.0  # what a run waits for its micro-batch, and for its own trace
FIRST = 0.6  # share of the time for what is traced in a simpler form where it cannot be, or not in time
ENOUGH = 16  # times the sequences of a step: more at once are not looked for


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
        OutOfTime: the child has no more.
        NotTraced: with the reason.
    """
    begun = time.perf_counter()
    simple = not way.compiled and not between
    try:
        share = 1.0 if simple else FIRST
        answer = child.run(config, device, way, operations=operations, between=between, share=share)
    except NotTraced as reason:
        if simple or isinstance(reason, OutOfTime):
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
    batch, choices, doubts = dict(plan["batch"]), list(plan["choices"]), list[str]()
    with Child() as child:
        try:
            exact = of(child, settled, device, way, operations=True)
            if device.kind == "cuda":
                best, untold = _fastest(child, plan, config, settled, device, way, exact)
                doubts += untold
                batch |= {"largest_micro_batch": best.most.size, "one_more": best.most.beyond}
                if best.way != way:
                    choices = [_rechosen(one, best, device) for one in choices]
                    way, exact = best.way, best.exact
                    settled = change(settled, {"train.activation_checkpointing": way.checkpointing})
                    batch |= {"micro_batch_size": way.micro_batch_size, "gradient_accumulation_steps": way.accumulation}
                if explain:
                    longer, untold = longer_rows(child, settled, device, way)
                    batch, doubts = batch | longer, [*doubts, *untold]
        except NotTraced as reason:
            return plan | {"memory_gib": plan["memory_gib"] | {"not_traced": str(reason)}}
        memory = section(exact, device, plan["memory_gib"])
        if way != first and "closed_form" in memory:  # its figures are those of the way that it chose
            memory["closed_form"] |= {
                "micro_batch_size": first.micro_batch_size,
                "activation_checkpointing": first.checkpointing,
            }
        if explain:
            memory["levers"], untold = pulled(child, settled, device, way, exact, keeping(settled, device, way))
            doubts += untold
        memory["uncertain"] += doubts
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
    most: Most
    step_s: float | None
    instead: Best | None = None


def _fastest(
    child: Child, plan: Plan, config: Config, settled: Config, device: Device, way: Execution, exact: Exact
) -> tuple[Best, list[str]]:
    """Of the levels of checkpointing that may be chosen the fastest, each at the largest share of the batch that fits;
    of those about as fast the one that computes least twice. What is set stays; ``way`` where nothing fits. And what
    there was no time for.

    Args:
        config: as the user has it, ``auto`` where something may be chosen; ``settled``: with the closed form's choices.
        way: the closed form's, traced as ``exact``.
    """
    free = config.train.activation_checkpointing == "auto"
    sequences = way.micro_batch_size * way.accumulation
    found: list[Best] = []
    untold: list[str] = []
    for level in LEVELS if free else (way.checkpointing,):
        this = replace(way, checkpointing=level)
        guess = fastest.largest(configured.of(settled), replace(this, accumulation=1), device)
        try:
            plain = replace(this, compiled=False)
            most = largest(child, settled, device, plain, guess, ENOUGH * sequences, operations=True)
            if not most.size and free:
                continue
            shared = _shared(child, config, settled, device, this, most, {way: exact})
            step_s = timed.step_s(plan, device, shared[0], shared[1].operations or {})
            found.append(Best(*shared, most, step_s))
        except OutOfTime as reason:
            untold.append(f"not all ways to run it were traced: {reason}")
            break
        if found[-1].way.micro_batch_size == sequences and found[-1].exact.fits:  # nothing is gained by more
            break
    fitting = [one for one in found if one.exact.fits]
    if not fitting:
        known = Most(way.micro_batch_size if exact.fits else 0, "out of time")
        most = max((one.most for one in found), key=lambda most: most.size, default=known)
        return Best(way, exact, most, None), untold
    paces = [1 / one.step_s if one.step_s else 0.0 for one in fitting]
    best = next(one for one, pace in zip(fitting, paces, strict=True) if pace * (1 + fastest.EQUAL) >= max(paces))
    return best if best is fitting[0] else replace(best, instead=fitting[0]), untold


def _shared(
    child: Child,
    config: Config,
    settled: Config,
    device: Device,
    way: Execution,
    most: Most,
    known: Mapping[Execution, Exact],
) -> tuple[Execution, Exact]:
    """``way`` at the largest share of the batch that goes through, of those up to ``most``; compiled or where memory is
    in pieces it may be one less. What is set stays.

    Args:
        known: what was traced before.
    """
    sequences = way.micro_batch_size * way.accumulation
    shares = [way.micro_batch_size]
    if config.train.micro_batch_size == "auto":
        shares = _shares(config, way.micro_batch_size, most.size)
    for this in (split(way, sequences, size) for size in shares):
        exact = known[this] if this in known else of(child, settled, device, this, operations=True)
        if exact.fits:
            break
    return this, exact


def micro_batch(config: Config, device: Device) -> tuple[int, str] | None:
    """The value of ``train.micro_batch_size: auto`` on a GPU by traces, and the reason; None where the closed form's
    stays: the whole batch goes through at once by it.

    Args:
        config: the closed form's choices made.
    """
    size, tokens = config.train.micro_batch_size, config.train.batch_tokens
    assert size != "auto", "chosen before"
    if tokens is not None or size == config.train.batch_size:
        return None
    way = replace(execution.of(config, device, size), compiled=False)
    with Child(limit_s=SEARCH_LIMIT_S) as child:
        try:
            most = largest(child, config, device, way, size, config.train.batch_size)
        except NotTraced as reason:
            return size, f"the closed form's, not traced: {reason}"
    if not most.size:
        why = "in the time for it no trace went through" if most.at_least else "by a trace not even one fits"
        return size, f"the closed form's: {why}"
    told = f"{'at least ' if most.at_least else ''}{most.size:,} would, traced for this GPU"
    return _shares(config, size, most.size)[0], f"the largest that fits: {told}"


def started(plan: Plan, config: Config, device: Device, child: Child | None = None) -> Plan:
    """The plan of a run that is about to start, every key of its config settled: its step is traced as it is, once,
    with an evaluation and a sample, which may take more, and which leave their mark on what is reserved.

    Args:
        child: that traces it and stays; by default one that has as long as a run waits for it.
    """
    size = config.train.micro_batch_size
    assert size != "auto", "settled before"
    with nullcontext(child) if child is not None else Child(limit_s=START_LIMIT_S) as child:
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


def _shares(config: Config, size: int, most: int) -> list[int]:
    """The largest shares of the batch that are no larger than ``most``, the largest first; else ``size``."""
    if config.train.batch_tokens is not None:
        return [size]
    return sorted((one for one in divisors(config.train.batch_size) if one <= most), reverse=True)[:3] or [size]


def longer_rows(child: Child, config: Config, device: Device, way: Execution) -> tuple[dict[str, Any], list[str]]:
    """``largest_length`` of a plan's batch and what is known of longer ones; or that there was no time for it."""
    try:
        most = longest(child, config, device, replace(way, compiled=False))
    except OutOfTime as reason:
        return {}, [f"the longest rows were not looked for: {reason}"]
    return {"largest_length": most.size, "longer": most.beyond}, []


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


def keeping(config: Config, device: Device, way: Execution) -> list[Pull]:
    """Levers that keep model and text: of half of ``way`` at once, too."""
    halves = [half for half in divisors(way.micro_batch_size) if half < way.micro_batch_size][-1:]
    less = "the same result; more passes of smaller batches"
    return [*levers.keeping(config, device), *(("train.micro_batch_size", half, less) for half in halves)]


def pulled(
    child: Child, config: Config, device: Device, way: Execution, exact: Exact, pulls: Iterable[Pull]
) -> tuple[list[dict[str, Any]], list[str]]:
    """What each lever would save, the most first; and which could not be traced, and why."""
    size = way.micro_batch_size
    found, untold = [], []
    for key, value, cost in pulls:
        try:
            other_config = change(config, {key: value})
            at_once = value if key == "train.micro_batch_size" else size
            other = replace(execution.of(other_config, device, at_once), compiled=way.compiled)
            accumulation = max(1, size * way.accumulation // at_once)
            needs = of(child, other_config, device, replace(other, accumulation=accumulation)).replayed
        except OutOfTime as reason:
            untold.append(f"not all levers were traced: {reason}")
            break
        except (NotTraced, ValueError) as reason:
            untold.append(f"{levers.Lever({key: value}, cost, 0, 0)} could not be traced: {reason}")
            continue
        saved = (_needed(exact.replayed) - _needed(needs)) / units.GIB
        found.append({"key": key, "value": value, "gib": _needed(needs) / units.GIB, "saves": saved, "cost": cost})
    return sorted(found, key=lambda lever: -lever["saves"]), untold


def _needed(replayed: Replayed) -> int:
    return replayed.peak_reserved or replayed.peak_allocated
