"""Decoders as transformers runs them: GPT-2, GPTBigCode, Llama, Mistral, Qwen, CodeGen, Phi, MPT.

Sequences are full, so there is no padding mask. Attention is a fused kernel of torch where the family knows it; CodeGen
and MPT write theirs out, CodeGen in fp32.
"""

from __future__ import annotations

from ganeum.plan.architecture import Attention, Block
from ganeum.plan.memory.ends import WRITTEN_OUT, Ends
from ganeum.plan.memory.operations import Shape
from ganeum.plan.memory.replay import Tensor


class Decoder(Ends):
    """One stream of equal blocks."""

    @property
    def written_out(self) -> bool:
        """Whether attention is plain products in Python, with a mask to add."""
        return self.architecture.family in WRITTEN_OUT or self.execution.attention == "eager"

    def loss(self) -> Tensor:
        """Tokens to the loss, which transformers always takes in fp32 (loss/loss_utils.py)."""
        if self.generating:
            self.B *= self.execution.beams
        x = self.hidden(self.architecture.blocks[0])
        return self.end_of_step(x, in_fp32=True)

    def hidden(self, block: Block) -> Tensor:
        """(B, T, C) behind the last norm."""
        x = embedded = self.start("decoder", self.T)
        if len(self.architecture.tables) > 1:
            table, each = self.architecture.tables[1], self.B if self.generating else 1
            positions = self.embedding(table.name, table.size, each * self.T * table.width)
            x = self.add(embedded, positions)
        x = self.dropout(x, self.dropped)
        squares = self.B * self.T * self.T if self.written_out else 0
        mask = self.graph.tensor("attention", squares, 1.0 if self.architecture.family == "mpt" else self.wide)
        turns = self.graph.tensor("attention", 2 * self.T * block.attentions[0].rotary_dim, self.wide)

        def layer(x: Tensor, name: str) -> Tensor:
            return (self.parallel if block.parallel else self.sequential)(x, block, name, mask)

        x = self.layers(block, layer, x)
        del turns
        with self.graph.counted_as("norms"):
            return self.norm(x, "final_norm", self.architecture.norms[0])

    def sequential(self, x: Tensor, block: Block, name: str, mask: Tensor) -> Tensor:
        """x + attention(norm(x)), then x + mlp(norm(x))."""
        x = self.residual(x, self.attend(self.normed(x, f"{name}.1", block), block, name, mask))
        return self.add(x, self.feed_forward(self.normed(x, f"{name}.2", block), block, name))

    def parallel(self, x: Tensor, block: Block, name: str, mask: Tensor) -> Tensor:
        """x + attention(norm(x)) + mlp(norm(x))."""
        normed = self.normed(x, f"{name}.1", block)
        attended = self.dropout(self.attend(normed, block, name, mask), self.dropped)
        return self.add(self.add(attended, self.feed_forward(normed, block, name)), x)

    def feed_forward(self, normed: Tensor, block: Block, name: str) -> Tensor:
        """dropout(mlp(normed))"""
        return self.half(lambda normed: self.dropout(self.mlp(normed, block, name), self.dropped), normed)

    def normed(self, x: Tensor, name: str, block: Block) -> Tensor:
        with self.graph.counted_as("norms"):
            return self.norm(x, name, block.norms[0])

    def attend(self, x: Tensor, block: Block, name: str, mask: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C)"""
        (attention,) = block.attentions
        shape = Shape(
            self.B,
            attention.heads,
            self.T,
            self.T,
            groups=attention.heads // attention.kv_heads,
            ordered=self.generating,
            ordered_queries=0 < attention.rotary_dim < attention.head_dim,  # put side by side anew
        )
        with self.graph.counted_as("attention"):
            q, k, v = self.projected(x, attention, name)
            if attention.norms:
                q, k = (
                    self.norm(q, f"{name}.q_norm", attention.norms[0]),
                    self.norm(k, f"{name}.k_norm", attention.norms[1]),
                )
            if attention.rotary_dim:
                q, k = self.turned(q, attention), self.turned(k, attention)
            if self.generating:
                k, v = self.cached(k, v)
            y = self.weigh(q, k, v, shape, mask)
            return self.linear(y, f"{name}.out", attention.linears[-1])

    def projected(self, x: Tensor, attention: Attention, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: of three matrices, or as views of one product."""
        *into, _ = attention.linears
        if len(into) == 3:
            q, k, v = (self.linear(x, f"{name}.{linear.name}", linear) for linear in into)
            return q, k, v
        rows = float(self.B * self.T)
        q, k, v = self.graph.split(
            self.linear(x, f"{name}.qkv", into[0]),
            [rows * attention.queries, rows * attention.keys, rows * attention.keys],
        )
        return q, k, v

    def turned(self, x: Tensor, attention: Attention) -> Tensor:
        """x · cos + turned x · sin, neither of which is learnt; what is not turned is put beside it again."""
        share = attention.rotary_dim / attention.head_dim
        part = x if share == 1 else self.graph.operation((x,), x.numbers * share, x.wide)
        part = self.add(self.scale(part), self.scale(self.scale(part)))
        return part if share == 1 else self.graph.operation((part, x), x.numbers, x.wide)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor, shape: Shape, mask: Tensor) -> Tensor:
        """The attention itself."""
        if not self.written_out:
            return self.attention(q, k, v, shape, None, self.dropped)
        if self.architecture.family == "codegen":
            q, k = self.cast(q, 4.0), self.cast(k, 4.0)
        return self.eager(q, k, v, shape, (mask,), self.dropped, softmax_in=4.0)

    def mlp(self, x: Tensor, block: Block, name: str) -> Tensor:
        """(B, T, C) → (B, T, C)"""
        with self.graph.counted_as("mlp"):
            *into, out = block.mlp
            y = self.activation(self.linear(x, f"{name}.{into[0].name}", into[0]), block.activation)
            if block.gated:
                y = self.multiply(y, self.linear(x, f"{name}.{into[1].name}", into[1]))
            return self.linear(y, f"{name}.down", out)
