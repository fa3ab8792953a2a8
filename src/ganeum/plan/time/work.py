"""What a GPU does in a step, piece by piece: matrix products with their sizes, and passes over memory with their bytes.

Nothing here knows a rate; :mod:`ganeum.plan.time.roofline` says how long a piece takes. The pieces are those of the
code that runs (models/gpt.py, step/loss.py, step/optimizers.py). Bytes are counted kernel by kernel: what each reads
and writes of a number in the format it has there, under autocast 4 bytes on the residual stream and 2 in products.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear
from ganeum.plan.execution import Execution

Part = Literal["matmul", "attention", "elementwise", "loss", "optimizer", "data"]
PIECE = 1 << 20  # step/optimizers.py: weights that a rule takes at one time


class Product(NamedTuple):  # and no dataclass, because a search makes a million of them
    """``batch`` products of (rows × inner) and (inner × columns), ``times`` in a step."""

    part: Part
    rows: float
    inner: float
    columns: float
    times: float = 1.0
    batch: float = 1.0

    @property
    def flops(self) -> float:
        """Of one of the ``times``."""
        return 2.0 * self.batch * self.rows * self.inner * self.columns

    @property
    def numbers(self) -> float:
        """Read and written by one of the ``times``."""
        return self.batch * (self.rows * self.inner + self.inner * self.columns + self.rows * self.columns)


class Pass(NamedTuple):
    """Something done to each of ``numbers`` numbers, ``times`` in a step.

    Attributes:
        bytes: read and written for each number by torch's own operators.
        fused: the same in compiled code, where neighbours become one kernel.
        kernels: started for it by torch's own operators.
    """

    part: Part
    numbers: float
    bytes: float
    fused: float
    kernels: float = 1.0
    times: float = 1.0


Piece = Product | Pass


def of(architecture: Architecture, execution: Execution) -> Iterator[tuple[Piece, float]]:
    """Everything that one step does, each piece with how often; for any purpose but training, one forward pass over a
    micro-batch."""
    training = execution.purpose == "training"
    micro = float(execution.accumulation) if training else 1.0
    for block in architecture.blocks:
        for piece in _block(block, architecture, execution):
            yield piece, block.count * micro
    for piece in _around(architecture, execution):
        yield piece, micro
    for piece in _loss(architecture, execution):
        yield piece, micro
    if training:
        shared = 1.0 / execution.devices if execution.zero_stage else 1.0  # ZeRO: each device updates its share
        for piece in _optimizer(architecture, execution):
            yield piece, shared


def operators(architecture: Architecture, execution: Execution) -> float:
    """Operators that torch starts in a step, none of them compiled into another."""
    pieces = of(architecture, execution)
    return sum((1.0 if isinstance(one, Product) else one.kernels) * one.times * often for one, often in pieces)


def _block(block: Block, architecture: Architecture, execution: Execution) -> list[Piece]:
    """One layer, forward and in training backward, with what activation checkpointing computes again: it stops before
    ``mlp.down``, whose output nobody needs twice (models/checkpointing.py)."""
    attention = [piece for one in block.attentions for piece in _attention(one, block, architecture, execution)]
    mlp = list(_mlp(block, architecture, execution))
    done = [*attention, *mlp]
    if execution.purpose != "training":
        return [piece for piece, backward in done if not backward]
    again = {"none": [], "selective": mlp, "whole": done}[execution.checkpointing]
    down = (block.mlp[-1].inputs, block.mlp[-1].outputs)
    repeated = [
        piece
        for piece, backward in again
        if not backward and not (isinstance(piece, Product) and (piece.inner, piece.columns) == down)
    ]
    return [piece for piece, _ in done] + repeated


Marked = tuple[Piece, bool]  # a piece, and whether it belongs to the backward pass


def _tokens(block: Block, execution: Execution) -> float:
    return execution.micro_batch_size * (execution.source_length if block.stream == "encoder" else execution.length)


def _width(execution: Execution) -> float:
    """Bytes of a number in a product."""
    return 2.0 if execution.half or execution.weights != "fp32" else 4.0


def _linear(linear: Linear, rows: float, execution: Execution, *, wide_input: bool) -> Iterator[Marked]:
    """A layer's product, and backward one for its input's gradient and one for its weight's. Under autocast weights are
    cast for every micro-batch, and what comes from the residual stream with them (``wide_input``)."""
    cast, rank = execution.half and execution.weights == "fp32", execution.lora.rank
    yield Product("matmul", rows, linear.inputs, linear.outputs), False
    yield Product("matmul", rows, linear.outputs, linear.inputs), True
    if rank is None:
        yield Product("matmul", linear.outputs, rows, linear.inputs), True
        if execution.accumulation > 1:  # added to the gradient of the micro-batches before
            yield Pass("elementwise", linear.weights, 12.0, 12.0), True
    else:
        for before, after in ((linear.inputs, rank), (rank, linear.outputs)):
            yield Product("matmul", rows, before, after), False
            yield Product("matmul", rows, after, before), True
            yield Product("matmul", after, rows, before), True
    if cast:
        yield Pass("elementwise", linear.weights, 6.0, 6.0), False
        if rank is None:
            yield Pass("elementwise", linear.weights, 6.0, 6.0), True
        if wide_input:
            yield Pass("elementwise", rows * linear.inputs, 6.0, 2.0), False
            yield Pass("elementwise", rows * linear.inputs, 6.0, 2.0), True
    if linear.bias:
        yield Pass("elementwise", rows * linear.outputs, _width(execution), _width(execution)), True


def _norm(numbers: float) -> Iterator[Marked]:
    yield Pass("elementwise", numbers, 8.0, 4.0), False
    yield Pass("elementwise", numbers, 12.0, 8.0, kernels=3), True


def _sum(numbers: float, architecture: Architecture, execution: Execution) -> Iterator[Marked]:
    """The sum with the residual stream; backward, that stream's gradient is a sum of two, and goes into the layer in
    the layer's format. Before it the dropout, which keeps a byte a number."""
    width = _width(execution)
    yield Pass("elementwise", numbers, 8.0 + width, 8.0), False
    yield Pass("elementwise", numbers, 12.0 + (6.0 if width == 2 else 0.0), 8.0, kernels=2), True
    if architecture.dropout and execution.purpose == "training":
        yield Pass("elementwise", numbers, 2 * width + 1, 1.0), False
        yield Pass("elementwise", numbers, 2 * width + 1, 1.0), True


