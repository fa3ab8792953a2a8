"""What transformers' own models keep of a micro-batch, operation by operation as their forward pass is written."""

from __future__ import annotations

from ganeum.plan.architecture import Architecture, Attention, Block
from ganeum.plan.execution import Execution
from ganeum.plan.memory import state
from ganeum.plan.memory.operations import Graph, Operations, Shape
from ganeum.plan.memory.replay import Ledger, Tensor


def fullest(architecture: Architecture, execution: Execution) -> tuple[dict[str, float], str]:
    """A step's fullest moment: bytes by component, and which moment it is.

    The step is the Trainer's: forward, loss, backward for each micro-batch, then the update. Sequences of an encoder
    are of different lengths (there is a padding mask), those of a decoder alone are full.
    """
    kept = state.of(architecture, execution)
    ledger = Ledger()
    graph = Graph(ledger, recording=execution.purpose == "training")
    model = (
        T5(graph, architecture, execution) if architecture.encoder_decoder else Decoder(graph, architecture, execution)
    )
    for _ in range(min(2, execution.accumulation)):
        loss = model.loss()
        graph.copies.clear()
        model.cache.clear()
        if graph.recording and loss.gradient:
            loss.gradient.add(graph.tensor("workspace", 1, 4.0))
            del loss
            graph.backward()
    ledger.moment = "update"
    graph.tensor("update", kept.update, 1.0)
    parts = ledger.fullest | {"weights": kept.weights, "optimizer": kept.optimizer}
    return {name: size for name, size in parts.items() if size}, ledger.at


