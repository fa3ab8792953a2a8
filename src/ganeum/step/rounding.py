"""Weights in bf16 that still learn: an update smaller than half a unit is not lost, it rounds up now and then.

bf16 has 8 bits of significand: at 1.0 the next number is 0.8 % away, and nearest rounding throws any smaller update
away, step after step, until nothing moves. Rounded up with the probability of what is thrown away, the weight is right
on average (Zamirai et al. 2020, arXiv 2010.06192, section 4).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def stochastic(x: Tensor) -> Tensor:
    """fp32 → bf16: one of the two neighbours, such that the mean is ``x``; a bf16 number stays what it is.

    The random bits come from torch's generator of the device: seeded by the run, saved in its checkpoints.
    """
    # fp32's upper 16 bits are bf16. Adding 0 … 65,535 to the lower ones carries with the right probability.
    noise = torch.randint(0, 1 << 16, x.shape, dtype=torch.int32, device=x.device)
    return (x.contiguous().view(torch.int32) + noise).bitwise_and_(-1 << 16).view(torch.float32).to(torch.bfloat16)


@torch.no_grad()
def to_bf16(model: nn.Module) -> None:
    """Every weight in bf16, in place; gradients, which take their weight's type, then too."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
