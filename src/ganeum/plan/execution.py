"""How a model is run, as far as memory and time depend on it: what for, how much at once, in what precision."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from ganeum.config.schema import Config, Lora, Train
from ganeum.config.zero import ENGINE
from ganeum.hardware.device import Device, Kind
from ganeum.plan.architecture import Architecture, configured
from ganeum.plan.examples import Rows, rows_of

Purpose = Literal["training", "evaluation", "inference", "generation"]
Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Weights = Literal["fp32", "bf16", "fp16", "int8", "nf4"]
Optimizer = Literal["adamw", "muon", "adamw8bit", "adafactor", "sgd"]
Kernel = Literal["flash", "efficient", "eager"]
Checkpointing = Literal["none", "selective", "whole"]
Offload = Literal["none", "optimizer", "optimizer_and_weights"]

LOSS_CHUNK: dict[Kind, int] = {"cpu": 512, "cuda": 2048, "mps": 2048}  # what `train.loss_chunk: auto` becomes


@dataclass(frozen=True)
class Execution:
    """One way to run a model.

    Attributes:
        purpose: training; evaluation (forward and loss, the optimizer's state in place); inference (forward alone, no
            optimizer); generation (inference token by token with a KV cache).
        micro_batch_size: sequences at once.
        length: tokens of a sequence of the decoder; in generation those of the prompt and the new ones together.
        source_length: tokens of a sequence of the encoder; 0 where there is none.
        accumulation: micro-batches a step.
        beams: hypotheses kept for each sequence in generation.
        kind: where it runs.
        precision: what products are computed in: autocast where it is narrower than ``weights``.
        weights: what the weights are kept in; int8 and nf4 are frozen under adapters (QLoRA).
        loss_chunk: rows of logits that exist at one time; None: all of them.
        attention: which kernel; ``eager`` keeps every weight of the T × T square.
        zero_stage: what DeepSpeed's ZeRO shares out among ``devices``: 1 the optimizer's state, 2 gradients, 3 weights.
        offload: what lies in the CPU's memory instead.
    """

    purpose: Purpose = "training"
    micro_batch_size: int = 1
    length: int = 1024
    source_length: int = 0
    accumulation: int = 1
    beams: int = 1
    kind: Kind = "cuda"
    precision: Precision = "bf16"
    weights: Weights = "fp32"
    optimizer: Optimizer = "adamw"
    momentum: float = 0.95
    checkpointing: Checkpointing = "none"
    attention: Kernel = "flash"
    loss_chunk: int | None = None
    compiled: bool = False
    lora: Lora = field(default_factory=Lora)
    zero_stage: int = 0
    offload: Offload = "none"
    devices: int = 1

    @property
    def half(self) -> bool:
        """Whether products are computed in two bytes."""
        return self.precision in ("bf16", "fp16")


def kernel(device: Device, precision: Precision, architecture: Architecture | None = None) -> Kernel:
    """What torch's attention runs on: flash is there from Ampere (8.0) on, for two bytes only, and takes no bias on the
    scores (T5's, ALiBi's). ``architecture``: None: a GPT of ours, which has none."""
    blocks = architecture.blocks if architecture else ()
    biased = any(own.positions in ("relative", "alibi") for block in blocks for own in block.attentions)
    ampere = device.kind == "cuda" and (device.capability or (8, 0)) >= (8, 0)
    return "flash" if ampere and precision in ("bf16", "fp16") and not biased else "efficient"


def of(config: Config, device: Device, micro_batch_size: int, *, purpose: Purpose = "training") -> Execution:
    """How ``config`` runs on ``device`` with so many sequences at once; ``auto`` counts as what it becomes there.

    Examples are as long as they may become, for that is what memory must hold.
    """
    train, architecture = config.train, None
    length, source_length, sequences = config.model.block_size, 0, train.batch_size
    if config.model.source is not None:
        architecture = configured.of(config)
        rows = rows_of(config, encoder_decoder=architecture.encoder_decoder)
        length, source_length, sequences = rows.target, rows.source, rows.sequences(config)
    precision: Precision = device.fast_precision if train.precision == "auto" else train.precision
    if train.precision == "auto" and train.weights == "bf16":
        precision = "bf16"
    return Execution(
        purpose=purpose,
        micro_batch_size=micro_batch_size,
        length=length,
        source_length=source_length,
        accumulation=max(1, sequences // micro_batch_size),
        kind=device.kind,
        precision=precision,
        weights=train.weights,
        optimizer=train.optimizer,
        momentum=train.momentum,
        checkpointing="none" if train.activation_checkpointing == "auto" else train.activation_checkpointing,
        attention=kernel(device, precision, architecture),
        loss_chunk=LOSS_CHUNK[device.kind] if train.loss_chunk == "auto" else train.loss_chunk,
        compiled=train.compile is True,
        lora=train.lora,
        offload=offload(train) if device.kind == "cuda" else "none",
        zero_stage=zero_stage(train),
    )


def offload(train: Train) -> Offload:
    """What ``train`` wants in the CPU's memory, where that is another than the device's."""
    if train.zero.stage == 3 and train.zero.weights_offload:
        return "optimizer_and_weights"
    return "optimizer" if train.optimizer_offload else "none"


def zero_stage(train: Train) -> int:
    """Of DeepSpeed's engine; 0 where our own step is taken."""
    return train.zero.stage if train.zero.stage >= ENGINE else 0


def usual(config: Config, device: Device, micro_batch_size: int) -> Execution:
    """As :func:`of`, with examples as long as they usually are: for what a step takes in time."""
    way = of(config, device, micro_batch_size)
    if config.model.source is None:
        return way
    return usually(way, rows_of(config, encoder_decoder=configured.of(config).encoder_decoder))


def usually(execution: Execution, rows: Rows) -> Execution:
    """The same with rows as they usually are, for what a step takes in time."""
    return replace(execution, length=max(1, round(rows.usual_target)), source_length=round(rows.usual_source))
