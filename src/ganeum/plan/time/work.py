"""What a step does, piece by piece: matrix products with their sizes, and passes over memory, each so many times.

Nothing here knows a rate; :mod:`ganeum.plan.time.roofline` and :mod:`ganeum.plan.time.measured` say how long a piece
takes. The pieces are those of the code that runs (models/gpt.py, step/loss.py, step/optimizers.py), forward and
backward apart, so that what checkpointing computes again, or what an evaluation leaves out, is counted as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear
from ganeum.plan.execution import LOSS_CHUNK, Execution

Part = Literal["matmul", "attention", "elementwise", "loss", "optimizer", "data"]

OWN_KERNEL, QUERIES = 1024, 64  # models/cpu_attention.py: up to this context, in blocks of so many queries


@dataclass(frozen=True)
class Product:
    """``batch`` products of (rows × inner) and (inner × columns), ``times`` in a step.

    ``role``: what it is of a layer: ``forward``, the gradient of its ``input`` or of its ``weight``; or ``batched``.
    """

    part: Part
    rows: float
    inner: float
    columns: float
    times: float = 1.0
    batch: float = 1.0
    role: Literal["forward", "input", "weight", "batched"] = "forward"

    @property
    def flops(self) -> float:
        """Of one of the ``times``."""
        return 2.0 * self.batch * self.rows * self.inner * self.columns

    @property
    def numbers(self) -> float:
        """Read and written by one of the ``times``."""
        return self.batch * (self.rows * self.inner + self.inner * self.columns + self.rows * self.columns)


@dataclass(frozen=True)
class Pass:
    """Something done to each of ``numbers`` numbers, ``times`` in a step.

    Attributes:
        what: which measured rate it goes by on a CPU.
        bytes: read and written for each number on a GPU, by kernels that are not fused.
        fused: the same when compiled.
        kernels: started for it when not compiled; compiled it is one, or none where it joins its neighbour.
    """

    part: Part
    what: str
    numbers: float
    times: float = 1.0
    bytes: float = 8.0
    fused: float = 8.0
    kernels: int = 1


Piece = Product | Pass


def of(architecture: Architecture, execution: Execution) -> list[Piece]:
    """Everything that one step does; for any purpose but training, one forward pass over a micro-batch."""
    training = execution.purpose == "training"
    micro = execution.accumulation if training else 1
    pieces = [_times(piece, micro) for piece in _micro_batch(architecture, execution)]
    if training:
        pieces += optimizer(architecture, execution)
    return pieces


def _times(piece: Piece, times: float) -> Piece:
    return replace(piece, times=piece.times * times)


def _micro_batch(architecture: Architecture, execution: Execution) -> Iterator[Piece]:
    training = execution.purpose == "training"
    wide = 4.0 if execution.weights == "fp32" else 2.0
    for block in architecture.blocks:
        rows = tokens(execution, block)
        done = [*_attentions(block, execution), *_mlp(block, execution, rows)]
        forward = [piece for piece, backward in done if not backward]
        for piece in forward:
            yield _times(piece, block.count)
        if training:
            for piece, backward in done:
                if backward:
                    yield _times(piece, block.count)
            for piece in _again(block, execution, rows, forward):
                yield _times(piece, block.count)
    decoder = execution.micro_batch_size * execution.length
    width = architecture.width
    yield Pass("elementwise", "embedding forward", decoder * width, bytes=16.0, fused=12.0, kernels=3)
    if training and execution.lora.rank is None:
        table = architecture.tables[0].size
        yield Pass("elementwise", "embedding backward", decoder * width, bytes=20.0, fused=16.0, kernels=3)
        yield Pass("elementwise", "table", table, bytes=2 * wide, fused=2 * wide, kernels=2)
    if execution.half and execution.weights == "fp32":
        matrices = sum(block.count * sum(linear.weights for linear in block.linears) for block in architecture.blocks)
        layers = sum(block.count * len(block.linears) for block in architecture.blocks)
        yield Pass("elementwise", "cast", matrices / layers, times=layers, bytes=6.0, fused=6.0)
        if training and execution.lora.rank is None:
            yield Pass("elementwise", "cast back", matrices / layers, times=layers, bytes=6.0, fused=6.0)
    if training and execution.accumulation > 1 and execution.lora.rank is None:
        each = sum(block.count * sum(linear.size for linear in block.linears) for block in architecture.blocks)
        layers = sum(block.count * len(block.linears) for block in architecture.blocks)
        share = (execution.accumulation - 1) / execution.accumulation
        yield Pass("elementwise", "accumulate", each / layers, times=layers * share, bytes=3 * wide, fused=3 * wide)
    yield from _norm(architecture.norms[-1].mean, decoder * width, training)
    yield from loss(architecture, execution)
    yield Pass("data", "data", decoder, bytes=16.0, fused=16.0, kernels=2)


def tokens(execution: Execution, block: Block) -> float:
    """Tokens of a micro-batch that go through a block."""
    return execution.micro_batch_size * (execution.source_length if block.stream == "encoder" else execution.length)


Marked = tuple[Piece, bool]  # a piece, and whether it belongs to the backward pass


def _linear(linear: Linear, rows: float, execution: Execution, cast: bool) -> Iterator[Marked]:
    """One layer's product, and in the backward pass one for its input's gradient and one for its weight's."""
    yield Product("matmul", rows, linear.inputs, linear.outputs), False
    yield Product("matmul", rows, linear.outputs, linear.inputs, role="input"), True
    if execution.lora.rank is None:
        yield Product("matmul", linear.outputs, rows, linear.inputs, role="weight"), True
    else:
        rank = execution.lora.rank
        for before, after in ((linear.inputs, rank), (rank, linear.outputs)):
            yield Product("matmul", rows, before, after), False
            yield Product("matmul", rows, after, before, role="input"), True
            yield Product("matmul", after, rows, before, role="weight"), True
    if cast and execution.half and execution.weights == "fp32":
        yield Pass("elementwise", "cast", rows * linear.inputs, bytes=6.0, fused=2.0), False
        yield Pass("elementwise", "cast back", rows * linear.inputs, bytes=6.0, fused=2.0), True
    if linear.bias:
        yield Pass("elementwise", "bias backward", rows * linear.outputs, bytes=2.0 if execution.half else 4.0), True


