"""Where runs are put: on what is free of this machine, beside those that run, each seeing its own card and no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ganeum.hardware import machine
from ganeum.hardware.device import Device
from ganeum.queue import needs
from ganeum.queue.devices import Machine, Slot, look
from ganeum.queue.entry import Entry
from ganeum.queue.needs import Held, Wish
from ganeum.queue.placement import Never, Placed, Placement, Wait
from ganeum.queue.schedule import Place
from ganeum.queue.settle import identity, is_full
from ganeum.units import things

PLANNING_S = 2.0  # a plan takes a twentieth of a second
EMPTY = 0.9  # of a card free: nothing but a desktop is on it


def on_this_machine(per_gpu: int = 1) -> Place:
    """Where entries may start on this machine, as it is now; `per_gpu`: runs that may share a GPU."""
    return places(look(per_gpu))


def lazily(build: Callable[[], Place], results: Path) -> Place:
    """The machine is looked at only once something can start; what runs on another machine takes nothing of it."""
    built: list[Place] = []

    def place(entry: Entry, going: Sequence[Entry]) -> Placement:
        if is_full(results):
            return Wait("the disk is full")
        if not built:
            built.append(build())
        return built[0](entry, [one for one in going if (who := identity(one)) is None or not who.is_elsewhere()])

    return place


def fit(wish: Wish, machine: Machine, running: Sequence[Held]) -> Placement:
    """Where a run goes now, or why nowhere.

    Of several cards it takes the one with the fewest runs; of those the smallest, as a larger one may be needed.

    Args:
        running: what the runs of this list that are alive hold, whichever manager started them.
    """
    slots = _asked(wish, machine)
    if not slots:
        there = ", ".join(f"{slot.title} ({slot.device.name})" for slot in machine.slots)
        return _never(f"it asks for {wish.device}, and there is {there}", machine)
    runs = {slot.name: [held for held in running if held.device == slot.name] for slot in slots}
    found = [_on(slot, wish, machine, runs[slot.name]) for slot in slots]
    placed = [
        (len(runs[slot.name]), slot.device.memory_gib, place, answer)
        for place, (slot, answer) in enumerate(zip(slots, found, strict=True))
        if isinstance(answer, Placed)
    ]
    if placed:
        return min(placed, key=lambda one: one[:3])[3]
    waits = [answer for answer in found if isinstance(answer, Wait)]
    nevers = [answer.why for answer in found if isinstance(answer, Never)]
    if not waits:
        return _never("; ".join(dict.fromkeys(nevers)), machine)
    # Of several that it waits for the one with the most room beside its runs is kept, and the others are not: that one
    # stays the same, since nothing more is put there.
    kept = [slot for slot, answer in zip(slots, found, strict=True) if isinstance(answer, Wait) and answer.keeps]
    best = max(kept, key=lambda slot: slot.at_most_gib - _given(slot, runs[slot.name]), default=None)
    return Wait("; ".join(dict.fromkeys(wait.why for wait in waits)), keeps=best.name if best else None)


def _never(why: str, machine: Machine) -> Placement:
    text = f"{why}; {machine.trouble}" if machine.trouble else why
    return Wait(text) if machine.passing else Never(text)


def _asked(wish: Wish, there: Machine) -> tuple[Slot, ...]:
    """The slots that a device's word means."""
    kind, index = machine.parse(wish.device)
    slots = there.of_kind(there.auto if kind == "auto" else kind)
    return slots[index : index + 1] if ":" in wish.device else slots


