"""What this machine has for runs, what a run needs of it, and where it is put.

A card is known by its UUID: numbers change with the driver's order, with CUDA's and with what is visible. A run is
given one card and sees no other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import psutil

from ganeum.config import Config
from ganeum.config.load import load_stored
from ganeum.config.paths import read_from
from ganeum.errors import GaneumError
from ganeum.hardware import machine, nvml, peaks
from ganeum.hardware.device import Device
from ganeum.hardware.machine import CUDA_CONTEXT_GIB
from ganeum.queue.entry import Entry
from ganeum.queue.placement import Never, Placed, Placement, Wait
from ganeum.record import RunDirectory, read_json, results_dir
from ganeum.units import GIB, things

MARGIN = 1.05  # times what the plan says at most: a neighbour that takes a little more than planned ends no run
PROCESS_GIB = 0.5  # what a training on a CPU holds before there is a model: Python, torch, our own code
EMPTY = 0.9  # of a card free: nothing but a desktop is on it


@dataclass(frozen=True)
class Slot:
    """Something that a run can be given: a GPU, a part of one that MIG made, Apple's GPU, the CPU.

    name: what an entry keeps: the GPU's UUID, `mps` or `cpu`. title: what people call it (`GPU 0`).
    device: its facts. free_gib: of its memory, now, other programs' taken off.
    held_gib: process id → GiB of it, None where the driver does not say. cores: the CPU's.
    """

    name: str
    title: str
    device: Device
    free_gib: float
    held_gib: Mapping[int, float | None] = field(default_factory=dict)
    cores: int = 0

    @property
    def at_most_gib(self) -> float:
        """What would be free with nothing else on it."""
        share = {"cpu": machine.CPU_SHARE, "mps": machine.METAL_SHARE}.get(self.device.kind, 1.0)
        return share * self.device.memory_gib

    @property
    def before_gib(self) -> float:
        """What a run takes of it that no plan counts: CUDA's context, a process."""
        return {"cuda": CUDA_CONTEXT_GIB, "cpu": PROCESS_GIB}.get(self.device.kind, 0.0)


@dataclass(frozen=True)
class Machine:
    """What there is for runs, GPUs in the order in which `cuda:0`, `cuda:1` name them.

    auto: the kind that `device: auto` means here. trouble: why cards are missing; empty when all is well. passing: it
        may pass by itself, as when the driver is being renewed: then runs wait for it.
    per_gpu: runs that may share a GPU where their memory fits together; two on one card slow each other down.
    """

    slots: tuple[Slot, ...]
    auto: str = "cpu"
    trouble: str = ""
    passing: bool = False
    per_gpu: int = 1

    def of_kind(self, kind: str) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.device.kind == kind)


def look(per_gpu: int = 1, environment: Mapping[str, str] = os.environ) -> Machine:
    """This machine now: memory is measured, other programs' included; without torch, in a few milliseconds.

    The queue gives what CUDA_VISIBLE_DEVICES and its cgroup leave to it, and no other card.
    """
    found = nvml.read()
    gpus = nvml.visible(found.gpus, environment) if found else ()
    slots = [
        Slot(gpu.uuid, f"GPU {place}", machine.from_nvml(gpu, 0), gpu.free_gib, gpu.held_gib)
        for place, gpu in enumerate(gpus)
    ]
    auto = "cuda" if gpus and "+cpu" not in peaks.torch_version() else "cpu"
    if machine.is_mac():
        apple = machine.apple()
        slots.append(Slot("mps", "the Mac's GPU", apple, apple.usable_gib))
        auto = "mps"
    cpu = machine.cpu()
    slots.append(Slot("cpu", "the CPU", cpu, cpu.usable_gib, cores=machine.cores()))
    silent = found is None and nvml.has_library()
    trouble = "NVIDIA's library is here, but its driver does not answer: `nvidia-smi` says why" if silent else ""
    if found:
        trouble = "; ".join(found.troubles)
    return Machine(tuple(slots), auto, trouble, passing=silent, per_gpu=per_gpu)


@dataclass(frozen=True)
class Wish:
    """What a run asks for.

    device: as a config says it: auto, cpu, cuda, cuda:1, mps.
    need: a device, and how much of its memory is free (GiB) → what the run takes of it at most, by its plan; infinite
        where that does not fit, None where no plan can be made. What is `auto` in the config is chosen so that it fits.
    cores: of the CPU; None: all of them, as torch would.
    """

    device: str
    need: Callable[[Device, float], float | None]
    cores: int | None = None