def _norm(mean: bool, numbers: float, training: bool) -> Iterator[Piece]:
    what = "layer norm" if mean else "rms norm"
    yield Pass("elementwise", f"{what} forward", numbers, bytes=8.0, fused=4.0, kernels=1)
    if training:
        yield Pass("elementwise", f"{what} backward", numbers, bytes=12.0, fused=8.0, kernels=3)


def _residual(rows: float, block: Block, execution: Execution) -> Iterator[Marked]:
    """The sum with the residual stream (fp32 and what the layer gave); backward its gradient is the sum of two, and
    goes into the layer in the layer's precision."""
    numbers, half = rows * block.width, execution.half
    yield Pass("elementwise", "residual forward", numbers, bytes=10.0 if half else 12.0, fused=8.0), False
    yield Pass("elementwise", "residual backward", numbers, bytes=18.0 if half else 12.0, fused=8.0, kernels=2), True
    # dropout's own: numbers and mask


def _attentions(block: Block, execution: Execution) -> Iterator[Marked]:
    for attention in block.attentions:
        rows = tokens(execution, block)
        keys = execution.micro_batch_size * execution.source_length if attention.across else rows
        for norm in block.norms[:1]:
            for piece in _norm(norm.mean, rows * block.width, True):
                yield piece, piece_is_backward(piece)
        for linear in attention.linears:
            across = attention.across and any(word in linear.name for word in ("key", "value", ".k", ".v"))
            yield from _linear(linear, keys if across else rows, execution, cast=not linear.name.endswith("out"))
        yield from scores(attention, execution, rows, keys)
        yield from _residual(rows, block, execution)


def piece_is_backward(piece: Piece) -> bool:
    """By its name."""
    return isinstance(piece, Pass) and piece.what.endswith("backward")


