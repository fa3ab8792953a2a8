"""What a run needs of a device, by its plan, and what one that was started holds of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import psutil

from ganeum.config import Config
from ganeum.config.load import load_stored
from ganeum.config.paths import read_from
from ganeum.errors import GaneumError
from ganeum.hardware.device import Device
from ganeum.queue.devices import Machine, Slot, look
from ganeum.queue.entry import GOING, Entry
from ganeum.record import RunDirectory, read_json, results_dir
from ganeum.units import GIB

MARGIN = 1.05  # times what the plan says at most: a neighbour that takes a little more than planned ends no run


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
    already; None where that cannot be known. kept_for: the run that has not been started and waits for this device."""

    device: str
    gib: float | None
    used_gib: float | None = None
    cores: int = 0
    kept_for: str = ""


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

    return Wish(device, need, _threads(environment))


def _threads(environment: Mapping[str, str]) -> int | None:
    threads = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(threads) if threads.isdigit() and int(threads) else None


def _planned(config: Config, device: Device) -> float | None:
    """GiB at most by the closed form; the same that `ganeum train` goes by when it refuses what cannot fit."""
    from ganeum.plan.question.subject import Run

    try:
        memory = Run.of(config).plan(device)["memory_gib"]
    except GaneumError:  # no data yet, say: the training will tell it better
        return None
    return float(memory["high"]) if memory["fits"] else float("inf")


def gib(wish: Wish, slot: Slot, free_gib: float) -> float | None:
    """With what no plan counts, and the margin; more than `free_gib` where it does not fit."""
    planned = wish.need(slot.device, max(0.0, free_gib / MARGIN - slot.before_gib))
    return None if planned is None else (planned + slot.before_gib) * MARGIN


def held(entry: Entry, machine: Machine) -> Held:
    """What a run that was started holds, by its plan and as measured."""
    slot = next((slot for slot in machine.slots if slot.name == entry.device), None)
    if slot is None:  # its card is gone, or was never ours to give
        return Held(entry.device or "", None)
    if entry.state not in GOING:
        return Held(slot.name, None, kept_for=entry.name)
    wished = of_entry(entry)
    taken = _taken(slot, _processes(entry.pid)) if entry.state == "running" else 0.0  # else the id is its manager's
    cores = _threads(_environment(entry.pid)) or slot.cores  # of the queue that started it, which may not be this one
    return Held(slot.name, _will_take(entry, wished, slot), taken, min(cores, slot.cores))


def at_once(entry: Entry) -> int | None:
    """The micro-batch that a run takes which leaves it to the plan; None where none can be made."""
    config, machine = _config_of(entry), look()
    slot = next((slot for slot in machine.slots if slot.name == entry.device), None)
    if config is None or slot is None:
        return None
    from ganeum.plan.question.subject import Run

    try:
        return int(Run.of(config).plan(replace(slot.device, usable_gib=slot.free_gib))["batch"]["micro_batch_size"])
    except GaneumError:
        return None


def _will_take(entry: Entry, wished: Wish, slot: Slot) -> float | None:
    """By the plan that the run itself made at its start; before there is one, by ours."""
    try:
        memory = read_json(RunDirectory(results_dir() / entry.name).plan_path)["memory_gib"]
        planned = float(memory["high"]) - float(memory.get("before_the_model", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        need = gib(wished, slot, slot.at_most_gib)
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


def _environment(pid: int | None) -> dict[str, str]:
    """What a process was started with; nothing where it has ended meanwhile."""
    try:
        return psutil.Process(pid).environ() if pid else {}
    except psutil.Error:
        return {}


def of_entry(entry: Entry) -> Wish:
    """What an entry's run asks for."""
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
    lines = (line.partition(":") for line in path.read_text().splitlines())  # as to_yaml writes them
    device = next((value.strip().strip("'\"") for key, _, value in lines if key == "device"), "auto")
    return wish(device, lambda: _config(path, cwd))


def _config_of(entry: Entry) -> Config | None:
    return _config(_frozen(results_dir(), entry.name), entry.cwd)


def _config(path: Path, cwd: str) -> Config | None:
    try:
        found = load_stored(path)
    except (GaneumError, OSError):  # for the start to say
        return None
    return read_from(found, cwd)  # where the user stood
