"""Models that are nobody's here, each with a step of its own: ``build, step`` on a device."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.GroupNorm(4, 32),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class UNet(nn.Module):
    """Down and up again, with a way across and a time that is added, as diffusion models have it."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.time = nn.Linear(8, width)
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.middle = nn.Conv2d(2 * width, 2 * width, 3, padding=1)
        self.attention = nn.MultiheadAttention(2 * width, 2, batch_first=True)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.last = nn.Conv2d(2 * width, 3, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        a = F.silu(self.first(x) + self.time(t)[:, :, None, None])
        b = F.silu(self.middle(F.silu(self.down(a))))
        tokens = b.flatten(2).transpose(1, 2)
        b = (tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]).transpose(1, 2).view_as(b)
        out: Tensor = self.last(torch.cat((F.silu(self.up(b)), a), dim=1))
        return out


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(500, 32)
        self.lstm = nn.LSTM(32, 64, batch_first=True)
        self.head = nn.Linear(64, 500)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return out


class Picker(nn.Module):
    """Linear layers on four dimensions, and rows and places picked out, whose gradients are sums into zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(48, 96), nn.Linear(96, 48)

    def forward(self, x: Tensor, rows: Tensor) -> Tensor:
        x = self.last(F.relu(self.first(x)))
        picked = x.index_select(1, rows)
        return picked.gather(2, rows.view(1, -1, 1, 1).expand(len(x), -1, 1, 48)).amax(-1)


def picker(device: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    def build() -> Any:
        model = Picker().to(device)
        return model, torch.optim.Adagrad(model.parameters())

    def step(built: Any) -> None:
        model, optimizer = built
        rows = torch.zeros(16, dtype=torch.int64, device=device)
        model(torch.randn(4, 24, 24, 48, device=device), rows).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return build, step


def conv(device: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    def build() -> Any:
        model = ConvNet().to(device)
        return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(built: Any) -> None:
        model, optimizer = built
        x, y = torch.randn(8, 3, 32, 32, device=device), torch.zeros(8, dtype=torch.int64, device=device)
        F.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return build, step


def unet(device: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    def build() -> Any:
        model = UNet().to(device)
        return {"model": model, "optimizer": torch.optim.AdamW(model.parameters(), foreach=True)}

    def step(built: Any) -> None:
        x, t = torch.randn(4, 3, 16, 16, device=device), torch.randn(4, 8, device=device)
        F.mse_loss(built["model"](x, t), torch.randn_like(x)).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(built["model"].parameters(), 1.0)
        built["optimizer"].step()
        built["optimizer"].zero_grad()

    return build, step


def reader(device: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    def build() -> Any:
        model = Reader().to(device)
        return SimpleNamespace(model=model, optimizer=torch.optim.Adam(model.parameters(), foreach=False))

    def step(built: Any) -> None:
        tokens = torch.zeros(4, 33, dtype=torch.int64, device=device)
        logits = built.model(tokens[:, :-1])
        F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()  # type: ignore[no-untyped-call]
        built.optimizer.step()
        built.optimizer.zero_grad()

    return build, step


def vision(device: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    transformers = pytest.importorskip("transformers")

    def build() -> Any:
        config = transformers.ViTConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            image_size=64,
            num_labels=5,
        )
        model = transformers.ViTForImageClassification(config).to(device)
        return model, torch.optim.AdamW(model.parameters(), fused=True)

    def step(built: Any) -> None:
        model, optimizer = built
        images, labels = torch.randn(4, 3, 64, 64, device=device), torch.zeros(4, dtype=torch.int64, device=device)
        model(pixel_values=images, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return build, step