def scores(attention: Attention, execution: Execution, rows: float, keys: float) -> Iterator[Marked]:
    """Queries meet keys, and the weights meet values: two products forward, four backward, and a softmax between."""
    B, H, D = execution.micro_batch_size, attention.heads, attention.head_dim
    T, S = rows / B, keys / B
    turned = rows * attention.queries + keys * attention.keys
    if attention.positions == "rotary":
        wide = 40.0 if attention.norms else 24.0
        yield Pass("elementwise", "rotary forward", turned, bytes=wide, fused=6.0, kernels=14), False
        yield Pass("elementwise", "rotary backward", turned, bytes=1.5 * wide, fused=8.0, kernels=20), True
    moved = rows * attention.queries + 2 * keys * attention.keys
    if execution.kind == "cpu":
        yield from _in_blocks(attention, B, T, S, moved)
        return
    half = 2.0 if execution.half else 4.0
    eager = execution.attention == "eager"
    share = 0.5 if attention.causal and not eager and not attention.across else 1.0
    for times, backward in ((2.0, False), (4.0 if eager else 5.0, True)):
        yield (
            Product("attention", T, D, S * share, times=times, batch=B * H, role="batched"),
            backward,
        )
    if eager:
        square = B * H * T * S
        yield Pass("attention", "softmax forward", square, bytes=4 * half + 24.0, fused=2 * half, kernels=5), False
        yield Pass("attention", "softmax backward", square, bytes=4 * half + 24.0, fused=3 * half, kernels=5), True
    else:
        yield Pass("attention", "attention copies", moved, bytes=2 * half, fused=half, kernels=2), False
        yield Pass("attention", "attention copies", moved, bytes=4 * half, fused=2 * half, kernels=4), True


def _in_blocks(attention: Attention, B: float, T: float, S: float, moved: float) -> Iterator[Marked]:
    """models/cpu_attention.py: blocks of queries, each against the keys up to its end."""
    R, G, D = B * attention.kv_heads, attention.heads / attention.kv_heads, attention.head_dim
    blocks = max(1.0, T / QUERIES)
    rows, seen = min(T, QUERIES) * G, (S + min(T, QUERIES)) / 2 if attention.causal and not attention.across else S
    square = R * rows * seen
    for times, backward in ((2.0, False), (4.0, True)):
        yield Product("attention", rows, D, seen, times=times * blocks, batch=R, role="batched"), backward
    yield Pass("attention", "softmax forward", square, times=blocks), False
    yield Pass("attention", "softmax backward", square, times=blocks), True
    yield Pass("attention", "attention copies forward", moved), False
    yield Pass("attention", "attention copies backward", moved), True


def _mlp(block: Block, execution: Execution, rows: float) -> Iterator[Marked]:
    if not block.parallel:
        for piece in _norm(block.norms[-1].mean, rows * block.width, True):
            yield piece, piece_is_backward(piece)
    for linear in block.mlp:
        yield from _linear(linear, rows, execution, cast=linear is not block.mlp[-1])
    wide = 2.0 if execution.half else 4.0
    kind, numbers = "gated" if block.gated else "gelu", rows * block.inside
    forward, backward = (5 * wide, 8 * wide) if block.gated else (2 * wide, 3 * wide)
    fused = 3 * wide if block.gated else 2 * wide
    yield (
        Pass("elementwise", f"{kind} forward", numbers, bytes=forward, fused=fused, kernels=1 + block.gated),
        False,
    )
    yield (
        Pass(
            "elementwise", f"{kind} backward", numbers, bytes=backward, fused=1.5 * fused, kernels=1 + 2 * block.gated
        ),
        True,
    )
    yield from _residual(rows, block, execution)


def _again(block: Block, execution: Execution, rows: float, forward: list[Piece]) -> Iterator[Piece]:
    """What activation checkpointing computes a second time (models/checkpointing.py): it stops before ``mlp.down``."""
    if execution.checkpointing == "none":
        return
    if execution.checkpointing == "selective":
        forward = [piece for piece, backward in _mlp(block, execution, rows) if not backward]
    down = block.mlp[-1]
    for piece in forward:
        last = isinstance(piece, Product) and (piece.inner, piece.columns) == (down.inputs, down.outputs)
        if not last:
            yield piece


