"""What lies in memory from step to step: weights, gradients and the optimizer's state, and what an update needs.

Bytes on one device, and beside it on the host where something is offloaded. N weights of which all are trained, under
AdamW, take 16 N: 4 for the weight, 4 for its gradient, 8 for two moments; every lever below changes one of the three.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from ganeum.config.schema import Lora
from ganeum.plan.architecture import Architecture, Linear
from ganeum.plan.execution import Execution

Role = Literal["table", "matrix", "vector", "head", "adapter"]

# Numbers of step/optimizers.py, which cannot be imported without torch; a test holds them together.
PIECE, STACK = 1 << 20, 1 << 22

# AdamW in 8 bits: each moment one byte, and a scale in fp32 for every 256 (Dettmers et al. 2022, arXiv 2110.02861,
# section 2.1); the moments of fewer than 4,096 weights stay in fp32 (bitsandbytes' min_8bit_size, torchao's too).
EIGHT_BIT, EIGHT_BIT_LEAST = 2 * (1 + 4 / 256), 4_096

# A weight in NF4: 4 bits, and for every 64 a scale, itself in 8 bits with a scale in fp32 for every 256 of them
# (Dettmers et al. 2023, arXiv 2305.14314, section 3: 0.127 bits a weight).
NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True)
class State:
    """Bytes on one device.

    Attributes:
        weights: all of them, padding rows included; without autocast's copies, which come and go with activations.
        gradients: of the weights that are trained, once all are there.
        optimizer: what it remembers from update to update, and the fp32 weights behind half-precision ones (ZeRO).
        update: beside these, at an update's fullest moment; what our own optimizers need is in update.py.
        host: in the CPU's memory, of what is offloaded.
    """

    weights: float
    gradients: float
    optimizer: float
    update: float
    host: float = 0.0


@dataclass(frozen=True)
class Weight:
    """``count`` equal tensors of ``shape`` in one ``role``."""

    role: Role
    shape: tuple[int, ...]
    count: int = 1
    wide: bool = False  # in fp32 where others are not: T5's last matrix of the MLP in fp16, peft's adapters

    @property
    def each(self) -> int:
        """Numbers in one of them."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """Numbers in all of them."""
        return self.count * self.each


def of(architecture: Architecture, execution: Execution) -> State:
    """The state of a run. Evaluation between training steps keeps weights and optimizer; inference and generation the
    weights alone."""
    found = _zero(architecture, execution) if execution.zero_stage else _plain(architecture, execution)
    if execution.purpose == "training":
        return found
    if execution.purpose == "evaluation":
        return State(found.weights, 0.0, found.optimizer, 0.0, found.host)
    return State(found.weights, 0.0, 0.0, 0.0)


def weights(architecture: Architecture) -> tuple[Weight, ...]:
    """Every tensor of the model, equal ones together; tied ones once."""
    first, *others = architecture.tables
    found = [Weight("table", (max(first.rows, architecture.rows), first.width))]
    found += [Weight("table", (table.rows, table.width)) for table in others]
    for block in architecture.blocks:
        for linear in block.linears:
            wide = architecture.family in ("t5", "mt5", "umt5") and linear is block.mlp[-1]
            found.append(Weight("matrix", (linear.outputs, linear.inputs), block.count, wide))
            if linear.bias:
                found.append(Weight("vector", (linear.outputs,), block.count))
        for norm in (*block.norms, *(norm for attention in block.attentions for norm in attention.norms)):
            found.append(Weight("vector", (norm.width,), block.count * (1 + norm.bias)))
    found += [Weight("vector", (norm.width,), 1 + norm.bias) for norm in architecture.norms]
    found += [Weight("vector", (size,)) for _, size in architecture.extra]
    head = architecture.head
    if not architecture.tied:
        found.append(Weight("head", (max(head.outputs, architecture.rows), head.inputs)))
    if head.bias:
        found.append(Weight("vector", (head.outputs,)))
    return tuple(found)


def trained(architecture: Architecture, execution: Execution) -> tuple[Weight, ...]:
    """The tensors that training changes: all, or the adapters alone (Hu et al. 2021, arXiv 2106.09685)."""
    rank = execution.lora.rank
    if rank is None:
        return weights(architecture)
    return tuple(
        Weight("adapter", shape, count, architecture.implementation != "ganeum")
        for count, linear in _adapted(architecture, execution)
        for shape in ((rank, linear.inputs), (linear.outputs, rank))
    )


def largest(architecture: Architecture, lora: Lora) -> int:
    """Numbers in the largest tensor that training changes: what DeepSpeed's buckets are taken to hold."""
    return max(weight.each for weight in trained(architecture, Execution(lora=lora)))


def weight_bytes(weight: Weight, execution: Execution) -> float:
    """Bytes of one number of ``weight`` as it lies there.

    ``int8`` (Dettmers et al. 2022, arXiv 2208.07339) has a scale in fp32 for each row, ``nf4`` one for each 64
    numbers; only the blocks' matrices are quantized, the rest stays in half precision. Adapters on a frozen model in
    half precision or less are in fp32 (peft's ``autocast_adapter_dtype``); on one of ours in what its weights are in.
    """
    quantized = execution.weights in ("int8", "nf4")
    if execution.weights == "fp32" or (weight.role == "adapter" and (weight.wide or quantized)):
        return 4.0
    if weight.role == "matrix" and quantized:
        return NF4 if execution.weights == "nf4" else 1 + 4 / weight.shape[1]
    return 4.0 if weight.wide and execution.weights == "fp16" else 2.0