@dataclass(frozen=True)
class Held:
    """What a run that was started has been given. gib: what it will take at most. used_gib: of that, what it has taken
    already; None where that cannot be known."""

    device: str
    gib: float | None
    used_gib: float | None = None
    cores: int = 0


def wish(device: str, config: Callable[[], Config | None], environment: Mapping[str, str] = os.environ) -> Wish:
    """What a run asks for whose config says `device`; on the CPU OMP_NUM_THREADS says how many cores, as it does to
    torch. `config` is asked for when a plan is: a thousand entries that wait for a device need not be read."""

    plans: dict[tuple[str, float, float], float | None] = {}

    def need(device: Device, usable_gib: float) -> float | None:
        usable_gib = usable_gib // 0.25 * 0.25  # memory wavers, and a plan takes a twentieth of a second
        key = device.name, device.memory_gib, usable_gib
        if key not in plans:
            asked = config()
            plans[key] = None if asked is None else _planned(asked, replace(device, usable_gib=usable_gib))
        return plans[key]

    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0]
    return Wish(device, need, int(threads) if threads.isdigit() and int(threads) else None)


def _planned(config: Config, device: Device) -> float | None:
    """GiB at most by the closed form; the same that `ganeum train` goes by when it refuses what cannot fit."""
    from ganeum.plan.question.subject import Run

    try:
        memory = Run.of(config).plan(device)["memory_gib"]
    except GaneumError:  # no data yet, say: the training will tell it better
        return None
    return float(memory["high"]) if memory["fits"] else float("inf")


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
    waits = [answer.why for answer in found if isinstance(answer, Wait)]
    nevers = [answer.why for answer in found if isinstance(answer, Never)]
    return Wait("; ".join(dict.fromkeys(waits))) if waits else _never("; ".join(dict.fromkeys(nevers)), machine)


def _never(why: str, machine: Machine) -> Placement:
    text = f"{why}; {machine.trouble}" if machine.trouble else why
    return Wait(text) if machine.passing else Never(text)


def _asked(wish: Wish, there: Machine) -> tuple[Slot, ...]:
    """The slots that a device's word means."""
    kind, index = machine.parse(wish.device)
    slots = there.of_kind(there.auto if kind == "auto" else kind)
    return slots[index : index + 1] if ":" in wish.device else slots


def _on(slot: Slot, wish: Wish, there: Machine, runs: Sequence[Held]) -> Placement:
    if slot.cores:
        cores = wish.cores or slot.cores
        if cores > slot.cores:
            return Never(f"it asks for {cores} cores, and there are {slot.cores}")
        if cores > slot.cores - sum(held.cores for held in runs):
            return Wait(f"the {things(slot.cores, 'core')} of the CPU are taken")
    elif len(runs) >= there.per_gpu or any(held.gib is None for held in runs):  # that one has the card to itself
        return Wait(f"{slot.title} is taken")
    # Planned only now: a thousand entries that wait for a device need no plan yet.
    need = _needs(wish, slot, slot.at_most_gib)
    if need is not None and need > slot.at_most_gib:
        return Never(f"by its plan it does not fit into {slot.title}, which has {slot.at_most_gib:.1f} GiB for it")
    free = slot.free_gib - _promised(runs)
    need = _needs(wish, slot, free)
    if need is None:  # then the card must be as good as empty; on a CPU the training sees to its memory itself
        if slot.device.kind == "cuda" and (runs or free < EMPTY * slot.device.memory_gib):
            return Wait(f"what it needs is not known, and {slot.title} is not empty")
    elif need > free:
        if not runs and free >= EMPTY * slot.at_most_gib:
            return Never(f"by its plan it needs more than the {free:.1f} GiB that are free of {slot.title} at best")
        return Wait(f"{slot.title} has too little free: {max(0.0, free):.1f} of {slot.device.memory_gib:.1f} GiB")
    return Placed(slot.name, _environment(slot), note=slot.title, arguments=_arguments(wish))


def _needs(wish: Wish, slot: Slot, free_gib: float) -> float | None:
    """With what no plan counts, and the margin; more than `free_gib` where it does not fit."""
    planned = wish.need(slot.device, max(0.0, free_gib / MARGIN - slot.before_gib))
    return None if planned is None else (planned + slot.before_gib) * MARGIN


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


