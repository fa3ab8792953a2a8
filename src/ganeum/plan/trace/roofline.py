"""How long a traced step takes: each of its operations at the rates of the device. Loads no torch.

On a machine that was measured (``train/operation_rates.py``), an operation takes what those of its name took there: so
much a call, a FLOP, a byte, and a byte more where no cache near the core can hold it. What lies between two
operations, Python and autograd, is a cost of each call. On a card of the catalogue it is a roofline (Williams et al.
2009, doi 10.1145/1498765.1498785) with the shares of the data sheet's figures that ``plan/time/roofline.py`` gives.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace

from ganeum.hardware.device import Device
from ganeum.hardware.rates import Rates
from ganeum.plan.time.roofline import (
    BANDWIDTH,
    DISPATCH_S,
    EFFICIENT,
    FLASH,
    OPERANDS,
    REACHED,
    TILE_S,
    USUAL_FLASH,
    USUAL_REACH,
)

NEAR = 2**20  # bytes: about what a core's own cache holds
VIEW, FUSED = "view", "compiled kernel"
PRODUCT, PASS, BETWEEN = "any product", "any pass", "between operations"
PHASES = ("forward", "backward", "update")
ATTENTION = "scaled_dot_product"


@dataclass(frozen=True)
class Operation:
    """One operation of a step.

    Attributes:
        name: torch's, ``aten::mm``; after it what makes it another kernel: which matrices lie transposed (``nt``),
            numbers that do not lie in order (``strided``). ``view`` for all that only look at memory otherwise.
        phase: ``forward``, ``backward``, ``update``.
        precision: of its largest tensor: ``fp32 bf16 fp16 fp64 other``.
        flops: of products; 0 of all else.
        bytes: read and written.
        device: where its largest tensor lies.
    """

    name: str
    phase: str
    precision: str = "other"
    flops: float = 0.0
    bytes: float = 0.0
    device: str = "cpu"

    @property
    def group(self) -> str:
        """What its time is measured with."""
        return VIEW if self.name == VIEW else f"{self.name} {self.precision}"

    @property
    def akin(self) -> str:
        """What it is taken for where nothing of its group was measured."""
        return f"{PRODUCT if self.flops else PASS} {self.precision}"

    @property
    def amounts(self) -> dict[str, float]:
        """Work in one call, in the kinds that have a rate."""
        far = max(0.0, self.bytes - NEAR)
        return {"calls": 1.0, "flops": self.flops, "bytes": self.bytes, "far bytes": far}


def to_json(operations: Mapping[Operation, float]) -> str:
    """One line; :func:`from_json` makes the same of it."""
    return json.dumps([[*astuple(one), count] for one, count in operations.items()], separators=(",", ":"))


def from_json(text: str) -> dict[Operation, float]:
    """Raises: ValueError where it is something else."""
    try:
        return {Operation(*row[:-1]): row[-1] for row in json.loads(text)}
    except (TypeError, IndexError) as error:
        raise ValueError(f"these are no operations: {error!r}") from error


def of_all(operations: Mapping[Operation, float], accumulation: int) -> dict[Operation, float]:
    """Those of a whole step, from those of one that was traced with at most two of its micro-batches. What belongs to
    no phase (a batch's way to the device) counts with the forward pass."""
    more, found = accumulation / min(accumulation, 2), dict[Operation, float]()
    for one, count in operations.items():
        placed = one if one.phase in PHASES else replace(one, phase="forward")
        found[placed] = found.get(placed, 0.0) + count * (1.0 if one.phase == "update" else more)
    return found


def between(phase: str) -> str:
    """The group of what lies between operations of a phase."""
    return f"{BETWEEN}, {phase}"


def measured(operations: Mapping[Operation, float], rates: Rates) -> dict[str, float] | None:
    """Seconds of a step's phases on the machine that ``rates`` were measured on; None where they lack something.

    Args:
        operations: each with how often it runs.
        rates: seconds of each unit of :attr:`Operation.amounts`, by group; those of ``train/operation_rates.py``.
    """
    found: dict[str, float] = {}
    for operation, count in operations.items():
        one = seconds_of(operation, rates.seconds)
        gap = rates.seconds.get(between(operation.phase))
        if one is None or gap is None:
            return None
        found[operation.phase] = found.get(operation.phase, 0.0) + count * (one + gap["calls"])
    return found


def seconds_of(operation: Operation, rates: Mapping[str, Mapping[str, float]]) -> float | None:
    """Of one call, without what lies around it."""
    known = next((rates[name] for name in (operation.group, operation.akin, f"{PASS} fp32") if name in rates), None)
    if known is None:
        return None
    return sum(amount * known.get(kind, 0.0) for kind, amount in operation.amounts.items())


def listed(operations: Mapping[Operation, float], precision: str, device: Device) -> dict[str, float] | None:
    """Seconds of a step's phases by the data sheet; ``launches``: what the host adds. None where it is not known.

    Args:
        precision: what products in fp32 are really computed in: ``tf32`` or ``fp32``.
    """
    bandwidth = device.memory_bandwidth_gb_s
    if not bandwidth:
        return None
    reachable, capability = bandwidth * 1e9 * BANDWIDTH, device.capability or (8, 0)
    found: dict[str, float] = {}
    queued = 0.0
    for operation, count in operations.items():
        if operation.name == VIEW or operation.device != device.kind:
            continue
        taken = operation.bytes / reachable
        if operation.flops:
            whole = "tf32" if precision == "tf32" and operation.precision == "fp32" else operation.precision
            peak = device.peak(whole)
            if not peak:
                return None
            if ATTENTION in operation.name:
                share = FLASH.get(capability, USUAL_FLASH) if "flash" in operation.name else EFFICIENT
                taken = operation.flops / (peak * share)
            else:
                reached = REACHED.get(capability, USUAL_REACH)
                taken = operation.flops / (peak * reached) + OPERANDS * taken + TILE_S
        found[operation.phase] = found.get(operation.phase, 0.0) + count * taken
        queued += count * DISPATCH_S[operation.name == FUSED]
    return found | {"launches": max(0.0, queued - sum(found.values()))}
