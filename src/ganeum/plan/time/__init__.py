"""How long a step takes, before it is run: the pieces of its work at the rates of the device."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.hardware.device import Device
from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.time import roofline, work

CATALOGUE = "catalogue, not measured"
LOW, HIGH = 0.75, 1.4  # of what the catalogue says; docs/time.md holds it against published figures


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, or, for any purpose but training, of one micro-batch's forward pass.

    Attributes:
        step_s: expected.
        low, high: what it should lie between.
        parts: seconds of matmul, attention, elementwise, loss, optimizer, data, and launches (what the host adds).
        tokens_per_second: of the decoder's tokens, and of the encoder's where there is one.
        source: where the rates come from.
    """

    step_s: float
    low: float
    high: float
    parts: dict[str, float]
    tokens_per_second: float
    source: str


def of(architecture: Architecture, execution: Execution, device: Device) -> StepTime | None:
    """The time of a step on ``device``; None where its rates are not known.

    Args:
        architecture: what is trained.
        execution: how; ``execution.kind`` is the device's.
    """
    pieces = work.of(architecture, execution)
    parts = roofline.seconds(pieces, execution, device)
    if parts is None:
        return None
    return _step_time(execution, parts, LOW, HIGH, CATALOGUE)


def _step_time(execution: Execution, parts: dict[str, float], low: float, high: float, source: str) -> StepTime:
    step_s = sum(parts.values())
    micro = execution.accumulation if execution.purpose == "training" else 1
    tokens = execution.micro_batch_size * (execution.length + execution.source_length) * micro
    return StepTime(step_s, low * step_s, high * step_s, parts, tokens / step_s, source)
