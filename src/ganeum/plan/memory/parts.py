"""What a prediction of memory consists of: bytes by component, at the moment when most of them are there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ganeum import units
from ganeum.hardware.device import Device


@dataclass(frozen=True)
class Activations:
    """What one micro-batch puts beside weights, gradients and optimizer state, in bytes.

    A model's own file (``ours.py``, ``transformers.py``) gives it; ``total.py`` sets it beside the state of each moment.
    Autocast's copies of the weights are part of it: autograd keeps them like any input of a product.

    Attributes:
        kept: kind (``attention``, ``mlp``, ``norms``, ``embedding``, ``copies``, …) → bytes that are there when the
            forward pass has ended and its last output exists; without a backward pass what lives all through it.
        layer: of these, what the last layer keeps, which its backward pass frees; the first layer keeps as much.
        forward: beside ``kept``, at the fullest moment of the forward pass, counted from its end: what an operation
            needs on its way less what later layers will still keep. 0 where the end is the fullest.
        loss: beside ``kept``, while the loss is computed: logits, their copies and gradients, the output layer's gradient
            where the loss makes it.
        after_loss: of ``loss``, what stays for the backward pass of the layers (the gradient of the last hidden state,
            that of the output layer's weights).
        backward: beside ``kept`` and ``after_loss``, at the fullest moment of one layer's backward pass: what it computes
            again, gradients of its activations, and those of its weights on their way.
        embedding: the same, of the backward pass of the embedding, when no layer keeps anything any more.
    """

    kept: Mapping[str, float]
    layer: float = 0.0
    forward: float = 0.0
    loss: float = 0.0
    after_loss: float = 0.0
    backward: float = 0.0
    embedding: float = 0.0


@dataclass(frozen=True)
class Memory:
    """Memory of one way to run a model, in bytes.

    Attributes:
        parts: component → bytes at the fullest moment: ``weights``, ``gradients``, ``optimizer``, activations by kind
            (``attention``, ``mlp``, ``norms``, ``embedding``), ``logits``, ``workspace``, ``update``; only what is there.
        at: that moment: ``loss``, ``backward of the last layer``, ``update``, ….
        low: what cannot be avoided.
        high: with what allocators round up and cannot use, and with kernels' buffers.
        framework: what a process on a CPU holds beside tensors; 0 on a GPU.
        context: what CUDA takes before the first tensor; part of no other figure, as ``Device.usable_gib`` lacks it.
    """

    parts: Mapping[str, float]
    at: str
    low: float
    high: float
    framework: float = 0.0
    context: float = field(default=0.0)

    @property
    def expected(self) -> float:
        """What torch's allocator has given out at the fullest moment."""
        return sum(self.parts.values())

    @property
    def total(self) -> float:
        """With the process around it."""
        return self.expected + self.framework

    def fits(self, device: Device) -> bool:
        """Whether even ``high`` leaves the device room."""
        return self.high + self.framework <= device.usable_gib * units.GIB
