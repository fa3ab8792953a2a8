"""Runs to criticise, devices to criticise them on, and what one look sees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ganeum.config.schema import Config, Data, Model, Train
from ganeum.hardware.device import Device
from ganeum.plan import execution, flops, parameters
from ganeum.plan.architecture import ours
from ganeum.plan.critique import Facts, Warning
from ganeum.plan.lengths import lengths

Look = Callable[[Facts], Iterator[Warning]]
ROOT = Path(__file__).parents[2]

BOOK = Config(  # document 000's run
    name="one_book",
    model=Model(
        n_layer=12, n_head=12, n_embd=768, block_size=32, dropout=0.1, bias=True, qkv_bias=False, tie_embeddings=False,
        vocab_size=50_257,
    ),
    data=Data(directory="no/book", order="epochs", stride=4),
    train=Train(
        batch_size=128, micro_batch_size=128, epochs=20, learning_rate=4e-4, activation_checkpointing="none",
        precision="fp32",
    ),
)  # fmt: skip
SANE = Config(  # a 30M GPT on 600M new tokens
    model=Model(n_layer=6, n_head=6, n_embd=384, block_size=256, vocab_size=8_192),
    train=Train(
        batch_size=64, micro_batch_size=64, tokens=600e6, precision="bf16", activation_checkpointing="none",
    ),
)  # fmt: skip
TOKENS, PLENTY = 130_520, 600_000_000
GPU = Device(
    "a card", "cuda", 12.0, 11.4, {"fp32": 20e12, "tf32": 40e12, "fp16": 80e12, "bf16": 80e12}, "a data sheet",
    capability=(8, 6), memory_bandwidth_gb_s=800.0,
)  # fmt: skip
V100 = Device(
    "a V100", "cuda", 16.0, 15.2, {"fp32": 14e12, "fp16": 112e12}, "a data sheet",
    capability=(7, 0), memory_bandwidth_gb_s=900.0,
)  # fmt: skip
CPU = Device("a CPU", "cpu", 64.0, 50.0, {"fp32": 1e11}, "matrix products measured on this machine")


def facts(config: Config, device: Device = GPU, tokens: int | None = TOKENS, **more: Any) -> Facts:
    """The facts of a run whose vocabulary, micro-batch, precision and checkpointing are settled."""
    assert isinstance(config.train.micro_batch_size, int)
    way = execution.of(config, device, config.train.micro_batch_size)
    architecture = ours.architecture(config.model)
    work, length = flops.of(architecture, way), lengths(config, tokens)
    return Facts(
        architecture=architecture,
        execution=way,
        device=device,
        flops=work,
        steps=length.steps,
        config=config,
        parameters=parameters.of(architecture, config.train.lora),
        lengths=length,
        vocab_known=True,
        **more,
    )


def seen(look: Look, config: Config, device: Device = GPU, tokens: int | None = TOKENS, **more: Any) -> Warning:
    """The one thing that a look sees."""
    (warning,) = look(facts(config, device, tokens, **more))
    return warning


def silent(look: Look, config: Config, device: Device = GPU, tokens: int | None = TOKENS, **more: Any) -> bool:
    return not list(look(facts(config, device, tokens, **more)))
