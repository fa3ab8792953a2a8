"""The parts of plan.json that every model's plan has, from what was counted: plain dictionaries, units in the keys."""

from __future__ import annotations

from typing import Any

from ganeum import units
from ganeum.hardware.device import Device
from ganeum.plan import scaling_laws
from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.flops import Flops
from ganeum.plan.memory import Memory
from ganeum.plan.parameters import Parameters
from ganeum.plan.time import StepTime

Part = dict[str, Any]


def device(device: Device, precision: str) -> Part:
    """What it runs on, and that device's dense peak in ``precision``."""
    return {
        "name": device.name,
        "kind": device.kind,
        "memory_gib": round(device.memory_gib, 2),
        "usable_gib": round(device.usable_gib, 2),
        "precision": precision,
        "peak_flops_per_second": device.peak(precision),
        "peak_uncertainty": device.peak_uncertainty or None,
        "power_w": device.power_w,
        "source": device.source,
    }


def parameters(counted: Parameters) -> Part:
    """Counts, in all and by component."""
    return {
        "total": counted.total,
        "trainable": counted.trainable,
        "non_embedding": counted.non_embedding,
        "by_component": counted.by_component,
    }


def somebody_elses(architecture: Architecture, way: Execution) -> Part:
    """A model that is not our GPT: what it is, and how long its sequences are."""
    return {
        "family": architecture.family,
        "layers": architecture.layers,
        "width": architecture.width,
        "vocab_size": architecture.vocab_size,
        "length": way.length,
        "source_length": way.source_length or None,
        "source": architecture.source or None,
        "note": architecture.note or None,
    }


def flops(work: Flops, steps: int | None, tokens: int | None = None) -> Part:
    """Operations of a token, a step and the whole run. Attention is part of ``per_token``, recomputation is not.

    ``tokens``: of a step, where they are not the decoder's alone, or not as many as are computed; what is per token is
    then a step's share.
    """
    backward = 3 if work.backward else 1

    def each(per_token: int, sequence: int) -> int:
        return per_token if tokens is None else round(work.sequences * sequence / tokens)

    return {
        "per_token": each(work.per_token, work.forward + work.backward),
        "per_step": work.per_step,
        "attention_per_token": backward * each(work.attention_per_token, work.attention),
        "recomputed_per_token": each(work.recomputed_per_token, work.recomputed),
        "total": None if steps is None else work.per_step * steps,
    }


def memory(needed: Memory, device: Device, held_bytes: int | None = None) -> Part:
    """GiB at the fullest moment. ``tensors`` is what is expected of torch's allocator, ``by_component`` its parts.

    ``peak_allocated`` is what a run will measure: a GPU's allocator counts tensors; a CPU's process is measured whole,
    so it is known only with ``held_bytes``, what the process held before there was a model; MPS tells no peak. ``low``
    and ``high`` are the bounds of just that, and of the tensors where it is not known.
    """
    held = held_bytes or 0 if device.kind == "cpu" else 0
    found: Part = {
        "tensors": needed.expected / units.GIB,
        "by_component": {name: part / units.GIB for name, part in needed.parts.items()},
        "at": needed.at,
        "low": (needed.least + held) / units.GIB,
        "high": (needed.most + held) / units.GIB,
        "framework": needed.framework / units.GIB or None,
        "context": needed.context / units.GIB or None,
        "fits": needed.fits(device),
        "source": "closed form",
    }
    if device.kind == "cuda":
        found |= {"peak_allocated": needed.expected / units.GIB, "peak_reserved": needed.high / units.GIB}
    elif device.kind == "cpu" and held_bytes is not None:
        found |= {"before_the_model": held_bytes / units.GIB, "peak_allocated": (needed.total + held) / units.GIB}
    return found


def measured_time(
    step_s: float, tokens_per_step: int, per_step: int, peak: float | None, hours: float | None, source: str
) -> Part:
    """A step that was measured, or guessed by who says so in ``source``."""
    return {
        "step_s": step_s,
        "tokens_per_second": tokens_per_step / step_s,
        "mfu": per_step / step_s / peak if peak else None,
        "hours": hours,
        "source": source,
    }


def predicted_time(step: StepTime, per_step: int, peak: float | None, hours: float | None, *, devices: int = 1) -> Part:
    """A step as the roofline has it: ``low`` and ``high`` bound ``step_s``, and ``hours`` in proportion.

    ``devices`` share the work, and are taken never to wait for each other.
    """
    return {
        "step_s": step.step_s,
        "low": step.low,
        "high": step.high,
        "tokens_per_second": step.tokens_per_second * devices,
        "mfu": per_step / devices / step.step_s / peak if peak else None,
        "hours": hours,
        "by_part": step.parts,
        "source": step.source,
    }


def without_none(part: Any) -> Any:
    """What is not known is not there: no null stands for a guess."""
    return {key: value for key, value in part.items() if value is not None} if isinstance(part, dict) else part


def loss(counted: Parameters, vocab_size: int, tokens_seen: int | None, tokens: int | None) -> Part | None:
    """Nats a token to expect of held-out web text (:mod:`ganeum.plan.scaling_laws`), with its range.

    None where the length is not known, where the laws were not fitted (below a billion tokens they are far too high),
    and for a vocabulary unlike those of the laws, whose tokens say more or less.
    """
    if not tokens_seen or scaling_laws.extrapolated(counted.total, tokens_seen, tokens, vocab_size):
        return None
    expected = scaling_laws.loss(counted.total, tokens_seen, tokens)
    return {
        "expected": expected.expected,
        "low": expected.low,
        "high": expected.high,
        "law": "; ".join(law.name for law in scaling_laws.LAWS),
    }


def cost(hours: float | None, power_w: float | None, per_hour: float | None, per_kwh: float | None) -> Part | None:
    """What the hours cost, in whatever money the prices are: the GPU's energy at its power limit, which is an upper
    bound for the card and leaves out the computer around it; and its rent. None where nothing is known of either."""
    if hours is None or (power_w is None and per_hour is None):
        return None
    kwh = None if power_w is None else hours * power_w / 1000
    energy = kwh * per_kwh if kwh is not None and per_kwh is not None else None
    rent = hours * per_hour if per_hour is not None else None
    return {"hours": hours, "kwh": kwh, "energy": energy, "rent": rent, "power_w": power_w}
