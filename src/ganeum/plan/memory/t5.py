"""T5 and mT5 as transformers runs them (models/t5/modeling_t5.py), operation by operation.

Sources are padded to one length, so there is a mask; positions are a bias on the scores, learnt once for each stream.
"""

from __future__ import annotations

from collections.abc import Callable

from ganeum.plan.architecture import Architecture, Attention, Block
from ganeum.plan.execution import Execution
from ganeum.plan.memory.ends import Ends
from ganeum.plan.memory.graph import Graph
from ganeum.plan.memory.operations import Shape
from ganeum.plan.memory.replay import Gradient, Tensor


class Shared:
    """What every layer of a stream adds to its scores. The first one makes it and hands it on; where it is computed
    again, it makes it again, so that nothing which its gradient needs stays in the meantime.

    Args:
        make: the tensor, with its way back if operations are recorded.
        again: whether layers are computed again in the backward pass.
        learnt: whether it has a gradient. ``leaf``: one that ends in it, and stays with it until the whole backward
            pass is over, because torch's AccumulateGrad names its tensor.
        alone: whether the stream has no second layer, whose checkpoint would keep it.
    """

    def __init__(
        self,
        graph: Graph,
        make: Callable[[], Tensor],
        *,
        again: bool,
        learnt: bool = True,
        leaf: bool = False,
        alone: bool = False,
    ) -> None:
        self.graph, self.make, self.again = graph, make, again
        self.learnt, self.leaf, self.alone = learnt, leaf, alone and not leaf
        self.made: Tensor | None = None

    def of(self, layer: str) -> Tensor:
        """The tensor in the layer of this name."""
        if self.made and not self._first(layer):
            return self.made
        arrived = self.made.gradient if self.made else None  # from the layers behind
        self.made = None
        self.made = made = self.make()
        if not self.again:
            return made
        if not self.graph.recording:
            made.gradient = Gradient(made.numbers, made.wide) if self.learnt else None
            if self.leaf:
                self.graph.until_the_end(made)
        elif self.leaf:
            made.gradient = arrived
        elif made.gradient and arrived:
            made.gradient.add(arrived.taken())
        return made

    def leave(self, layer: str) -> None:
        """The layer's end: nobody names any longer what was made a second time, or for nobody else."""
        if self.again and self._first(layer) and (self.graph.recording or self.alone):
            self.made = None

    def _first(self, layer: str) -> bool:
        return layer.endswith(" layer 1")