def _attention(
    attention: Attention, block: Block, architecture: Architecture, execution: Execution
) -> Iterator[Marked]:
    rows = _tokens(block, execution)
    keys = execution.micro_batch_size * execution.source_length if attention.across else rows
    yield from _norm(rows * block.width)
    last = len(attention.linears) - 1
    for index, linear in enumerate(attention.linears):
        of_keys = attention.across and 0 < index < last
        yield from _linear(linear, keys if of_keys else rows, execution, wide_input=index < last)
    if attention.positions == "rotary":
        turned, wide = rows * (attention.queries + attention.keys), 40.0 if attention.norms else 24.0
        yield Pass("elementwise", turned, wide, 6.0, kernels=14), False
        yield Pass("elementwise", turned, 1.5 * wide, 8.0, kernels=20), True
    yield from _scores(attention, architecture, execution, rows, keys)
    yield from _sum(rows * block.width, architecture, execution)


def _scores(
    attention: Attention, architecture: Architecture, execution: Execution, rows: float, keys: float
) -> Iterator[Marked]:
    """Queries meet keys and weights meet values: two products forward, four backward, and one more where a kernel that
    keeps no weights makes them again. Such a kernel leaves the masked half out; eager attention passes over the whole
    square: scores, scale, mask, softmax in fp32, dropout."""
    B, H, D, width = execution.micro_batch_size, attention.heads, attention.head_dim, _width(execution)
    T, S = rows / B, keys / B
    eager = execution.attention == "eager"
    share = 0.5 if attention.causal and not attention.across and not eager else 1.0
    yield Product("attention", T, D, S * share, times=2.0, batch=B * H), False
    yield Product("attention", T, D, S * share, times=4.0 if eager else 5.0, batch=B * H), True
    if eager:
        square, dropped = B * H * T * S, 3 * width if architecture.dropout else 0.0
        yield Pass("attention", square, 4 * width + 24.0 + dropped, 2 * width, kernels=5), False
        yield Pass("attention", square, 4 * width + 24.0 + dropped, 3 * width, kernels=5), True
    else:
        moved = rows * attention.queries + 2 * keys * attention.keys
        yield Pass("attention", moved, 2 * width, width, kernels=2), False
        yield Pass("attention", moved, 4 * width, 2 * width, kernels=4), True


def _mlp(block: Block, architecture: Architecture, execution: Execution) -> Iterator[Marked]:
    rows, width = _tokens(block, execution), _width(execution)
    if not block.parallel:
        yield from _norm(rows * block.width)
    for linear in block.mlp:
        yield from _linear(linear, rows, execution, wide_input=linear is not block.mlp[-1])
    inside = rows * block.inside
    if block.gated:  # SiLU, and the product with what it gates
        yield Pass("elementwise", inside, 5 * width, 3 * width, kernels=2), False
        yield Pass("elementwise", inside, 8 * width, 5 * width, kernels=3), True
    else:
        yield Pass("elementwise", inside, 2 * width, 2 * width), False
        yield Pass("elementwise", inside, 3 * width, 3 * width), True
    yield from _sum(rows * block.width, architecture, execution)


