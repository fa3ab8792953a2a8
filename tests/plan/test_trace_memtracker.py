"""Live peaks against an independent implementation, torch.distributed's MemTracker, on the same steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from ganeum.hardware.device import Device
from ganeum.plan.trace import anybody
from ganeum.plan.trace.events import Release, live
from ganeum.plan.trace.step import stage

CPU = Device("a CPU", "cpu", memory_gib=64, usable_gib=50)
A100 = Device("NVIDIA A100-SXM4-80GB", "cuda", memory_gib=80, usable_gib=79, capability=(8, 0))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(300, 64)
        self.up, self.down, self.norm = nn.Linear(64, 256), nn.Linear(256, 64), nn.LayerNorm(64)
        self.qkv = nn.Linear(64, 192)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.dropout(self.table(ids), 0.1)
        q, k, v = (part.unflatten(-1, (4, 16)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        x = x + F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return F.linear(self.norm(x + self.down(F.gelu(self.up(x)))), self.table.weight)


class Images(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def ids() -> Tensor:
    return torch.zeros(8, 32, dtype=torch.int64)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], type[Any]]] = {
    "attention and perceptron, AdamW": (Words, ids, torch.optim.AdamW),
    "attention and perceptron, SGD": (Words, ids, torch.optim.SGD),
    "convolutions and batch norm, Adam": (Images, lambda: torch.zeros(4, 3, 24, 24), torch.optim.Adam),
}


def code(name: str, device: str = "cpu") -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """``build`` and ``step`` as anybody would write them."""
    model, inputs, optimizer = CASES[name]

    def build() -> Any:
        network = model().to(device)
        return network, optimizer(network.parameters(), lr=1e-3)

    def step(built: Any) -> None:
        network, update = built
        network(inputs().to(device)).square().mean().backward()
        update.step()
        update.zero_grad()

    return build, step


def tracked(name: str) -> int:
    """Live bytes at the peak of two steps, as MemTracker has them."""
    build, step = code(name)
    with FakeTensorMode():
        built = build()
        tracker = MemTracker()
        tracker.track_external(*built)
        with tracker:
            step(built)
            tracker.reset_mod_stats()
            step(built)
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


@pytest.mark.parametrize("name", CASES)
def test_live_peaks_are_those_of_mem_tracker(name: str) -> None:
    """To the byte; what builds the model is left aside, since MemTracker does not see it."""
    build, step = code(name)
    found = anybody.trace(build, step, CPU)
    assert max(list(live(found.events))[found.steps[0] :]) == tracked(name)


def test_live_peaks_on_a_gpu_are_those_of_mem_tracker() -> None:
    """On fake CUDA, where its kernels and its attention are chosen; both round to 512 bytes, as the allocator does."""
    build, step = code("attention and perceptron, AdamW", "cuda")
    found = anybody.trace(build, step, A100)
    there, most = dict[int, int](), 0
    for number, event in enumerate(found.events):
        if isinstance(event, Release):
            there.pop(event.key, None)
        elif event.kind != "workspace":  # what kernels take inside, MemTracker does not know
            there[event.key] = -(-event.bytes // 512) * 512
        if number >= found.steps[0]:
            most = max(most, sum(there.values()))
    with stage(A100):
        built = build()
        tracker = MemTracker()
        tracker.track_external(*built)
        with tracker:
            step(built)
            tracker.reset_mod_stats()
            step(built)
    assert most == tracker.get_tracker_snapshot("peak")[torch.device("cuda:0")]["Total"]