class T5(Ends):
    """models/t5/modeling_t5.py, and mT5's, which is the same."""

    def __init__(self, graph: Graph, architecture: Architecture, execution: Execution) -> None:
        super().__init__(graph, architecture, execution)
        self.wide_mask = self.wide if execution.attention == "eager" else 1.0  # a number to add, or yes and no
        self.wide_out = 4.0 if execution.weights == "fp16" else self.wide  # _keep_in_fp32_modules = ["wo"]

    def loss(self) -> Tensor:
        """Source and target through encoder and decoder to the loss."""
        encoder, decoder = self.architecture.blocks
        encoded = self.encoder(encoder)
        if self.generating and self.execution.beams > 1:  # every hypothesis looks at a copy of its own
            self.B *= self.execution.beams
            encoded = self.graph.tensor("embedding", encoded.numbers * self.execution.beams, encoded.wide)
        self.held.append(encoded)
        x = self.decoder(decoder, encoded)
        if self.architecture.tied:
            self.graph.part = "logits"
            x = self.scale(x)
        return self.end_of_step(x, in_fp32=False)

    def encoder(self, block: Block) -> Tensor:
        """(B, S, C)"""
        embedded = self.start("encoder", self.S)
        x = self.dropout(embedded, self.dropped)
        own = block.attentions[0]
        bias = self.position_bias(block, own, self.S)
        mask = self.graph.tensor("attention", self.B * self.S * self.S, self.wide_mask)

        def layer(x: Tensor, name: str) -> Tensor:
            x = self.residual(x, self.attend(x, x, own, name, block, bias, mask))
            x = self.half(lambda x: self.residual(x, self.mlp(x, block, name)), x)
            bias.leave(name)
            return x

        return self.end(self.layers(block, layer, x), block)

    def decoder(self, block: Block, encoded: Tensor) -> Tensor:
        """(B, T, C)"""
        x = self.dropout(self.start("decoder", self.T), self.dropped)
        own, across = block.attentions
        bias = self.position_bias(block, own, self.T)
        causal = self.graph.tensor("attention", self.T * self.T, self.wide_mask)
        mask = self.graph.tensor("attention", self.B * self.T * self.S, self.wide_mask)
        zeros = self.no_bias(own)

        def layer(x: Tensor, name: str) -> Tensor:
            x = self.residual(x, self.attend(x, x, own, name, block, bias, causal))
            x = self.residual(x, self.attend(x, encoded, across, name, block, zeros, mask))
            x = self.half(lambda x: self.residual(x, self.mlp(x, block, name)), x)
            bias.leave(name)
            zeros.leave(name)
            return x

        return self.end(self.layers(block, layer, x), block)

    def end(self, x: Tensor, block: Block) -> Tensor:
        with self.graph.counted_as("norms"):
            x = self.norm(x, f"{block.stream}.final_norm", self.architecture.norms[0])
        return self.dropout(x, self.dropped)

    def position_bias(self, block: Block, own: Attention, T: int) -> Shared:
        """(1, H, T, T): a table's rows, looked up for each distance."""

        def make() -> Tensor:
            with self.graph.counted_as("attention"):
                buckets = self.graph.tensor("attention", T * T, 8.0)
                table = self.graph.weight(f"{block.stream}.positions", 32 * own.heads, self.wide, frozen=self.frozen)
                return self.graph.operation((table,), own.heads * T * T, self.wide, saved=(buckets,))

        return Shared(self.graph, make, again=self.again, learnt=not self.frozen, alone=block.count == 1)

    def no_bias(self, own: Attention) -> Shared:
        """(1, H, T, S) zeros in the attention across. Under checkpointing they are made to ask for a gradient, so that
        the attention falls back on plain products."""
        numbers, wide = own.heads * self.T * self.S, 2.0 if self.autocast else self.wide
        return Shared(
            self.graph, lambda: self.graph.tensor("attention", numbers, wide), again=self.again, leaf=self.again
        )

    def attend(
        self, x: Tensor, source: Tensor, attention: Attention, layer: str, block: Block, shared: Shared, mask: Tensor
    ) -> Tensor:
        """(B, T, C) of the stream and the keys' (B, S, C) → (B, T, C). The mask is of pairs of tokens."""
        T = self.S if block.stream == "encoder" else self.T
        S = self.S if attention.across else T
        name = f"{layer}.across" if attention.across else layer
        with self.graph.counted_as("norms"):
            x = self.norm(x, f"{name}.norm", block.norms[0])
        if not attention.across:
            source = x
        with self.graph.counted_as("attention"):
            query, key, value, out = attention.linears
            q = self.linear(x, f"{name}.q", query)
            k = self.linear(source, f"{name}.k", key)
            v = self.linear(source, f"{name}.v", value)
            # The Trainer leaves the cache on, so one is made in training too.
            cached = block.stream == "decoder" and not self.again and not self.ours
            if cached:
                k, v = self.cached(k, v)
            bias = shared.of(layer)
            shape = Shape(self.B, attention.heads, T, S, ordered=cached)
            if self.execution.attention == "eager":
                y = self.eager(q, k, v, shape, (bias, mask), self.dropped)
            elif self.fused and self.cpu and (bias.gradient or self.dropped):
                y = self.attention(q, k, v, shape, bias, self.dropped)
            else:
                masked = self.graph.operation((bias,), attention.heads * mask.numbers, bias.wide, saved=(mask,))
                masked = masked if attention.across else self.scale(masked)  # in order, which the zeros are
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
            y = self.dropout(y, self.dropped)
            y = self.cast(y, self.wide_out)  # as wide as the weights, even under autocast
            return self.linear(y, f"{name}.out", out)