def state_bytes(weight: Weight, architecture: Architecture, execution: Execution) -> float:
    """The optimizer's memory of all of ``weight``.

    AdamW keeps two moments (Loshchilov and Hutter 2019, arXiv 1711.05101); Muon one for the blocks' matrices, and
    AdamW's two for the rest; SGD one where it has momentum; Adafactor a sum for each row and each column of a matrix,
    and a square for each number of a vector (Shazeer and Stern 2018, arXiv 1804.04235, section 3). Ours keep them in
    fp32; torch's own, which run Hugging Face's models, in what the weight is in, and Adafactor in fp32.
    """
    ours = architecture.implementation != "transformers"
    moment = 4.0 if ours or execution.optimizer == "adafactor" else weight_bytes(weight, execution)
    if execution.optimizer == "adafactor":
        return moment * weight.count * (sum(weight.shape) if len(weight.shape) == 2 else weight.each)
    if execution.optimizer == "sgd":
        return moment * weight.size if execution.momentum else 0.0
    if execution.optimizer == "muon" and weight.role in ("matrix", "adapter"):
        return moment * weight.size
    if execution.optimizer == "adamw8bit":
        # The Trainer tells bitsandbytes to leave embeddings alone.
        wide = weight.each < EIGHT_BIT_LEAST or (weight.role == "table" and not ours)
        return (8.0 if wide else EIGHT_BIT) * weight.size
    return 2 * moment * weight.size


def _adapted(architecture: Architecture, execution: Execution) -> Iterator[tuple[int, Linear]]:
    for block in architecture.blocks:
        for linear in block.linears:
            if execution.lora.targets == "all" or "attention" in linear.name:
                yield block.count, linear


def _plain(architecture: Architecture, execution: Execution) -> State:
    """One device, or several that each hold everything."""
    moved = trained(architecture, execution)
    kept = weights(architecture) + (moved if execution.lora.rank is not None else ())
    remembered = sum(state_bytes(weight, architecture, execution) for weight in moved)
    away = execution.offload != "none"
    return State(
        weights=sum(weight_bytes(weight, execution) * weight.size for weight in kept),
        gradients=sum(weight_bytes(weight, execution) * weight.size for weight in moved),
        optimizer=0.0 if away else remembered,
        update=_update(architecture, execution, moved),
        host=remembered if away else 0.0,
    )


def _update(architecture: Architecture, execution: Execution, moved: tuple[Weight, ...]) -> float:
    """What an update computes on the way, weight by weight, by the optimizers that move transformers' models: torch's
    fused AdamW and SGD and bitsandbytes' nothing; Adafactor two numbers in fp32, and of half-precision weights two
    more; torch's Muon one in fp32, and in bf16 two and three squares of the matrix's shorter side."""
    if architecture.implementation != "transformers":
        return 0.0
    if execution.optimizer == "adafactor":
        return (8.0 if execution.weights == "fp32" else 16.0) * max(weight.each for weight in moved)
    if execution.optimizer == "muon":
        matrices = [weight for weight in moved if weight.role in ("matrix", "adapter")]
        return max((8.0 * weight.each + 6.0 * min(weight.shape) ** 2 for weight in matrices), default=0.0)
    return 0.0


def _zero(architecture: Architecture, execution: Execution) -> State:
    """DeepSpeed's ZeRO: what each of ``devices`` would hold alike is shared out.

    In mixed precision N weights take 2 N, their gradients 2 N, and the optimizer 12 N with AdamW: the weights in fp32
    and two moments (Rajbhandari et al. 2020, arXiv 1910.02054, sections 3.1 and 5). Stage 1 divides the 12, stage 2
    the gradients too, stage 3 the weights too, of which a layer is gathered when it is its turn, and its gradient is
    computed whole: 4 bytes each for the largest (DeepSpeed, docs/code-docs/source/memory.rst). The update turns a
    device's gradients into fp32: 4 bytes each of its share, which take the place of stage 3's.

    Offloading the optimizer leaves its state, the fp32 weights and the gradients to the CPU (Ren et al. 2021, arXiv
    2101.06840, section 4: 2 N stay); a gradient is on the device on its way. Buckets are taken as no larger than that;
    `--emit deepspeed` writes them so.
    """
    moved, stage, share = trained(architecture, execution), execution.zero_stage, 1 / execution.devices
    every, largest = sum(weight.size for weight in moved), max(weight.each for weight in moved)
    wide = 2.0 if execution.half else 4.0
    remembered = sum(state_bytes(weight, architecture, replace(execution, weights="fp32")) for weight in moved)
    remembered += 4.0 * every  # DeepSpeed's copy in fp32, which it makes of weights in fp32 too
    frozen = sum(weight_bytes(weight, execution) * weight.size for weight in weights(architecture))
    held = wide * every if execution.lora.rank is None else frozen + wide * every
    gathered = 2 * wide * largest if stage == 3 else 0.0
    kept, gradients = (held * share if stage == 3 else held), (wide * every * share if stage >= 2 else wide * every)
    if execution.offload == "none":
        in_fp32 = 4.0 * every * share * execution.half
        return State(kept + gathered, gradients, remembered * share, in_fp32 - (stage == 3) * in_fp32 / 2)
    host = remembered + 4.0 * every
    if execution.offload == "optimizer_and_weights" and stage == 3:
        return State(gathered, 0.0, 0.0, 0.0, host + held)
    return State(kept + gathered, 0.0 if stage == 3 else wide * largest, 0.0, 0.0, host)
