"""Faults of the surroundings: threads, switches of torch, other processes."""

from __future__ import annotations

import torch

from doctor_faults.fault import fault
from doctor_faults.subjects import SUBJECTS, Parts


@fault("more threads than cores, by the program", "speed", ("oversubscription",), SUBJECTS)
def crowded_kitchen(parts: Parts) -> None:
    """torch.set_num_threads(32); rows enough that the threads are used."""
    parts.model.append(lambda model: torch.set_num_threads(32))


@fault(
    "more threads than cores, by the environment", "speed", ("oversubscription",), SUBJECTS, {"OMP_NUM_THREADS": "24"}
)
def too_many_cooks(parts: Parts) -> None:
    """OMP_NUM_THREADS=24, said outside."""


@fault("deterministic algorithms", "speed", ("debug_mode",), SUBJECTS)
def metronome(parts: Parts) -> None:
    """torch.use_deterministic_algorithms(True), which also fills new memory."""
    parts.model.append(lambda model: torch.use_deterministic_algorithms(True))


@fault(
    "another process on the same core",
    "speed",
    ("other_processes", "pauses", "oversubscription"),
    SUBJECTS,
    beside="burner",
)
def noisy_tenant(parts: Parts) -> None:
    """Something else computes on this core all the time."""


@fault("torch without its fast products", "speed", ("slow_switch", "debug_mode"), ("plain", "windows"))
def blunt_knife(parts: Parts) -> None:
    """torch.backends.mkldnn is switched off, in float32."""
    parts.model.append(lambda model: setattr(torch.backends.mkldnn, "enabled", False))
