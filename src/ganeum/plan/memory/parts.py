"""What a prediction of memory consists of: bytes by component, at the moment when most of them are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ganeum import units
from ganeum.hardware.device import Device


@dataclass(frozen=True)
class Memory:
    """Memory of one way to run a model, in bytes.

    Attributes:
        parts: component → bytes at the fullest moment, as far as it is there: ``weights``, ``gradients``,
            ``optimizer``, activations by kind (``attention``, ``mlp``, ``norms`` with the residual stream that they
            keep, ``embedding``), ``copies`` of weights for autocast, ``logits``, ``workspace``, ``update``.
        at: that moment: ``loss``, ``backward of the last layer``, ``update``, ….
        low: without what kernels need on their way: less is impossible.
        high: with what allocators round up and cannot use, and with kernels' buffers.
        framework: what a process on a CPU holds beside tensors; 0 on a GPU. ``framework_low``: at the least.
        context: what CUDA takes before the first tensor; part of no other figure, as ``Device.usable_gib`` lacks it.
    """

    parts: Mapping[str, float]
    at: str
    low: float
    high: float
    framework: float = 0.0
    framework_low: float = 0.0
    context: float = 0.0

    @property
    def expected(self) -> float:
        """What torch's allocator has given out at the fullest moment."""
        return sum(self.parts.values())

    @property
    def total(self) -> float:
        """With the process around it."""
        return self.expected + self.framework

    @property
    def least(self) -> float:
        """``low`` with the process around it: a run that gets less cannot be."""
        return self.low + self.framework_low

    @property
    def most(self) -> float:
        """``high`` with the process around it."""
        return self.high + self.framework

    def fits(self, device: Device) -> bool:
        """Whether even ``high`` leaves the device room."""
        return self.most <= device.usable_gib * units.GIB
