"""What a run computes on, in the few facts that the other rooms ask for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["cpu", "cuda", "mps"]
OWNERS = "as it was given"  # the source of figures that a card's owner says


def fast_precision(capability: tuple[int, int] | None, bf16_unit: str | None) -> Literal["bf16", "fp16", "fp32"]:
    """The format that a device multiplies fastest by hardware of its own: bf16 from Ampere (8.0) on and on a CPU with a
    bf16 unit, fp16 on Volta and Turing (7.x), else fp32. ``capability``: an NVIDIA GPU's; None of anything else."""
    if capability is not None:
        return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"
    return "bf16" if bf16_unit else "fp32"


@dataclass(frozen=True)
class Device:
    """One device.

    Attributes:
        name: as the driver gives it (``NVIDIA GeForce RTX 3080``), or the CPU's model.
        kind: torch's device type.
        memory_gib: all its memory; for a CPU what this process may use at most (a container's limit counts).
        usable_gib: what was free for a run when the device was looked at.
        peak_flops_per_second: precision (``fp32 tf32 bf16 fp16``) → dense peak, FLOP per second; a precision that the
            device does not have, or whose peak nobody knows, is missing or None. Never a guess.
        source: where these figures come from.
        index: which of several GPUs.
        here: it is in this machine; a catalogue's card is not, and what torch lacks here says nothing of it.
        capability: an NVIDIA GPU's compute capability, ``(8, 6)``.
        memory_bandwidth_gb_s: an NVIDIA GPU's memory bandwidth, 10⁹ bytes per second.
        bf16_unit: the CPU's own bf16 multiplier (``AVX512-BF16``, ``AMX``), if it has one.
        note: what its owner should know (a GPU without bf16, a laptop whose power sets its speed).
        peak_uncertainty: ± share of its peaks that nobody vouches for; 0 where a data sheet does.
        bandwidth_uncertainty: the same of its memory bandwidth.
        power_w: what it draws at most; for a laptop's card the most that any maker gives it.
    """

    name: str
    kind: Kind
    memory_gib: float
    usable_gib: float
    peak_flops_per_second: dict[str, float | None] = field(default_factory=dict)
    source: str = ""
    index: int = 0
    here: bool = False
    capability: tuple[int, int] | None = None
    memory_bandwidth_gb_s: float | None = None
    bf16_unit: str | None = None
    note: str = ""
    peak_uncertainty: float = 0.0
    bandwidth_uncertainty: float = 0.0
    power_w: float | None = None

    @property
    def torch_name(self) -> str:
        """What ``torch.device`` takes: ``cpu``, ``mps``, ``cuda:1``."""
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind

    @property
    def fast_precision(self) -> Literal["bf16", "fp16", "fp32"]:
        """What ``train.precision: auto`` becomes on it."""
        return fast_precision(self.capability, self.bf16_unit)

    def peak(self, precision: str) -> float | None:
        """Dense FLOP per second at ``precision``, or None: then MFU is not known and is not shown."""
        return self.peak_flops_per_second.get(precision)
