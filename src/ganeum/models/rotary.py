"""Rotary positions (Su et al. 2021, arXiv 2104.09864): queries and keys are turned by angles that grow with the place.

Shapes: T = tokens, D = head_dim.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Rotation = tuple[Tensor, Tensor]  # cosines and sines of T places, each (T, D / 2) in fp32


class Rotary(nn.Module):
    """The angles of every place up to ``block_size``: place t turns pair i by t · theta^(-2i / D).

    Computed once. They are no weights and never saved, and stay fp32 whatever the model is cast to: bf16 knows the
    places only to 8 bits.
    """

    cos: Tensor  # (block_size, D / 2), as sin
    sin: Tensor

    def __init__(self, block_size: int, head_dim: int, theta: float) -> None:
        super().__init__()
        self.shape, self.theta = (block_size, head_dim), theta
        self.register_buffer("cos", torch.empty(0), persistent=False)
        self.register_buffer("sin", torch.empty(0), persistent=False)
        self._fill()

    def _fill(self) -> None:
        length, width = self.shape
        speeds = 1.0 / self.theta ** (torch.arange(0, width, 2, device="cpu").float() / width)  # (D / 2,)
        angles = torch.arange(length, device="cpu").float()[:, None] * speeds  # (block_size, D / 2)
        self.cos, self.sin = angles.cos().to(self.cos.device), angles.sin().to(self.sin.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Rotary:
        super()._apply(fn, recurse)
        self._fill()
        return self

    def forward(self, start: int, end: int) -> Rotation:
        """Of the places ``start : end``."""
        return self.cos[start:end], self.sin[start:end]


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """(B, T, H, D), turned. Pair i is (x_i, x_(i + D/2)), as in Llama's and Qwen's weights; not neighbours."""
    cos, sin = (table[:, None, :] for table in rotation)  # (T, 1, D / 2)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)
