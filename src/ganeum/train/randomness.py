"""Every random state that training draws from, as tensors and plain numbers, so that a resumed run draws the same."""

from __future__ import annotations

import random
from typing import Any, cast

import numpy
import torch


def seed_all(seed: int) -> None:
    """Weights, dropout and whatever else draws without its own generator."""
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)  # every device


def state() -> dict[str, Any]:
    """What `restore` takes: tensors, numbers and lists only, as `torch.load(weights_only=True)` demands."""
    version, numbers, gauss = random.getstate()
    _, keys, position, has_gauss, cached = cast(tuple[Any, ...], numpy.random.get_state())
    result: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [torch.from_numpy(keys.astype(numpy.int64)), position, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        result["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        result["mps"] = torch.mps.get_rng_state()
    return result


def restore(saved: dict[str, Any]) -> None:
    """Puts back what `state` gave; a device that is not here any more is passed over."""
    version, numbers, gauss = saved["python"]
    random.setstate((version, tuple(numbers), gauss))
    keys, position, has_gauss, cached = saved["numpy"]
    numpy.random.set_state(("MT19937", keys.numpy().astype(numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(saved["torch"])
    if "cuda" in saved and torch.cuda.is_available() and len(saved["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(saved["cuda"])
    if "mps" in saved and torch.backends.mps.is_available():
        torch.mps.set_rng_state(saved["mps"])


def of_device(device: torch.device) -> torch.Tensor:
    """The state of the one generator that a step draws from (dropout); a copy of a few kB at most, without waiting."""
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else torch.get_rng_state()


def restore_device(device: torch.device, saved: torch.Tensor) -> None:
    """Puts back what `of_device` gave."""
    if device.type == "cuda":
        torch.cuda.set_rng_state(saved, device)
    elif device.type == "mps":
        torch.mps.set_rng_state(saved)
    else:
        torch.set_rng_state(saved)
