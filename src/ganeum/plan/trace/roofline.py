"""How long a traced step takes: each of its operations at the rates of the device. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass


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