def places(machine: Machine) -> Callable[[Entry, Sequence[Entry]], Placement]:
    """What says where an entry's run goes on that machine as it is now, or why nowhere, beside those that are alive,
    whoever started them. Asked for a thousand entries in one go, so what runs is measured once."""
    measured: dict[tuple[int, str | None], Held] = {}

    def held_by(entry: Entry) -> Held:
        key = entry.id, entry.token
        if key not in measured:
            measured[key] = held(entry, machine)
        return measured[key]

    taken: dict[tuple[str, int | None, int], Placement] = {}  # by what is asked for and how many run

    def where(entry: Entry, running: Sequence[Entry]) -> Placement:
        wished = _wish(entry)
        key = wished.device, wished.cores, len(running)
        if key in taken:
            return taken[key]
        runs = [held_by(other) for other in running]
        answer = fit(wished, machine, runs)
        if isinstance(answer, Wait) and isinstance(fit(replace(wished, need=_nothing), machine, runs), Wait):
            taken[key] = answer  # even what needs no memory has to wait
        return answer

    return where


def _nothing(device: Device, free_gib: float) -> float:
    return 0.0


def place(entry: Entry, running: Sequence[Entry], machine: Machine) -> Placement:
    """Where one entry's run goes: :func:`places`."""
    return places(machine)(entry, running)


def held(entry: Entry, machine: Machine) -> Held:
    """What a run that was started holds, by its plan and as measured."""
    slot = next((slot for slot in machine.slots if slot.name == entry.device), None)
    if slot is None:  # its card is gone, or was never ours to give
        return Held(entry.device or "", None)
    wished = _wish(entry)
    taken = _taken(slot, _processes(entry.pid)) if entry.state == "running" else 0.0  # else the id is its manager's
    return Held(slot.name, _will_take(entry, wished, slot), taken, min(wished.cores or slot.cores, slot.cores))


def _will_take(entry: Entry, wished: Wish, slot: Slot) -> float | None:
    """By the plan that the run itself made at its start; before there is one, by ours."""
    try:
        memory = read_json(RunDirectory(results_dir() / entry.name).plan_path)["memory_gib"]
        planned = float(memory["high"]) - float(memory.get("before_the_model", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        need = _needs(wished, slot, slot.at_most_gib)
        return None if need is None else min(need, slot.at_most_gib)
    return (planned + slot.before_gib) * MARGIN


def _taken(slot: Slot, pids: Mapping[int, float]) -> float | None:
    """GiB that these processes have of a slot; None where it is not known."""
    if slot.cores:
        return sum(pids.values())
    amounts = [slot.held_gib[pid] for pid in pids if pid in slot.held_gib]
    return None if None in amounts or not amounts else sum(amount or 0.0 for amount in amounts)


def _processes(pid: int | None) -> dict[int, float]:
    """A process and all that it started → the GiB of the machine's memory that each has."""
    found: dict[int, float] = {}
    try:
        parent = psutil.Process(pid) if pid else None
        for process in [parent, *parent.children(recursive=True)] if parent else []:
            found[process.pid] = process.memory_info().rss / GIB
    except psutil.Error:  # it has ended meanwhile
        pass
    return found


def _wish(entry: Entry) -> Wish:
    path = _frozen(results_dir(), entry.name)
    try:
        return _wish_in(path, path.stat().st_mtime_ns, entry.cwd)
    except OSError:  # it is written again before the run starts
        return wish("auto", lambda: None)


@lru_cache(maxsize=4096)
def _frozen(results: Path, name: str) -> Path:
    return RunDirectory(results / name).queued_dir / "config.yaml"


@lru_cache(maxsize=4096)
def _wish_in(path: Path, changed_ns: int, cwd: str) -> Wish:
    """A file is read once; `changed_ns` is when it was written."""

    def config() -> Config | None:
        try:
            found = load_stored(path)
        except (GaneumError, OSError):  # for the start to say
            return None
        return read_from(found, cwd)  # where the user stood

    lines = (line.partition(":") for line in path.read_text().splitlines())  # as to_yaml writes them
    device = next((value.strip().strip("'\"") for key, _, value in lines if key == "device"), "auto")
    return wish(device, config)