def _on(slot: Slot, wish: Wish, there: Machine, runs: Sequence[Held]) -> Placement:
    for held in runs:
        if held.kept_for:
            return Wait(f"{slot.title} is kept for {held.kept_for}, which comes first")
    if slot.cores:
        cores = wish.cores or slot.cores
        if cores > slot.cores:
            return Never(f"it asks for {cores} cores, and there are {slot.cores}")
        left = slot.cores - sum(held.cores for held in runs)
        if left <= 0:
            return Wait(f"the {things(slot.cores, 'core')} of the CPU are taken")
        if cores > left:
            return Wait(f"it asks for {cores} of the {slot.cores} cores of the CPU, and {left} are free", slot.name)
    elif len(runs) >= there.per_gpu or any(held.gib is None for held in runs):  # that one has the card to itself
        return Wait(f"{slot.title} is taken")
    # Planned only now: a thousand entries that wait for a device need no plan yet.
    need = needs.gib(wish, slot, slot.at_most_gib)
    if need is not None and need > slot.at_most_gib:
        return Never(f"by its plan it does not fit into {slot.title}, which has {slot.at_most_gib:.1f} GiB for it")
    free = slot.free_gib - _promised(runs)
    if _has_room(slot, wish, free, runs):
        return Placed(slot.name, _environment(slot), note=slot.title, arguments=_arguments(wish))
    keeps = slot.name if runs and _has_room(slot, wish, _without(slot, runs), ()) else None
    if need is None:
        return Wait(f"what it needs is not known, and {slot.title} is not empty", keeps)
    if not runs and free >= EMPTY * slot.at_most_gib:
        return Never(f"by its plan it needs more than the {free:.1f} GiB that are free of {slot.title} at best")
    return Wait(f"{slot.title} has too little free: {max(0.0, free):.1f} of {slot.device.memory_gib:.1f} GiB", keeps)


def _has_room(slot: Slot, wish: Wish, free_gib: float, beside: Sequence[Held]) -> bool:
    need = needs.gib(wish, slot, free_gib)
    if need is None and slot.device.kind == "cuda":  # then the card must be as good as empty
        return not beside and free_gib >= EMPTY * slot.device.memory_gib
    return need is None or need <= free_gib  # on a CPU the training sees to its memory itself


def _without(slot: Slot, runs: Sequence[Held]) -> float:
    """What would be free were it not for our runs: what they have taken is free then, and where that is not known, what
    they were given."""
    taken = sum(held.used_gib if held.used_gib is not None else held.gib or 0.0 for held in runs)
    return min(slot.at_most_gib, slot.free_gib + taken)


def _given(slot: Slot, runs: Sequence[Held]) -> float:
    return sum(slot.at_most_gib if held.gib is None else held.gib for held in runs)


def _promised(runs: Sequence[Held]) -> float:
    """GiB that runs are going to take and have not taken yet: one that has just begun holds next to nothing. Where it
    is not known what a run has taken, that is none: it may be counted twice then, and never too little."""
    return sum(max(0.0, (held.gib or 0.0) - (held.used_gib or 0.0)) for held in runs)


def _environment(slot: Slot) -> dict[str, str]:
    """What lets a process see its own GPU and no other; on the CPU none."""
    return {"cuda": {"CUDA_VISIBLE_DEVICES": slot.name}, "cpu": {"CUDA_VISIBLE_DEVICES": ""}}.get(slot.device.kind, {})


def _arguments(wish: Wish) -> tuple[str, ...]:
    """The second card is the first of those that its run sees."""
    return ("device=cuda",) if wish.device.startswith("cuda:") else ()


def places(machine: Machine) -> Place:
    """What says where an entry's run goes on that machine as it is now, or why nowhere, beside those that are alive,
    whoever started them. Asked for a thousand entries in one go, so what runs is measured once, and plans are made for
    so long only: the others are asked about the next time, when these plans are known."""
    measured: dict[tuple[int, str | None], Held] = {}

    def held_by(entry: Entry) -> Held:
        key = entry.id, entry.token
        if key not in measured:
            measured[key] = needs.held(entry, machine)
        return measured[key]

    taken: dict[tuple[str, int | None, int], Placement] = {}  # by what is asked for and how many run
    until = time.monotonic() + PLANNING_S

    def where(entry: Entry, running: Sequence[Entry]) -> Placement:
        wished = needs.of_entry(entry)
        key = wished.device, wished.cores, len(running)
        if key in taken:
            return taken[key]
        if time.monotonic() > until:
            return Wait("those before it are looked at first")
        runs = [held_by(other) for other in running]
        answer = fit(wished, machine, runs)
        if isinstance(answer, Wait) and isinstance(fit(replace(wished, need=_nothing), machine, runs), Wait):
            taken[key] = answer  # even what needs no memory has to wait
        return answer

    return where


def _nothing(device: Device, free_gib: float) -> float:
    return 0.0
