"""A step as amounts of a few kinds of work, whose rates one machine can be asked for by a short measurement.

A :class:`Load` is one module's forward or backward pass, or the update: how often it runs, and how much of each kind
of work is in it. ``train/calibrate.py`` times the same modules at a few sizes and fits what one unit of each kind
costs; multiplied with these amounts that is a step's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear
from ganeum.plan.execution import LOSS_CHUNK, Execution

OWN_KERNEL, QUERIES = 1024, 64  # models/cpu_attention.py: up to this context, in blocks of so many queries
NEAR = 8 * 2**20  # bytes of a chunk's logits that a processor's caches may still hold between two passes over them
# Which part of a StepTime a kind of work belongs to.
PART = {
    "flops": "matmul",
    "weights": "elementwise",
    "numbers": "elementwise",
    "square": "attention",
    "square flops": "attention",
    "turns": "attention",
    "logits": "loss",
    "far logits": "loss",
    "calls": "launches",
}


@dataclass(frozen=True)
class Load:
    """One module's work in one direction.

    Attributes:
        group: what is measured together, ``bf16 plain attention forward``.
        amounts: kind of work → how much of it is in one call: ``calls`` 1, ``flops`` of products, ``numbers`` of the
            stream that passes go over, ``weights`` (cast, read once), ``square`` attention weights and their products'
            ``square flops``, ``turns`` of a kernel's loop, ``logits`` and those of them that no cache holds (``far
            logits``, ``far weights``).
        times: calls in a step.
        part: where all of it belongs, unless each kind is told apart by :data:`PART`.
    """

    group: str
    amounts: dict[str, float]
    times: float = 1.0
    part: str | None = None


def of(architecture: Architecture, execution: Execution) -> list[Load]:
    """All of one training step; for any other purpose one forward pass over a micro-batch. ``step`` is what holds a
    micro-batch together: Python, the last norm, the loss handed on."""
    training = execution.purpose == "training"
    micro = execution.accumulation if training else 1
    found = [Load(one.group, one.amounts, one.times * micro, one.part) for one in _micro_batch(architecture, execution)]
    if training:
        found.append(Load("step", {"calls": 1.0}, micro))
        found.append(update(architecture, execution))
        if micro > 1:
            found.append(Load("accumulate", {"weights": _trained(architecture, execution)}, micro - 1))
    return found


def _micro_batch(architecture: Architecture, execution: Execution) -> Iterator[Load]:
    training = execution.purpose == "training"
    directions = ("forward", "backward") if training else ("forward",)
    for block in architecture.blocks:
        dropped = training and architecture.dropout > 0 and execution.kind == "cpu"
        halves = {
            "dropped attention" if dropped else "attention": attention_half(block, execution, dropped=dropped),
            "mlp": mlp_half(block, execution),
        }
        for name, amounts in halves.items():
            for direction in directions:
                yield Load(group(block, execution, name, direction), amounts, block.count)
        if dropped:
            numbers = tokens(block, execution) * block.width
            yield Load("dropout", {"calls": 1.0, "numbers": numbers}, block.count)
        if training and execution.checkpointing != "none":
            again = halves if execution.checkpointing == "whole" else {"mlp": halves["mlp"]}
            for name, amounts in again.items():
                if name == "mlp":  # stopped before its last product
                    rows = tokens(block, execution)
                    amounts = amounts | {"flops": amounts["flops"] - 2 * rows * block.mlp[-1].weights}
                yield Load(group(block, execution, name, "forward"), amounts, block.count)
    yield embedding(architecture, execution)
    if execution.purpose in ("training", "evaluation"):
        yield loss(architecture, execution)


def group(block: Block, execution: Execution, half: str, direction: str) -> str:
    """The name that a half of a block is measured under: ``plain`` with LayerNorm and one product up, ``modern`` with
    RMSNorm, rotary positions and a gate. ``dropped``: with dropout, for which a CPU takes torch's own attention."""
    modern = block.gated if half == "mlp" else block.attentions[0].positions == "rotary"
    return f"{_format(execution)} {'modern' if modern else 'plain'} {half} {direction}"


def _format(execution: Execution) -> str:
    return "fp32" if execution.kind == "cpu" and execution.precision == "tf32" else execution.precision


def tokens(block: Block, execution: Execution) -> float:
    """Of a micro-batch, as many as go through the block."""
    return execution.micro_batch_size * (execution.source_length if block.stream == "encoder" else execution.length)


