"""What the device could do at the best with somebody's training: the FLOPs of the products in its own steps, counted
as they run, at the device's peak. Everything else that a step does is left out, so no program reaches it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ganeum import hardware, units
from ganeum.doctor.measured.training import Training

PRECISIONS = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
ON_A_CPU = "_scaled_dot_product_flash_attention"  # takes the same tensors, and torch's counter does not know it


class Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while its ``with`` block is open; torch's own formulas, by the format of the numbers.

    Attributes:
        flops: of each format.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        out = func(*args, **named)
        if (count := _formulas().get(func._overloadpacket)) is not None:
            of = next(value.dtype for value in args if isinstance(value, Tensor))
            self.flops[of] += count(*args, **named, out_val=out)
        return out


def of(training: Training, batches: Sequence[Any]) -> dict[str, Any]:
    """Takes a step on each batch, nothing compiled.

    Returns:
        ``seconds`` a step needs at least, None where a format's peak is not known or nothing was counted; ``flops`` of
        a step; ``peaks``: format → FLOP per second; ``source`` of these; ``words``: all that in a few.
    """
    products = Products()
    stance = torch.compiler.set_stance("force_eager")
    with stance, products:
        for batch in batches:
            training.step(batch)
    device = hardware.detect(str(next(training.model.parameters()).device))
    peaks, seconds = dict[str, float | None](), 0.0
    for kind, flops in products.flops.items():
        name = _precision(kind, device.kind)
        if name not in peaks:
            device = hardware.with_measured_peak(device, name) if kind in PRECISIONS else device
            peaks[name] = device.peak(name)
        seconds += flops / len(batches) / (peaks[name] or float("inf"))
    total = sum(products.flops.values()) / len(batches)
    known = total > 0 and all(peaks.values())
    rates = ", ".join(f"{units.flops(peak)}/s ({name})" for name, peak in peaks.items() if peak)
    known_by = "measured here" if device.kind == "cpu" else "catalogue"
    return {
        "seconds": seconds if known else None,
        "flops": total,
        "peaks": peaks,
        "source": device.source,
        "words": f"{units.flops(total)} of products a step at {rates}, {known_by}",
    }


@cache
def _formulas() -> dict[Any, Callable[..., int]]:
    known = dict(flop_registry)
    for way in ("", "_backward"):
        packet = getattr(torch.ops.aten, f"{ON_A_CPU}_for_cpu{way}", None)
        if packet is not None:
            known[packet] = known[getattr(torch.ops.aten, ON_A_CPU + way)]
    return known


def _precision(kind: torch.dtype, device: str) -> str:
    if kind is torch.float32 and device == "cuda" and torch.get_float32_matmul_precision() != "highest":
        return "tf32"
    return PRECISIONS.get(kind, str(kind).removeprefix("torch."))