def _around(architecture: Architecture, execution: Execution) -> Iterator[Piece]:
    """Embeddings, the last norm, and the tokens' way to the device. A table's gradient is as large as the table."""
    training = execution.purpose == "training"
    rows, width = float(execution.micro_batch_size * execution.length), architecture.width
    yield Pass("data", rows, 16.0, 16.0, kernels=2)
    yield Pass("elementwise", rows * width, 16.0, 12.0, kernels=3)
    for piece, backward in _norm(rows * width):
        if training or not backward:
            yield piece
    if training and execution.lora.rank is None:
        yield Pass("elementwise", rows * width, 20.0, 16.0, kernels=3)
        yield Pass("elementwise", architecture.tables[0].size, 12.0, 12.0, kernels=2)


def _loss(architecture: Architecture, execution: Execution) -> Iterator[Piece]:
    """step/loss.py: chunk by chunk the logits, their softmax in fp32, and in training both gradients at once."""
    if execution.purpose in ("inference", "generation"):
        return
    training, width = execution.purpose == "training", _width(execution)
    rows = float(execution.micro_batch_size * execution.length)
    chunk = min(rows, execution.loss_chunk or rows)
    chunks, V, C = rows / chunk, architecture.rows or architecture.vocab_size, architecture.width
    yield Product("loss", chunk, C, V, times=chunks)
    yield Pass("loss", chunk * V, 10.0 + 2 * width, 8.0, kernels=9, times=chunks)
    if training:
        yield Product("loss", chunk, V, C, times=chunks)
        yield Pass("loss", chunk * V, 8.0 + width, 4.0, kernels=9, times=chunks)
        if execution.lora.rank is None:
            yield Product("loss", V, chunk, C, times=chunks)
            yield Pass("loss", V * C, 10.0 + 2 * width, 10.0 + 2 * width, kernels=3, times=chunks)


# Optimizer → bytes read and written for each weight, kernels for each piece; rules are made of plain operators.
RULES = {"adamw8bit": (90.0, 40), "adafactor": (60.0, 30), "sgd": (48.0, 10), "adamw": (90.0, 30)}
FUSED_BYTES = 28.0  # weight, gradient, two moments read; all but the gradient written


def _optimizer(architecture: Architecture, execution: Execution) -> Iterator[Piece]:
    """Clipping and the update: each weight, its gradient and its state."""
    matrices = [(linear, float(block.count)) for block in architecture.blocks for linear in block.linears]
    inside = sum(linear.size * count for linear, count in matrices)
    around = sum(table.size for table in architecture.tables) + (0 if architecture.tied else architecture.head.size)
    tensors = sum(count * (1 + linear.bias) for linear, count in matrices) + 2 * architecture.layers
    every = inside + around
    if execution.lora.rank is not None:
        inside = sum(execution.lora.rank * (linear.inputs + linear.outputs) * count for linear, count in matrices)
        every, tensors = inside, 2 * sum(count for _, count in matrices)
    yield Pass("optimizer", every, 4.0, 4.0, kernels=8)
    if execution.optimizer == "muon":
        yield from _muon(matrices)
        every -= inside
    if execution.optimizer in ("adamw", "muon") and execution.weights == "fp32" and execution.offload == "none":
        yield Pass("optimizer", every, FUSED_BYTES, FUSED_BYTES, kernels=4)
        return
    moved, kernels = RULES["adamw" if execution.optimizer == "muon" else execution.optimizer]
    pieces = max(tensors, every / PIECE)
    yield Pass("optimizer", every / pieces, moved, moved, kernels=kernels, times=pieces)


def _muon(matrices: list[tuple[Linear, float]]) -> Iterator[Piece]:
    """step/rules.py: five Newton–Schulz steps on every matrix; queries, keys and values are three."""
    for linear, count in matrices:
        parts = 3.0 if linear.name.endswith("qkv") else 1.0
        short, long = sorted((float(linear.inputs), linear.outputs / parts))
        for inner, columns in ((long, short), (short, short), (short, long)):
            yield Product("optimizer", short, inner, columns, times=5.0, batch=count * parts)
        yield Pass("optimizer", linear.weights * count, 100.0, 100.0, kernels=30)