def attention_half(block: Block, execution: Execution, *, dropped: bool = False) -> dict[str, float]:
    """Norm, queries, keys and values, attention, output layer and the sum with the stream, of all its attentions."""
    rows = tokens(block, execution)
    amounts = {"calls": 0.0, "flops": 0.0, "numbers": 0.0, "weights": 0.0}
    amounts |= {"square": 0.0, "square flops": 0.0, "turns": 0.0}
    for attention in block.attentions:
        keys = execution.micro_batch_size * execution.source_length if attention.across else rows
        square, turns = _square(attention, execution, rows, keys)
        if dropped:  # plain products over the whole square
            square, turns = rows * attention.heads * keys / execution.micro_batch_size, 0.0
        amounts["calls"] += 1
        amounts["flops"] += sum(2 * rows * linear.weights for linear in attention.linears)
        amounts["numbers"] += rows * (block.width + attention.queries + attention.keys)
        amounts["weights"] += sum(linear.size for linear in attention.linears)
        amounts["square"] += square
        amounts["square flops"] += 4 * square * attention.head_dim
        amounts["turns"] += turns
    return amounts


def _square(attention: Attention, execution: Execution, rows: float, keys: float) -> tuple[float, float]:
    """Attention weights that are computed, and turns of the loop over blocks of queries."""
    queries, seen = rows / execution.micro_batch_size, keys / execution.micro_batch_size
    block = min(QUERIES, queries)
    if attention.causal and not attention.across and queries <= OWN_KERNEL:
        seen = (seen + block) / 2
    return execution.micro_batch_size * attention.heads * queries * seen, queries / block


def mlp_half(block: Block, execution: Execution) -> dict[str, float]:
    """Norm, the products up and down with the activation between, and the sum with the stream."""
    rows = tokens(block, execution)
    return {
        "calls": 1.0,
        "flops": 2 * rows * sum(linear.weights for linear in block.mlp),
        "numbers": rows * (block.width + block.inside),
        "weights": float(sum(linear.size for linear in block.mlp)),
    }


def embedding(architecture: Architecture, execution: Execution) -> Load:
    """Looked up; and backward a gradient as large as the table."""
    rows, table = execution.micro_batch_size * execution.length, architecture.tables[0]
    way = "training" if execution.purpose == "training" else "forward"
    size = (architecture.rows or table.rows) * table.width
    amounts = {"calls": 1.0, "numbers": float(rows * table.width), "weights": float(size)}
    return Load(f"embedding {way}", amounts)


def loss(architecture: Architecture, execution: Execution) -> Load:
    """The output layer and cross-entropy, chunk by chunk; in training with both gradients."""
    rows, way = execution.micro_batch_size * execution.length, execution.purpose
    V, C = architecture.rows or architecture.vocab_size, architecture.width
    chunks = max(1.0, rows / (execution.loss_chunk or LOSS_CHUNK[execution.kind]))
    far = max(0.0, 1 - NEAR * chunks / (4.0 * rows * V))
    amounts = {
        "calls": chunks,
        "logits": float(rows * V),
        "far logits": far * rows * V,
        "flops": 2.0 * rows * V * C * (3 if way == "training" else 1),
        "weights": chunks * V * C,
    }
    return Load(f"{_format(execution)} loss {way}", amounts, part="loss")


def update(architecture: Architecture, execution: Execution) -> Load:
    """Clipping and the optimizer."""
    weights = _trained(architecture, execution)
    matrices = [(linear, block.count) for block in architecture.blocks for linear in block.linears]
    parameters = float(sum(count for _, count in matrices) + len(architecture.tables) + (not architecture.tied))
    parameters += sum(2 * block.count for block in architecture.blocks) + 1  # norms
    name = f"update {execution.optimizer}"
    if execution.optimizer == "adamw" and execution.weights != "fp32":
        name += " by pieces"
    amounts = {"calls": parameters, "weights": weights}
    if execution.optimizer == "muon":
        amounts["flops"] = sum(count * _newton_schulz(linear) for linear, count in matrices)
        name = f"{_format(execution)} {name}"
    if execution.optimizer == "adafactor":  # takes each matrix as a whole
        sizes = [(linear.weights, block.count) for block in architecture.blocks for linear in block.linears]
        sizes += [(table.size, 1) for table in architecture.tables]
        amounts["far weights"] = float(sum(count * max(0, size - NEAR // 8) for size, count in sizes))
    return Load(name, amounts, part="optimizer")


def _newton_schulz(linear: Linear) -> float:
    """FLOPs of five steps, each three products; queries, keys and values are matrices of their own."""
    parts = 3 if linear.name.endswith("qkv") else 1
    short, long = sorted((float(linear.inputs), linear.outputs / parts))
    return parts * 5 * 2.0 * (2 * short * short * long + short**3)


def _trained(architecture: Architecture, execution: Execution) -> float:
    """Weights that have a gradient."""
    linears = [(linear, block.count) for block in architecture.blocks for linear in block.linears]
    if execution.lora.rank is not None:
        return float(execution.lora.rank * sum((one.inputs + one.outputs) * count for one, count in linears))
    tables = sum(table.size for table in architecture.tables) + (0 if architecture.tied else architecture.head.size)
    return float(sum(one.size * count for one, count in linears) + tables)