class T5(Operations):
    """models/t5/modeling_t5.py, and mT5's, which is the same."""

    def __init__(self, graph: Graph, architecture: Architecture, execution: Execution) -> None:
        super().__init__(graph, architecture, execution)
        self.architecture = architecture
        self.B, self.T, self.S = execution.micro_batch_size, execution.length, execution.source_length
        self.again = execution.checkpointing != "none" and self.training
        self.dropped = architecture.dropout
        self.wide_out = 4.0 if execution.weights == "fp16" else self.wide
        self.cache: list[Tensor] = []  # the decoder's keys and values, which it makes in training too

    def loss(self) -> Tensor:
        """Source and target through encoder and decoder to the loss; what the model's output names stays to its end."""
        graph, architecture = self.graph, self.architecture
        encoder, decoder = architecture.blocks
        encoded = self.encoder(encoder)
        x = self.decoder(decoder, encoded)
        graph.ledger.moment, graph.part = "loss", "logits"
        if architecture.tied:
            x = self.scale(x)
        name = architecture.tables[0].name if architecture.tied else "head"
        logits = self.linear(x, name, architecture.head, inside=False)
        return self.cross_entropy(logits)

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """autocast takes it in fp32."""
        logits = self.cast(logits, 4.0) if self.autocast else logits
        logs = self.graph.operation((logits,), logits.numbers, logits.wide, keeps_output=True)
        return self.graph.operation((logs,), 1, logits.wide, saved=(logs,))

    def encoder(self, block: Block) -> Tensor:
        x = self.start(block, self.S)
        own = block.attentions[0]
        bias = self.position_bias(block, own, self.S)
        mask = self.graph.tensor("attention", self.B * self.S * self.S, 1.0)
        for n in range(block.count):
            self.graph.ledger.moment = f"encoder layer {n + 1}"

            def layer(x: Tensor, name: str = f"encoder.{n}") -> Tensor:
                x = self.residual(x, self.attend(x, x, own, name, block, self.S, bias, self.B))
                return self.residual(x, self.mlp(x, block, name))

            x = self.graph.again(layer, x) if self.again else layer(x)
        return self.end(x, block)

    def decoder(self, block: Block, encoded: Tensor) -> Tensor:
        x = self.start(block, self.T)
        own, across = block.attentions
        bias = self.position_bias(block, own, self.T)
        with self.graph.counted_as("attention"):
            zeros = self.graph.tensor("attention", own.heads * self.T * self.S, self.wide)
            if self.again:
                zeros = self.graph.operation((bias,), zeros.numbers, zeros.wide)
        for n in range(block.count):
            self.graph.ledger.moment = f"decoder layer {n + 1}"

            def layer(x: Tensor, name: str = f"decoder.{n}") -> Tensor:
                x = self.residual(x, self.attend(x, x, own, name, block, self.T, bias, 1))
                x = self.residual(x, self.attend(x, encoded, across, f"{name}.across", block, self.S, zeros, self.B))
                return self.residual(x, self.mlp(x, block, name))

            x = self.graph.again(layer, x) if self.again else layer(x)
        return self.end(x, block)

    def start(self, block: Block, length: int) -> Tensor:
        graph = self.graph
        graph.ledger.moment, graph.part = f"{block.stream} embedding", "embedding"
        table = self.architecture.tables[0]
        return self.dropout(self.embedding(table.name, table.size, self.B * length * table.width), self.dropped)

    def end(self, x: Tensor, block: Block) -> Tensor:
        with self.graph.counted_as("norms"):
            x = self.norm(x, f"{block.stream}.final_norm", self.architecture.norms[0])
        return self.dropout(x, self.dropped)

    def position_bias(self, block: Block, own: Attention, T: int) -> Tensor:
        """(1, H, T, T): a table's rows, looked up for each distance."""
        with self.graph.counted_as("attention"):
            buckets = self.graph.tensor("attention", T * T, 8.0)
            table = self.graph.weight(f"{block.stream}.positions", 32 * own.heads, self.wide, frozen=self.frozen)
            return self.graph.operation((table,), own.heads * T * T, self.wide, saved=(buckets,))

    def residual(self, x: Tensor, added: Tensor) -> Tensor:
        return self.add(x, self.dropout(added, self.dropped))

    def attend(
        self, x: Tensor, source: Tensor, attention: Attention, name: str, block: Block, S: int, bias: Tensor, masks: int
    ) -> Tensor:
        own = source is x
        T = self.S if block.stream == "encoder" else self.T
        with self.graph.counted_as("norms"):
            x = self.norm(x, f"{name}.norm", block.norms[0])
        if own:
            source = x
        with self.graph.counted_as("attention"):
            query, key, value, out = attention.linears
            q = self.linear(x, f"{name}.q", query)
            k = self.linear(source, f"{name}.k", key)
            v = self.linear(source, f"{name}.v", value)
            cached = block.stream == "decoder" and not self.again
            if cached:
                k, v = self.scale(k), self.scale(v)
                self.cache += k, v
            shape = Shape(self.B, attention.heads, T, S, cached)
            if self.execution.attention == "eager":
                mask = self.graph.tensor("attention", masks * T * S, self.wide)
                y = self.eager(q, k, v, shape, (bias, mask), self.dropped)
            else:
                masked = self.graph.operation((bias,), attention.heads * T * S * masks, bias.wide)
                if own:
                    masked = self.scale(masked)
                y = self.attention(q, k, v, shape, masked, self.dropped)
            return self.linear(y, f"{name}.o", out)

    def mlp(self, x: Tensor, block: Block, name: str) -> Tensor:
        with self.graph.counted_as("norms"):
            x = self.norm(x, f"{name}.mlp_norm", block.norms[0])
        with self.graph.counted_as("mlp"):
            *into, out = block.mlp
            y = self.activation(self.linear(x, f"{name}.{into[0].name}", into[0]), block.activation)
            if len(into) == 2:
                y = self.multiply(y, self.linear(x, f"{name}.{into[1].name}", into[1]))
            y = self.cast(
                self.dropout(y, self.dropped), self.wide_out
            )  # as wide as the weights, whatever autocast says
            return self.linear(y, f"{name}.out", out)


class Decoder(T5):
    pass
