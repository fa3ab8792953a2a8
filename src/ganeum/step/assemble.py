"""A model becomes what takes steps: its weights' scale and type, adapters, checkpointing, the optimizer."""

from __future__ import annotations

import torch

from ganeum.config import Config
from ganeum.models import adapters, checkpointing
from ganeum.models.network import Network
from ganeum.step import parametrization, rounding
from ganeum.step.optimizer_step import OptimizerStep


def prepare(model: Network, config: Config) -> Network:
    """``model``, freshly built, with what the config makes of it before its weights are loaded or learnt.

    Args:
        config: activation_checkpointing resolved.
    """
    train = config.train
    assert train.activation_checkpointing != "auto", "resolved before"
    parametrization.initialise(model, config.model, train)
    if train.weights == "bf16":
        rounding.to_bf16(model)
    adapters.attach(model, train.lora)
    checkpointing.apply(model.blocks, train.activation_checkpointing)
    return model


def assemble(model: Network, config: Config) -> OptimizerStep:
    """What takes steps with ``model``, which is prepared.

    Args:
        config: device, precision, compile and loss_chunk resolved.
    """
    train = config.train
    assert train.precision != "auto", "resolved before"
    assert train.compile != "auto", "resolved before"
    assert train.loss_chunk != "auto", "resolved before"
    return OptimizerStep(
        model,
        train,
        torch.device(config.device),
        precision=train.precision,
        compiled=train.compile,
        loss_chunk=train.loss_chunk,
    )
