"""A model on its device and what takes steps with it, as the config says, from the run's seed."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from ganeum.config import Config
from ganeum.config.zero import ENGINE
from ganeum.data.examples.model import PACKED
from ganeum.models.adopted import Adopted, check_packing
from ganeum.models.build import build
from ganeum.models.network import Network
from ganeum.step import allocator, precision
from ganeum.step.assemble import assemble, prepare
from ganeum.step.loss import linear_cross_entropy
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train import deepspeed, randomness


def start(config: Config, *, empty: bool = False, fill: Callable[[Network], None] | None = None) -> OptimizerStep:
    """Freshly initialised weights; every random state is that of the seed, whatever was drawn before.

    Args:
        empty: an adopted model's are not drawn: a checkpoint's are to be loaded.
        fill: loads weights into the model, before anything is made of it.
        config: device, precision, compile and loss_chunk resolved.
    """
    train, device = config.train, torch.device(config.device)
    if device.type == "cpu":
        allocator.keep_freed_memory()
    if device.type == "cuda":
        allocator.expand_segments(train.expandable_segments is True)  # auto: a run older than the key
    randomness.seed_all(config.seed)
    engine = train.zero.stage >= ENGINE
    model = prepare(build(config.model, empty=empty).to("cpu" if engine else device), config)
    if fill is not None:
        fill(model)
    if engine:
        assert train.precision != "auto", "resolved before"
        assert train.loss_chunk != "auto", "resolved before"
        return deepspeed.EngineStep(model, train, device, precision=train.precision, loss_chunk=train.loss_chunk)
    step = assemble(model, config)
    if device.type == "cuda" or train.compile:
        make_deterministic(step)
    return step


def check_source(config: Config) -> None:
    """Builds the model of ``model.source`` once for nothing, so that one that cannot be trained leaves no run behind.

    Raises:
        CheckpointError: it cannot be read.
        ConfigError: its logits are not its head's; or its rows are packed, and it cannot tell the examples apart.
    """
    if config.model.source is None:
        return
    network = build(config.model)
    assert isinstance(network, Adopted), "it has a source"
    if config.data.batching == "packed" or (config.data.batching == "auto" and network.config.model_type in PACKED):
        check_packing(network)


def make_deterministic(step: OptimizerStep) -> bool:
    """The same bits every time on a GPU, and from compiled code, whose threads would add an embedding's gradients in
    whatever order they come: torch then takes the backward passes that add in a fixed order.

    Flash attention has one, but only where torch is told to refuse everything else. So one sequence is tried that
    way; if something in it has none, torch only warns from then on, and False is returned. Weights, gradients and
    random states are afterwards as they were.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass over memory
    torch.use_deterministic_algorithms(True)
    before, model = randomness.state(), step.model
    inputs = {name: tensor.to(step.device) for name, tensor in model.one_sequence().items()}
    try:
        with precision.autocast(step.precision, step.device):
            hidden = model.hidden(**inputs).flatten(0, 1)  # (T, C)
        output = model.output()
        linear_cross_entropy(
            hidden,
            output.weight,
            torch.zeros(len(hidden), dtype=torch.int64, device=step.device),
            vocab_size=model.vocab_size,
            chunk=step.loss_chunk,
            bias=output.bias,
            cap=output.cap,
            dtype=step.dtype,
        ).backward()
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        torch.use_deterministic_algorithms(True, warn_only=True)
    model.zero_grad(set_to_none=True)
    randomness.restore(before)
    return not torch.is_deterministic_algorithms_warn_only_enabled()
