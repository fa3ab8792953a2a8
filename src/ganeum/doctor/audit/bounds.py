"""What a finding that was only read can be worth at most, where arithmetic says so: from nothing to that."""

from __future__ import annotations

from dataclasses import replace

from ganeum.doctor.finding import Finding
from ganeum.hardware.device import Device

# Forward once and backward twice its work; computed again, forward twice.
RECOMPUTED = 4 / 3


def bounded(finding: Finding, device: Device | None) -> Finding:
    """With the interval that the card's own peaks give (all of a step's work in products, none of it waiting), and that
    of computing activations twice. What has a size or an interval keeps it."""
    if finding.size is not None or finding.interval is not None:
        return finding
    most = RECOMPUTED if finding.cause == "checkpointing_for_nothing" else _faster(finding.cause, device)
    return finding if most is None or most <= 1 else replace(finding, interval=(1.0, most), unit="times as long")


def _faster(cause: str, device: Device | None) -> float | None:
    """The card's peak in the format that is asked for, beside that of fp32."""
    wanted = {"fp32": ("bf16", "fp16"), "tf32_off": ("tf32",)}.get(cause)
    if device is None or wanted is None:
        return None
    peaks = device.peak_flops_per_second
    fp32, best = peaks.get("fp32"), next((peak for name in wanted if (peak := peaks.get(name))), None)
    return best / fp32 if fp32 and best else None
