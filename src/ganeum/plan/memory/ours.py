"""Our own GPT and its training step (models/gpt.py, step/loss.py), as operations on a tape.

Legend: B = sequences at once, T = tokens of each, N = B T, C = n_embd, Q, K = width of all queries, of all keys,
H = heads, V = rows of the embedding, I = width inside the MLP. ``wide``: bytes of a number in a product, 2 or 4;
``stream``: of one in the residual stream, which has the weights' format.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from ganeum.plan.architecture.parts import Architecture, Linear
from ganeum.plan.execution import Execution
from ganeum.plan.memory.chunked import ChunkedLoss
from ganeum.plan.memory.replay import Gradient, Tape, Tensor

# Numbers of the model that cannot be imported without torch; a test holds them together.
KEEPS_WEIGHTS, BLOCK = 1024, 64  # models/cpu_attention.py: up to this context, in blocks of so many queries
PROCESSORS = 128  # multiprocessors of a large GPU: of an RTX 4090; 108 to 132 of an A100 and H100, 28 to 84 of others
IN_CACHE = 100_000  # models/cpu_norm.py: numbers that a norm on a CPU takes at one time


def buffers(architecture: Architecture) -> float:
    """The cosines and sines of every place, in fp32 (models/rotary.py)."""
    (attention,) = architecture.blocks[0].attentions
    return 4.0 * (architecture.longest or 0) * attention.rotary_dim


class OurGPT:
    """``architecture`` run as ``execution`` says, on ``tape``."""

    def __init__(self, architecture: Architecture, execution: Execution, tape: Tape) -> None:
        self.tape, self.execution, self.architecture = tape, execution, architecture
        (self.block,) = architecture.blocks
        (self.attention,) = self.block.attentions
        self.B, self.T = execution.micro_batch_size, execution.length
        self.N = self.B * self.T
        self.cpu = execution.kind == "cpu"
        self.stream = 4 if execution.weights == "fp32" else 2
        self.wide = 2 if execution.half else self.stream
        self.dropout = architecture.dropout if execution.purpose == "training" else 0.0
        self.modern = self.attention.positions == "rotary"
        self.cached = execution.purpose == "generation"  # the longest prompt there is, beside the cache
        self.widened = not self.cpu and execution.half  # CUDA's autocast takes norms in fp32, a CPU's leaves them be
        self.all = execution.lora.rank is None  # whether every weight is trained

    def hidden(self) -> Tensor:
        """The residual stream (N, C) behind the last norm."""
        return self.norm(self.tape.layers(self.block.count, self.layer_checkpointed, self.embedding()))

    def embedding(self) -> Tensor:
        tape = self.tape
        x = self.looked_up(self.N, self.architecture.rows, tied=self.architecture.tied)
        if not self.modern:
            x = tape.add("norms", x, self.looked_up(self.T, self.architecture.longest or self.T))
        x = self.dropped("norms", x)
        tape.next_moment("backward of the embedding")
        return x

    def looked_up(self, numbers: int, rows: int, *, tied: bool = False) -> Tensor:
        """``numbers`` vectors of a table of ``rows``, whose gradient is as large as the table; where it is the output
        layer's weight too, it is added to the gradient that the loss made."""
        tape, C = self.tape, self.architecture.width
        x = tape.tensor("norms", numbers * C, self.stream)
        if tape.recording and self.all:
            x.gradient = arrived = Gradient(numbers * C, self.stream)

            def backward() -> None:
                d, table = arrived.taken(), tape.tensor("gradients", rows * C, self.stream)
                del d
                if tied:
                    self.of_head.add(table)
                    table = self.of_head.taken() or table
                tape.weight_gradient(table)

            tape.recorded.append(backward)
        return x

    def layer_checkpointed(self, x: Tensor) -> Tensor:
        return self.tape.again(self.layer, x) if self.execution.checkpointing == "whole" else self.layer(x)

    def layer(self, x: Tensor) -> Tensor:
        tape = self.tape
        x = tape.add("norms", x, self.dropped("attention", self.attend(self.norm(x))))
        half = self.execution.checkpointing == "selective"
        y = tape.again(self.feed_forward, x) if half else self.feed_forward(x)
        return tape.add("norms", x, self.dropped("mlp", y))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(x))

    def norm(self, x: Tensor, part: str = "norms", width: int = 0) -> Tensor:
        """Keeps its input, and of each vector of ``width`` (0: C) numbers mean and deviation, or the root. RMSNorm on a
        CPU takes a piece at a time (models/cpu_norm.py): with two copies in fp32 forward, with four backward, and of
        the piece before one is left."""
        tape = self.tape
        if self.widened:
            x = tape.cast(x, 4)
        statistics = tape.tensor("norms", x.numbers / (width or self.architecture.width), 4 if self.modern else 8)
        piece = min(x.numbers, IN_CACHE) * 4 if self.cpu and self.modern else 0
        extra = piece * (4 if piece == x.numbers * 4 else 5)
        return tape.apply(part, x.numbers, x.wide, [x], keeps=(x, statistics), extra=extra, forward_extra=2 * piece)

    def linear(self, part: str, x: Tensor, linear: Linear) -> Tensor:
        """(N, inputs) → (N, outputs), and beside it peft's y + B A x · alpha / rank where it has an adapter."""
        tape, N, wide, held = self.tape, self.N, self.wide, self.stream
        product = partial(tape.product, part, wide=wide, held=held)
        y = product(x, linear.size, N * linear.outputs, trained=self.all)
        rank = self.execution.lora.rank
        if rank is None or (self.execution.lora.targets == "attention" and "attention" not in linear.name):
            return y
        x = tape.cast(x, held)  # peft's, to what the adapters are in
        share = self.execution.lora.dropout if self.execution.purpose == "training" else 0.0
        inner = product(self.dropped(part, x, share), rank * linear.inputs, N * rank)
        added = product(inner, rank * linear.outputs, N * linear.outputs)
        del inner
        added = tape.apply(part, added.numbers, wide, [added])  # times alpha / rank
        return tape.add(part, y, added)

    def dropped(self, part: str, x: Tensor, share: float | None = None) -> Tensor:
        """With a mask, a byte a number on a GPU and as wide as ``x`` on a CPU; ``share``: None: the model's dropout."""
        if not (self.dropout if share is None else share):
            return x
        mask = self.tape.tensor(part, x.numbers, x.wide if self.cpu else 1)
        return self.tape.apply(part, x.numbers, x.wide, [x], keeps=(mask,))

    def mlp(self, x: Tensor) -> Tensor:
        *into, down = self.block.mlp
        if not self.block.gated:
            return self.linear("mlp", self.activated(self.linear("mlp", x, into[0])), down)
        gate, up = into
        a, b = self.activated(self.linear("mlp", x, gate)), self.linear("mlp", x, up)
        h = self.tape.apply("mlp", a.numbers, a.wide, [a, b], keeps=(a, b))
        del a, b
        return self.linear("mlp", h, down)

    def activated(self, x: Tensor) -> Tensor:
        return self.tape.apply("mlp", x.numbers, x.wide, [x], keeps=(x,))

    def attend(self, x: Tensor) -> Tensor:
        linear_qkv, linear_out = self.attention.linears
        qkv = self.linear("attention", x, linear_qkv)
        if self.cpu and self.T <= KEEPS_WEIGHTS and not self.dropout and not self.cached:
            y = self.own_kernel(qkv)
        else:
            y = self.torchs_kernel(qkv)
        return self.linear("attention", y, linear_out)

    def own_kernel(self, qkv: Tensor) -> Tensor:
        """models/cpu_attention.py."""
        tape, N, B, T, H, wide = self.tape, self.N, self.B, self.T, self.attention.heads, self.wide
        Q, K = self.attention.queries, self.attention.keys
        copies = tape.tensor("attention", N * (Q + 2 * K), wide)
        # Of the T × T square, the queries of each block with all keys up to them.
        blocks = [(end - start) * end for start, end in pairwise([*range(0, T, BLOCK), T])]
        weights = tape.tensor("attention", B * H * sum(blocks), wide)
        one = B * H * wide
        # Backwards a block has two gradients, and those of the one before are let go of when its own are there; so is
        # that of its queries, of which products in two bytes copy as many.
        gradients = one * max(a + b + max(a, b) for a, b in pairwise([0, *blocks]))
        gradients += B * BLOCK * Q * wide * (1 + (wide < 4)) * (T > BLOCK)
        turned = T * (Q + K) * 4 if self.modern else 0  # one sequence's queries and keys
        roots = tape.tensor("attention", N * (H + self.attention.kv_heads) * self.modern, 4)
        return tape.apply(
            "attention",
            N * Q,
            wide,
            [qkv],
            keeps=(copies, weights, roots, qkv if self.modern else None),
            extra=N * (Q + 2 * K) * wide + max(gradients, 6 * turned),
            forward_extra=one * max(blocks) + B * turned * wide / 4,
        )

    def torchs_kernel(self, qkv: Tensor) -> Tensor:
        """scaled_dot_product_attention: a fused kernel keeps what goes in, what comes out, and 4 bytes for each row."""
        tape, N, B, T, H, wide = self.tape, self.N, self.B, self.T, self.attention.heads, self.wide
        Q, K = self.attention.queries, self.attention.keys
        q, k, v = tape.split(qkv, (N * Q, N * K, N * K))
        if self.modern:
            q, k = self.turned(q, H), self.turned(k, self.attention.kv_heads)
        if self.execution.attention == "eager" if not self.cpu else self.dropout:
            return self.plain(q, k, v)
        extra = 0.0
        if not self.cpu:
            extra = self.of_queries() + 4 * B * H * T
            if self.execution.attention == "flash":
                extra += 2 * N * Q * wide * (K < Q)  # gradients of keys and values, before those of a group are summed
            elif K < Q:
                k, v = (tape.apply("attention", N * Q, wide, [x]) for x in (k, v))
        sums = tape.tensor("attention", B * H * T, 4)
        return tape.apply("attention", N * Q, wide, [q, k, v], keeps=(q, k, v, sums), keeps_result=True, extra=extra)

    def of_queries(self) -> float:
        """Where CUDA's fused kernels sum the gradient of the queries, in fp32. In a fixed order (train/start.py) flash
        has a sum for each share of the multiprocessors, which are dealt out to sequences and heads (mha_bwd in
        aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp); the other kernel has one in half precision."""
        attention, flash = self.attention, self.execution.attention == "flash"
        if not flash and self.wide == 4:
            return 0.0
        rows, columns = -(-self.T // 128) * 128, -(-attention.head_dim // 32) * 32
        shares = -(-PROCESSORS // (self.B * attention.heads)) if flash else 1
        return 4.0 * shares * self.B * attention.heads * rows * columns

    def turned(self, x: Tensor, heads: int) -> Tensor:
        """Queries or keys normed and rotated in fp32, of which half is there twice on the way (models/rotary.py). Those
        of a single head the norm on a CPU takes as they lie among the others."""
        tape, before = self.tape, x.wide
        if x.wide < 4 or heads > 1 or not self.cpu:
            x = tape.apply("attention", x.numbers, 4, [x])
        normed = self.norm(x, "attention", self.attention.head_dim)
        x = tape.apply("attention", x.numbers, 4, [normed], forward_extra=4 * x.numbers, extra=4 * x.numbers)
        del normed
        return tape.cast(x, before)

    def plain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q kᵀ) v with every weight of the T × T square (_scaled_dot_product_attention_math)."""
        tape, N, Q, K, wide = self.tape, self.N, self.attention.queries, self.attention.keys, self.wide
        square, half = self.B * self.attention.heads * self.T * self.T, wide < 4
        in_order = self.B == 1 or self.attention.heads == 1  # as they lie
        q, k = (tape.apply("attention", N * Q, 4, [x]) for x in (q, k))
        if half or K < Q or not in_order:
            v = tape.apply("attention", N * Q, 4, [v])
        # Until it ends: the mask, scaled queries and repeated keys; of two bytes, all three in fp32, and what it gives.
        own = self.T * self.T + N * Q * ((not in_order) + (K < Q)) + half * (1.5 * N * Q + 2 * N * K + square / 2)
        scores = tape.apply("attention", square, 4, [q, k], keeps=(q, k))
        weights = tape.apply("attention", square, 4, [scores], keeps_result=True, forward_extra=square)
        del scores
        d = self.dropped("attention", weights)
        y = tape.apply("attention", N * Q, 4, [d, v], keeps=(d, v), forward_extra=4 * own)
        del d, weights
        return tape.cast(tape.apply("attention", N * Q, 4, [y]), wide)

    def loss(self, hidden: Tensor) -> None:
        """step/loss.py; the gradient of the output layer is the embedding's too where they are tied."""
        tape, V = self.tape, self.architecture.rows
        d_hidden, d_weight = ChunkedLoss.of(tape, self.architecture, self.execution).gradients(hidden.wide)
        self.of_head = Gradient(V * self.architecture.width, self.stream)
        into = hidden.gradient
        assert into
        into.add(d_hidden)
        if d_weight and self.architecture.tied:
            self.of_head.add(d_weight)
        elif d_weight:
            tape.recorded.append(partial(tape.weight_gradient, d_weight))

    def logits(self, hidden: Tensor, numbers: int) -> None:
        """What comes out of the model; a token is drawn from logits in fp32 (models/generate.py)."""
        C, V = self.architecture.width, self.architecture.rows
        logits = self.tape.product("logits", hidden, C * V, numbers, self.wide, held=self.stream)
        self.tape.tensor("logits", numbers, 4 * self.cached)
        del logits

    def step(self) -> None:
        """One micro-batch: forward, loss, and in training backward; in inference the logits of every token, in
        generation those of the last."""
        ledger = self.tape.ledger
        ledger.moment = "forward pass"
        hidden = self.hidden()
        self.tape.copies.clear()
        ledger.moment = "loss"
        if self.execution.purpose == "training":
            self.loss(hidden)
            del hidden
            ledger.moment = "backward of the last norm"
            self.tape.backward()
        elif self.execution.purpose == "evaluation":
            ChunkedLoss.of(self.tape, self.architecture, self.execution).nats()
        else:
            rows = self.B if self.cached else self.N
            self.logits(hidden, rows * self.architecture.rows)
