"""One kernel for what transformers' models write out in Python: RMSNorm and the tanh approximation of GELU.

The same formulas, so the same numbers up to rounding; the parameters keep their names. Written out, GELU is eight
passes over memory forward and keeps five tensors of an MLP's width for the backward pass, where one is needed; a norm
is five.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ganeum.models import cpu_norm

# weight · x / √(mean x² + eps), and nothing else; Gemma's, whose factor is 1 + weight, is not among them.
NORMS = (
    "T5LayerNorm",
    "MT5LayerNorm",
    "UMT5LayerNorm",
    "LlamaRMSNorm",
    "MistralRMSNorm",
    "Qwen2RMSNorm",
    "Qwen3RMSNorm",
)


class RMSNorm(nn.Module):
    """w · x / √(mean x² + eps), (…, C) → (…, C), computed in fp32; takes over another module's weight (C,)."""

    def __init__(self, weight: nn.Parameter, eps: float) -> None:
        super().__init__()
        self.weight, self.variance_epsilon = weight, eps

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, self.weight.dtype))
        if x.device.type == "cpu" and not torch.compiler.is_compiling():  # which fuses passes by itself
            return cpu_norm.rms_norm(x, self.weight, self.variance_epsilon)
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.variance_epsilon)


def put_in(model: nn.Module) -> None:
    """Exchanges them in all of a model."""
    child: Any  # whose attributes nn.Module knows as tensors or modules
    for module in list(model.modules()):
        for name, child in module.named_children():
            kind = type(child).__name__
            if kind == "NewGELUActivation":
                setattr(module, name, nn.GELU(approximate="tanh"))
            elif kind in NORMS:
                setattr(module, name, RMSNorm(child.weight, child.variance_epsilon))
