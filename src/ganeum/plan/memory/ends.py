"""The two ends of one of transformers' models: the embedding, and the output layer with its loss."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from ganeum.plan.architecture import Architecture, Block
from ganeum.plan.execution import Execution
from ganeum.plan.memory.operations import Graph, Operations
from ganeum.plan.memory.replay import Tensor


class Ends(Operations):
    """What families share.

    Attributes:
        B: sequences; T: tokens of each in the decoder; S: in the encoder.
        again: whether layers are computed again in the backward pass (transformers knows whole layers only).
        held: tensors that the model's output or its caller names until the forward pass has ended.
    """

    def __init__(self, graph: Graph, architecture: Architecture, execution: Execution) -> None:
        super().__init__(graph, architecture, execution)
        self.architecture = architecture
        self.B, self.T, self.S = execution.micro_batch_size, execution.length, execution.source_length
        self.again = execution.checkpointing != "none" and self.training
        self.dropped = architecture.dropout
        self.held: list[Tensor] = []

    def loss(self) -> Tensor:
        """The forward pass, from tokens to (B · T) losses in one number."""
        raise NotImplementedError

    def start(self, stream: str, length: int) -> Tensor:
        """(B, length, C): tokens looked up."""
        self.graph.ledger.moment, self.graph.part = f"{stream} embedding", "embedding"
        table = self.architecture.tables[0]
        return self.embedding(table.name, table.size, self.B * length * table.width)

    def layers(self, block: Block, layer: Callable[[Tensor, str], Tensor], x: Tensor) -> Tensor:
        """All layers of a stream, which get their names."""
        numbers = count(1)

        def next_layer(x: Tensor) -> Tensor:
            name = f"{block.stream} layer {next(numbers)}"
            self.graph.ledger.moment = name

            def named(x: Tensor) -> Tensor:
                return layer(x, name)

            return self.graph.again(named, x) if self.again else named(x)

        return self.graph.layers(block.count, next_layer, x)

    def residual(self, x: Tensor, added: Tensor) -> Tensor:
        """x + dropout(added)."""
        return self.add(x, self.dropout(added, self.dropped))

    def logits(self, x: Tensor) -> Tensor:
        """(B, T, V), all of them."""
        self.graph.ledger.moment, self.graph.part = "loss", "logits"
        name = self.architecture.tables[0].name if self.architecture.tied else "head"
        return self.linear(x, name, self.architecture.head, inside=False)

    def outcome(self, logits: Tensor, *, in_fp32: bool) -> Tensor:
        """The logits themselves in inference; else their cross-entropy, which keeps the logarithms of all
        probabilities. ``in_fp32``: whatever the logits are in; autocast takes it so in any case."""
        if self.execution.purpose == "inference":
            return logits
        wide = self.cast(logits, 4.0) if in_fp32 or self.autocast else logits
        logs = self.graph.operation((wide,), wide.numbers, wide.wide, keeps_output=True)
        return self.graph.operation((logs,), 1, logs.wide, saved=(logs,))
