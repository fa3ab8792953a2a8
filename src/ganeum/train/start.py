"""A model on its device and what takes steps with it, as the config says, from the run's seed."""

from __future__ import annotations

import os

import torch

from ganeum.config import Config
from ganeum.models.build import build
from ganeum.step import allocator
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train import randomness


def start(config: Config) -> OptimizerStep:
    """Freshly initialised weights; every random state is that of the seed, whatever was drawn before.

    Args:
        config: device, precision, compile and loss_chunk resolved.
    """
    train, device = config.train, torch.device(config.device)
    assert train.precision != "auto", "resolved before"
    assert train.compile != "auto", "resolved before"
    assert train.loss_chunk != "auto", "resolved before"
    if device.type == "cuda":
        _deterministic()
    if device.type == "cpu":
        allocator.keep_freed_memory()
    randomness.seed_all(config.seed)
    return OptimizerStep(
        build(config.model).to(device),
        train,
        device,
        precision=train.precision,
        compiled=train.compile,
        loss_chunk=train.loss_chunk,
    )


def _deterministic() -> None:
    """The same bits every time on a GPU too: torch then takes the backward passes that add in a fixed order."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass over memory
