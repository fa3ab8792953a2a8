"""A GPU's time for a step's pieces, from its data sheet and from what others measured cards like it to reach.

A roofline (Williams et al. 2009, doi 10.1145/1498765.1498785): a pass over memory takes its bytes at the reachable
bandwidth, a product its operations at the reachable matrix rate, and the part of its bytes that this does not hide.
Beside the device, the host queues kernels one after the other; where that takes longer than they run, it is the host
that sets the pace.
"""

from __future__ import annotations

from collections.abc import Iterable

from ganeum.hardware.device import Device
from ganeum.plan.execution import Execution
from ganeum.plan.time.work import Piece, Product

# Share of the dense peak that torch.mm's best shapes reach, by compute capability: stas00/ml-engineering,
# compute/accelerator/README.md, "maximum achievable matmul FLOPS": A100 271 of 312, H100 794 of 989, B200 1745 of 2250.
# Of others nobody published it: between the A100's as SXM and as PCIe (253 of 312).
REACHED = {(8, 0): 0.87, (9, 0): 0.80, (10, 0): 0.78}
USUAL_REACH = 0.85
BANDWIDTH = 0.80  # of the data sheet's; assumed
# Of the dense peak: FlashAttention-2 (Dao 2023, arXiv 2307.08691) reaches 50 to 73 % on an A100 (abstract), the less
# the shorter the context and the narrower the heads; on an H100 up to 335 of 989 TFLOP/s (section 4).
FLASH = {(8, 0): 0.50, (9, 0): 0.34}
USUAL_FLASH, EFFICIENT = 0.45, 0.22  # assumed
OPERANDS = 0.8  # share of a product's own reading and writing that its multiplying does not hide; assumed, as the next
TILE_S = 4e-6  # the last wave of a product's tiles, which does not fill the device, its start and its end
DISPATCH_S = {False: 9e-6, True: 3e-6}  # the host's time for a kernel, of torch's operators and of a compiled graph


def seconds(pieces: Iterable[tuple[Piece, float]], execution: Execution, device: Device) -> dict[str, float] | None:
    """Seconds of a step by part, ``launches`` what the host adds; None where the card's rates are not known.

    Args:
        pieces: each with how often it is done.
    """
    peak, bandwidth = device.peak(execution.precision), device.memory_bandwidth_gb_s
    if not peak or not bandwidth:
        return None
    reachable = bandwidth * 1e9 * BANDWIDTH
    found: dict[str, float] = {}
    kernels = 0.0
    for piece, often in pieces:
        if isinstance(piece, Product):
            taken, count = _product(piece, execution, peak, reachable, device.capability or (8, 0)), 1.0
        else:
            fused = execution.compiled and piece.part not in ("optimizer", "data")
            taken = piece.numbers * (piece.fused if fused else piece.bytes) / reachable
            count = 1.0 if fused else piece.kernels
        found[piece.part] = found.get(piece.part, 0.0) + taken * piece.times * often
        kernels += count * piece.times * often
    queued = kernels * DISPATCH_S[execution.compiled]
    return found | {"launches": max(0.0, queued - sum(found.values()))}


def _product(piece: Product, execution: Execution, peak: float, bandwidth: float, capability: tuple[int, int]) -> float:
    """Seconds of one product; a kernel for attention is one with it."""
    if piece.part == "attention" and execution.attention != "eager":
        share = FLASH.get(capability, USUAL_FLASH) if execution.attention == "flash" else EFFICIENT
        return piece.flops / (peak * share)
    width = 2.0 if execution.half or execution.weights != "fp32" else 4.0
    reached = REACHED.get(capability, USUAL_REACH)
    return piece.flops / (peak * reached) + OPERANDS * piece.numbers * width / bandwidth + TILE_S
