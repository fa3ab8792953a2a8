"""How long a step takes, before it is run: the pieces of its work at the rates of the device."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.hardware import rates
from ganeum.hardware.device import OWNERS, Device
from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.time import loads, measured, roofline, work
from ganeum.step.compile import SAVED_SHARE

CATALOGUE, OWN = "catalogue, not measured", "your figures, not measured"
PEAK_ALONE = "this CPU's peak alone: a rough guess; ganeum gpus --measure calibrates it in half a minute"
# What is expected lies between these shares of the estimate. docs/time.md holds them against measurements.
MARGIN = {"calibrated": (0.83, 1.2), "akin": (0.6, 1.6), "catalogue": (0.75, 1.35)}
BUSY = 0.15  # a calibration's misfit, which is 0.04 to 0.07 where nothing disturbed it
USUAL_SHARE, BEST_SHARE, WORST_SHARE = 0.4, 0.75, 0.15  # of a CPU's peak, in a whole step
OPERATOR_S = 19e-6  # to start one on a CPU, with autograd and Python: an AMD EPYC's, benchmarks/operators.py


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step, or, for evaluation and inference, of one micro-batch's forward pass.

    Attributes:
        step_s: expected.
        low, high: what it should lie between.
        parts: seconds of matmul, attention, elementwise, loss, optimizer, data, and launches (what starting each kernel
            and Python add); those that are there. They add up to ``step_s``.
        tokens_per_second: the decoder's and, where there is one, the encoder's.
        source: where the rates come from.
    """

    step_s: float
    low: float
    high: float
    parts: dict[str, float]
    tokens_per_second: float
    source: str


def of(architecture: Architecture, execution: Execution, device: Device) -> StepTime | None:
    """The time of a step on ``device``, by the best that is known of it: its calibration, the catalogue's figures for
    a GPU, a CPU's peak. None where none of them is, and for ``generation``, which has no step.

    Args:
        architecture: what is run.
        execution: how; ``execution.kind`` is the device's.
    """
    if execution.purpose == "generation":
        return None
    compiled = execution.compiled and device.kind != "cpu"  # where it saves nothing
    calibration = rates.remembered(device.name, device.kind)
    if calibration is not None:
        parts = measured.seconds(loads.of(architecture, execution), calibration)
        if parts is not None and any(parts.values()):  # a damaged file may hold nothing but zeros
            busy = calibration.misfit > BUSY
            as_measured = _as_measured(architecture, execution) and not compiled
            margin = MARGIN["akin" if busy or not as_measured else "calibrated"]
            said = f"calibrated on this machine {calibration.date}"
            if compiled:
                parts = {part: (1 - SAVED_SHARE) * seconds for part, seconds in parts.items()}
                said += f", less {SAVED_SHARE:.0%} for compiling, which was not measured"
            said += ", beside other work: ganeum gpus --measure again" if busy else ""
            return _step_time(execution, parts, margin, said)
    if device.kind != "cpu":
        parts = roofline.seconds(work.of(architecture, execution), execution, device)
        if parts is None:
            return None
        low, high = MARGIN["catalogue"]
        unsure = max(device.peak_uncertainty, device.bandwidth_uncertainty)
        source = OWN if device.source == OWNERS else CATALOGUE
        return _step_time(execution, parts, (low / (1 + unsure), high * (1 + unsure)), source)
    peak = device.peak("fp32" if execution.precision == "tf32" else execution.precision)
    if not peak:
        return None
    guess = {
        "matmul": measured.flops(loads.of(architecture, execution)) / (USUAL_SHARE * peak),
        "launches": work.operators(architecture, execution) * OPERATOR_S,
    }
    return _step_time(execution, guess, (USUAL_SHARE / BEST_SHARE, USUAL_SHARE / WORST_SHARE), PEAK_ALONE)


def _as_measured(architecture: Architecture, execution: Execution) -> bool:
    """Whether the very modules were timed that run: ours, in their own attention."""
    short = execution.kind != "cpu" or execution.length <= loads.OWN_KERNEL
    return architecture.implementation == "ganeum" and short and execution.lora.rank is None


def _step_time(execution: Execution, parts: dict[str, float], margin: tuple[float, float], source: str) -> StepTime:
    step_s = sum(parts.values())
    micro = execution.accumulation if execution.purpose == "training" else 1
    tokens = execution.micro_batch_size * (execution.length + execution.source_length) * micro
    return StepTime(step_s, margin[0] * step_s, margin[1] * step_s, parts, tokens / step_s, source)
