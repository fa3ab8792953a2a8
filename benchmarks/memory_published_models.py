"""The models of memory_published.py: what others trained when they measured, written anew from their code.

Each does what theirs does in the same order, since every tensor that is kept for the backward pass counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Book:
    """The GPT of Raschka's book, and what his list of speed-ups changes in it one after the other."""

    vocabulary: int = 50_257
    length: int = 1_024
    width: int = 768
    heads: int = 12
    layers: int = 12
    kept_mask: bool = True
    torch_layers: bool = False
    flash: bool = False


class OwnNorm(nn.Module):
    """Layer norm by hand."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=-1, keepdim=True)
        variance = x.var(dim=-1, keepdim=True, unbiased=False)
        normed = (x - mean) / torch.sqrt(variance + 1e-5)
        return self.scale * normed + self.shift


class OwnGelu(nn.Module):
    """GELU's tanh form by hand."""

    def forward(self, x: Tensor) -> Tensor:
        factor = torch.sqrt(torch.tensor(2.0 / torch.pi))
        return 0.5 * x * (1 + torch.tanh(factor * (x + 0.044715 * torch.pow(x, 3))))


class BookAttention(nn.Module):
    """Attention by hand, three projections, the mask as a buffer or made each time."""

    def __init__(self, shape: Book) -> None:
        super().__init__()
        self.heads, self.kept = shape.heads, shape.kept_mask
        self.query, self.key, self.value = (nn.Linear(shape.width, shape.width, bias=False) for _ in range(3))
        self.out, self.dropout = nn.Linear(shape.width, shape.width), nn.Dropout(0.1)
        if self.kept:
            self.register_buffer("mask", torch.triu(torch.ones(shape.length, shape.length), diagonal=1))

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        k, q, v = self.key(x), self.query(x), self.value(x)
        k, v, q = (one.view(rows, length, self.heads, -1).transpose(1, 2) for one in (k, v, q))
        scores = q @ k.transpose(2, 3)
        if self.kept:
            mask = self.mask.bool()[:length, :length]
        else:
            mask = torch.triu(torch.ones(length, length, device=x.device), diagonal=1).bool()
        scores.masked_fill_(mask, -torch.inf)
        weights = self.dropout(torch.softmax(scores / k.shape[-1] ** 0.5, dim=-1))
        return self.out((weights @ v).transpose(1, 2).reshape(rows, length, width))


class FlashAttention(nn.Module):
    """One projection, and torch's attention."""

    def __init__(self, shape: Book) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv, self.out = nn.Linear(shape.width, 3 * shape.width, bias=False), nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        rows, length, width = x.shape
        q, k, v = self.qkv(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        dropout = 0.1 if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        return self.out(found.transpose(1, 2).contiguous().view(rows, length, width))


class BookBlock(nn.Module):
    """Attention and MLP, each after its norm and beside a shortcut."""

    def __init__(self, shape: Book) -> None:
        super().__init__()
        norm = nn.LayerNorm if shape.torch_layers else OwnNorm
        gelu = nn.GELU(approximate="tanh") if shape.torch_layers else OwnGelu()
        self.attention = FlashAttention(shape) if shape.flash else BookAttention(shape)
        self.mlp = nn.Sequential(nn.Linear(shape.width, 4 * shape.width), gelu, nn.Linear(4 * shape.width, shape.width))
        self.norm1, self.norm2, self.dropout = norm(shape.width), norm(shape.width), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.norm1(x)
        x = self.attention(x)
        x = self.dropout(x)
        x = x + shortcut
        shortcut = x
        x = self.norm2(x)
        x = self.mlp(x)
        x = self.dropout(x)
        return x + shortcut


class BookGPT(nn.Module):
    """Its head has weights of its own."""

    def __init__(self, shape: Book) -> None:
        super().__init__()
        self.tokens, self.positions = (
            nn.Embedding(shape.vocabulary, shape.width),
            nn.Embedding(shape.length, shape.width),
        )
        self.dropout = nn.Dropout(0.1)
        self.blocks = nn.Sequential(*(BookBlock(shape) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width) if shape.torch_layers else OwnNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        tokens = self.tokens(ids)
        positions = self.positions(torch.arange(ids.shape[1], device=ids.device))
        x = tokens + positions
        x = self.dropout(x)
        x = self.blocks(x)
        x = self.norm(x)
        return self.head(x)


class ViTBlock(nn.Module):
    """torchvision's ``EncoderBlock``, whose dropout is 0."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = nn.MultiheadAttention(width, heads, dropout=0.0, batch_first=True)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.0), nn.Linear(4 * width, width), nn.Dropout(0.0)
        )

    def forward(self, given: Tensor) -> Tensor:
        x = self.norm1(given)
        x, _ = self.attention(x, x, x, need_weights=False)
        x = x + given
        y = self.norm2(x)
        y = self.mlp(y)
        return x + y


class ViTLarge(nn.Module):
    """torchvision's ``vit_l_16`` with a head for ten classes."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 1_024, kernel_size=16, stride=16)
        self.token = nn.Parameter(torch.zeros(1, 1, 1_024))
        self.positions = nn.Parameter(torch.zeros(1, 197, 1_024))
        self.blocks = nn.Sequential(*(ViTBlock(1_024, 16) for _ in range(24)))
        self.norm, self.head = nn.LayerNorm(1_024, eps=1e-6), nn.Linear(1_024, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images)
        x = x.reshape(images.shape[0], 1_024, 196)
        x = x.permute(0, 2, 1)
        x = torch.cat([self.token.expand(images.shape[0], -1, -1), x], dim=1)
        x = x + self.positions
        x = self.norm(self.blocks(x))
        return self.head(x[:, 0])
