"""What a step is taken on: sequences that are computed together, and the whole batch that they are a part of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

IGNORED = -1  # a target that counts for nothing


@dataclass(frozen=True)
class Batch:
    """Sequences that are computed at once.

    Attributes:
        inputs: what the network's ``hidden`` takes, by name; each with the sequences first.
        targets: (B, T) int64 ids, ``IGNORED`` where nothing is to be learnt.
        rows: (N,) int64, the places of the targets that count in ``targets.flatten()``, known before the device is;
            None where all of them count.
        padding: places of ``inputs`` and ``targets`` that hold nothing.
    """

    inputs: Mapping[str, Tensor]
    targets: Tensor
    rows: Tensor | None = None
    padding: int = 0

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def counted(self) -> int:
        """Targets that count."""
        return self.targets.numel() if self.rows is None else len(self.rows)

    @property
    def tokens(self) -> int:
        """Places that hold something, of inputs and targets of a pair together; of a text each token once."""
        return sum(t.numel() for name, t in self.inputs.items() if name.endswith("tokens")) - self.padding

    def to(self, device: torch.device) -> Batch:
        """The same on a device; copies to a GPU do not wait."""
        rows = None if self.rows is None else _to(self.rows, device)
        inputs = {name: _to(tensor, device) for name, tensor in self.inputs.items()}
        return Batch(inputs, _to(self.targets, device), rows, self.padding)


class Whole(Protocol):
    """All sequences of one optimizer step, on the CPU, not yet cut into what is computed at once."""

    @property
    def targets(self) -> int:
        """Targets that count: the step's loss is the mean over them, however it is cut."""
        ...

    @property
    def tokens(self) -> int:
        """Places that hold something, however it is cut: the sum of its micro-batches' ``tokens``."""
        ...

    def __len__(self) -> int:
        """Sequences."""
        ...

    def micro_batches(self, size: int) -> Iterator[Batch]:
        """The sequences, ``size`` of them at once."""
        ...

    def first(self, sequences: int) -> Whole:
        """A part of it, as many sequences at most."""
        ...


@dataclass(frozen=True)
class WindowBatch:
    """A batch of a GPT: ``x`` and ``y``, both (B, T) int64, each target counting."""

    x: Tensor
    y: Tensor

    @property
    def targets(self) -> int:
        return self.y.numel()

    @property
    def tokens(self) -> int:
        return self.x.numel()

    def __len__(self) -> int:
        return len(self.x)

    def first(self, sequences: int) -> WindowBatch:
        return WindowBatch(self.x[:sequences], self.y[:sequences])

    def micro_batches(self, size: int) -> Iterator[Batch]:
        for x, y in zip(torch.split(self.x, size), torch.split(self.y, size), strict=True):
            yield Batch({"tokens": x}, y)


def _to(tensor: Tensor, device: torch.device) -> Tensor:
    if tensor.device.type == "cpu" and device.type == "cuda":
        tensor = tensor.pin_memory()  # without it the copy would wait for the GPU
    return tensor.to(device, non_blocking=True)
