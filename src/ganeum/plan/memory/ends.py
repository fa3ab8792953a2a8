"""The two ends of one of transformers' models: the embedding, and the output layer with its loss."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from ganeum.plan.architecture import Architecture, Block
from ganeum.plan.execution import Execution
from ganeum.plan.memory.chunked import ChunkedLoss
from ganeum.plan.memory.graph import Graph, Learnt
from ganeum.plan.memory.operations import Operations
from ganeum.plan.memory.replay import Gradient, Tensor

# Families whose attention is written out in Python whatever is asked for; layers of theirs return its weights, which
# stay until the next layer's are there.
WRITTEN_OUT = ("codegen", "mpt")


class Ends(Operations):
    """What families share.

    Attributes:
        B: sequences; T: tokens of each in the decoder; S: in the encoder.
        again: whether layers are computed again in the backward pass (transformers knows whole layers only);
            ``half_again``: whether their MLPs alone are, as a step of ours can.
        ours: whether the step is ours: no cache, no logits but a chunk's, autocast's copies gone before the loss.
        held: tensors that the model's output or its caller names until the forward pass has ended.
    """

    def __init__(self, graph: Graph, architecture: Architecture, execution: Execution) -> None:
        super().__init__(graph, architecture, execution)
        self.architecture = architecture
        self.B, self.T, self.S = execution.micro_batch_size, execution.length, execution.source_length
        self.generating = execution.purpose == "generation"
        self.half_again = self.ours and execution.checkpointing == "selective" and self.training
        self.again = execution.checkpointing != "none" and self.training and not self.half_again
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
                before = [self.graph.tensor("attention", old.numbers, old.wide) for old in self.returned]
                self.returned.clear()
                x = layer(x, name)
                if self.architecture.family not in WRITTEN_OUT:
                    self.returned.clear()
                del before
                return x

            return self.graph.again(named, x) if self.again else named(x)

        # T5's first layer makes what all others look at: computed again, it is unlike the next.
        x = self.graph.layers(block.count, next_layer, x, seen=1 + (self.t5 and self.again))
        self.returned.clear()
        return x

    def half(self, mlp: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The MLP half of a layer, of which checkpointing may keep the input alone."""
        return self.graph.again(mlp, x) if self.half_again else mlp(x)

    def forget(self) -> None:
        """What was held until the forward pass had ended."""
        self.held.clear()
        self.graph.copies.clear()

    def cached(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values as a cache copies them and holds them."""
        with self.graph.counted_as("cache" if self.generating else "attention"):
            k, v = self.scale(k), self.scale(v)
        self.held += k, v
        return k, v

    def residual(self, x: Tensor, added: Tensor) -> Tensor:
        """x + dropout(added)."""
        return self.add(x, self.dropout(added, self.dropped))

    def end_of_step(self, x: Tensor, *, in_fp32: bool) -> Tensor:
        """Hidden states (B, T, C) to the loss: the library's, or in a step of ours the one in chunks."""
        if self.ours and self.execution.purpose in ("training", "evaluation"):
            return self.in_chunks(x)
        return self.outcome(self.logits(x), in_fp32=in_fp32)

    def in_chunks(self, x: Tensor) -> Tensor:
        """step/loss.py, behind the end of autocast and of the model's own forward pass."""
        graph = self.graph
        self.forget()
        graph.ledger.moment = "loss"
        loss = ChunkedLoss.of(graph, self.architecture, self.execution)
        out = graph.tensor("logits", 1, 4.0)
        if not self.training:
            loss.nats()
            return out
        d_hidden, d_weight = loss.gradients(x.wide)
        into = [(x.gradient, d_hidden)]
        if d_weight:
            weight = graph.weight(self.head, loss.V * loss.C, self.wide)
            assert isinstance(weight.gradient, Learnt)
            weight.gradient.uses += 1
            into.append((weight.gradient, d_weight))
        out.gradient = Gradient(1, 4.0)
        del d_hidden, d_weight

        def backward(into: list[tuple[Gradient | None, Tensor]] = into) -> None:
            while into:
                to, arrived = into.pop()
                if to:
                    to.add(arrived)

        graph.recorded.append(backward)
        return out

    @property
    def head(self) -> str:
        """The name of the output layer's weight."""
        return self.architecture.tables[0].name if self.architecture.tied else "head"

    def logits(self, x: Tensor) -> Tensor:
        """(B, T, V), all of them."""
        self.graph.ledger.moment, self.graph.part = "logits" if self.generating else "loss", "logits"
        if self.generating:  # of the last token alone
            x = self.graph.tensor("logits", self.B * self.architecture.width, x.wide)
        return self.linear(x, self.head, self.architecture.head, inside=False)

    def outcome(self, logits: Tensor, *, in_fp32: bool) -> Tensor:
        """The logits themselves in inference; else their cross-entropy, which keeps the logarithms of all
        probabilities. ``in_fp32``: whatever the logits are in. autocast takes all of it so on a CPU; on CUDA it leaves
        the logarithms in half precision and takes only the sum over the targets in fp32 (autocast_mode.h)."""
        if self.execution.purpose in ("inference", "generation"):
            return logits
        wide = self.cast(logits, 4.0) if in_fp32 or (self.autocast and self.cpu) else logits
        logs = self.graph.operation((wide,), wide.numbers, wide.wide, keeps_output=True)
        picked = self.cast(logs, 4.0) if self.autocast else logs
        return self.graph.operation((picked,), 1, picked.wide, saved=(picked,))