def loss(architecture: Architecture, execution: Execution) -> Iterator[Piece]:
    """step/loss.py: chunk by chunk the logits, their softmax, and in training both gradients at once."""
    training = execution.purpose == "training"
    if execution.purpose in ("inference", "generation"):
        return
    rows = execution.micro_batch_size * execution.length
    chunk = min(rows, execution.loss_chunk or rows)
    chunks = rows / chunk
    V, C = architecture.rows or architecture.vocab_size, architecture.width
    yield Product("loss", chunk, C, V, times=chunks)
    yield Pass("loss", "loss forward", chunk * V, times=chunks, bytes=14.0, fused=8.0, kernels=9)
    if training:
        yield Product("loss", chunk, V, C, times=chunks, role="input")
        yield Pass("loss", "loss backward", chunk * V, times=chunks, bytes=10.0, fused=4.0, kernels=9)
        if execution.lora.rank is None:
            yield Product("loss", V, chunk, C, times=chunks, role="weight")
            yield Pass("loss", "loss sum", V * C, times=chunks, bytes=14.0, fused=14.0, kernels=3)


def chunk_of(execution: Execution) -> int:
    """Rows of logits at one time as the run's own default has it."""
    return execution.loss_chunk or LOSS_CHUNK[execution.kind]


def optimizer(architecture: Architecture, execution: Execution) -> Iterator[Piece]:
    """Clipping and the update: each weight, its gradient and its state read and written."""
    matrices: list[tuple[Linear, float]] = [
        (linear, float(block.count)) for block in architecture.blocks for linear in block.linears
    ]
    inside = sum(linear.weights * count for linear, count in matrices)
    small = sum((linear.size - linear.weights) * count for linear, count in matrices) + sum(
        norm.size * block.count for block in architecture.blocks for norm in block.norms
    )
    around = sum(table.size for table in architecture.tables) + (0 if architecture.tied else architecture.head.size)
    every = inside + around + small
    parameters = sum(count for _, count in matrices) * 1.5 + len(architecture.tables)
    if execution.lora.rank is not None:
        every = sum(execution.lora.rank * (linear.inputs + linear.outputs) * count for linear, count in matrices)
        inside, parameters = every, 2 * sum(count for _, count in matrices)
    yield Pass("optimizer", "norm of gradients", every, bytes=4.0, fused=4.0, kernels=8)
    if execution.optimizer == "muon":
        yield from _muon(execution, matrices)
        every -= inside
    what, moved, kernels = {
        "adamw": ("adamw", 28.0, 4),
        "muon": ("adamw", 28.0, 4),
        "adamw8bit": ("adamw8bit", 90.0, 40),
        "adafactor": ("adafactor", 60.0, 30),
        "sgd": ("sgd", 48.0, 10),
    }[execution.optimizer]
    pieces = 1.0 if what == "adamw" else max(parameters, every / (1 << 20))
    if what == "adamw" and execution.weights != "fp32":
        what, moved, kernels, pieces = "adamw by pieces", 90.0, 30, max(parameters, every / (1 << 20))
    yield Pass("optimizer", what, every / pieces, times=pieces, bytes=moved, fused=moved, kernels=kernels)


def _muon(execution: Execution, matrices: list[tuple[Linear, float]]) -> Iterator[Piece]:
    """step/rules.py: five Newton–Schulz steps on every matrix, queries, keys and values as three."""
    for linear, count in matrices:
        short, long = sorted((float(linear.inputs), float(linear.outputs)))
        parts = 1.0
        if linear.name.endswith("qkv"):
            parts, (short, long) = 3.0, sorted((float(linear.inputs), linear.outputs / 3))
        each = count * parts
        yield Product("optimizer", short, long, short, times=5, batch=each, role="batched")
        yield Product("optimizer", short, short, short, times=5, batch=each, role="batched")
        yield Product("optimizer", short, short, long, times=5, batch=each, role="batched")
        yield Pass("optimizer", "muon", linear.weights * count, bytes=100.0, fused=100.0, kernels=30)
