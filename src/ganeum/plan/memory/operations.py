"""What torch's operations keep for their gradient: matrices, norms, activation functions, dropout, attention.

Each function is one operation of the library as a model's code calls it, on tensors that have a size and no content.
B = micro_batch_size, H = heads, D = head_dim, T = queries' length, S = keys' length; wide = bytes of a number.
Sources: torch's tools/autograd/derivatives.yaml for what a gradient needs, aten/src/ATen/autocast_mode.h for formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ganeum.plan.architecture import Architecture, Linear, Norm
from ganeum.plan.execution import Execution
from ganeum.plan.memory.graph import Graph, Learnt
from ganeum.plan.memory.replay import Tensor

QUANTIZED = ("int8", "nf4")
NORM_IN_CACHE, SCORES_IN_CACHE = 100_000, 1 << 18  # numbers at once: models/cpu_norm.py, models/cpu_bias_attention.py


@dataclass(frozen=True)
class Shape:
    """Of one attention.

    Attributes:
        rows, columns: queries and keys of a sequence.
        groups: heads of queries that share one of keys and values.
        ordered: keys and values lie in memory head by head, as a cache copies them; projections are views that do not.
        ordered_queries: queries lie so too.
    """

    batch: int
    heads: int
    rows: int
    columns: int
    groups: int = 1
    ordered: bool = False
    ordered_queries: bool = False

    @property
    def keys_in_order(self) -> bool:
        """Whether keys and values are copies already when they are multiplied."""
        return self.ordered or self.groups > 1

    @property
    def scores(self) -> float:
        """Numbers in all T × S squares."""
        return float(self.batch * self.heads * self.rows * self.columns)


class Operations:
    """The operations under one precision, on one kind of device."""

    def __init__(self, graph: Graph, architecture: Architecture, execution: Execution) -> None:
        self.graph, self.execution, self.cpu = graph, execution, execution.kind == "cpu"
        self.training = execution.purpose == "training"
        self.ours = architecture.implementation == "adopted"
        self.fused = self.ours and execution.purpose in ("training", "evaluation")  # models/kernels_of_theirs.py
        # Of weights that are not quantized; DeepSpeed casts the model, and keeps fp32 in the optimizer.
        self.wide = 2.0 if execution.weights != "fp32" or (execution.zero_stage and execution.half) else 4.0
        self.autocast = execution.half and self.wide == 4.0
        self.frozen = execution.lora.rank is not None
        self.returned: list[Tensor] = []  # by layers, which return attention weights that are tensors
        self.t5 = architecture.family in ("t5", "mt5", "umt5")

    def cast(self, x: Tensor, wide: float) -> Tensor:
        """A copy in another format; itself where it is in that already."""
        return x if x.wide == wide else self.graph.operation((x,), x.numbers, wide)

    def factor(self, x: Tensor) -> Tensor:
        """What autocast makes of a product's input."""
        return self.cast(x, 2.0) if self.autocast else x

    def linear(self, x: Tensor, name: str, linear: Linear, *, inside: bool = True) -> Tensor:
        """(…, inputs) → (…, outputs). ``inside``: of a block, where adapters sit and weights are quantized."""
        lora = self.execution.lora
        y = (
            self._quantized(x, linear)
            if inside and self.execution.weights in QUANTIZED
            else self._product(x, name, linear)
        )
        if lora.rank is None or not inside or (lora.targets == "attention" and "attention" not in linear.name):
            return y
        # peft keeps adapters in fp32: what goes into them is made wide, and the sum as narrow as the layer's again
        narrow = Linear(f"{linear.name}.A", linear.inputs, lora.rank)
        added = self.dropout(self.cast(x, 4.0), lora.dropout)  # both of it under autocast too
        added = self._product(added, f"{name}.A", narrow, adapter=True)
        added = self._product(added, f"{name}.B", Linear(f"{linear.name}.B", lora.rank, linear.outputs), adapter=True)
        return self.cast(self.add(y, self.scale(added)), y.wide)

    def _product(self, x: Tensor, name: str, linear: Linear, *, adapter: bool = False) -> Tensor:
        outputs = x.numbers / linear.inputs * linear.outputs
        x, frozen, wide = self.factor(x), self.frozen and not adapter, 4.0 if adapter else self.wide
        weight = self.graph.weight(name, linear.weights, wide, frozen=frozen)
        if isinstance(weight.gradient, Learnt):
            weight.gradient.turned = not self.autocast
        learnt = [self._copy_of(weight) if self.autocast else weight]
        if linear.bias:
            learnt.append(self.graph.weight(f"{name}.bias", linear.outputs, wide, frozen=frozen))
        return self.graph.operation((x, *learnt), outputs, x.wide, saved=(None if frozen else x, learnt[0]))

    def _quantized(self, x: Tensor, linear: Linear) -> Tensor:
        """The weights are made wide for the product, and again for the gradient (bitsandbytes' MatMul4Bit)."""
        work = 2.0 * linear.weights
        x = self.cast(x, 2.0)
        return self.graph.operation((x,), x.numbers / linear.inputs * linear.outputs, 2.0, temporary=work, before=work)

    def _copy_of(self, weight: Tensor) -> Tensor:
        """autocast keeps its copies of what is learnt until the forward pass has ended."""
        with self.graph.counted_as("copies"):
            copy = self.graph.operation((weight,), weight.numbers, 2.0)
        if weight.gradient:
            self.graph.copies.append(copy)
        return copy

    def embedding(self, name: str, numbers: float, outputs: float) -> Tensor:
        """Looked-up rows; their gradient is a whole table."""
        return self.graph.operation(
            (self.graph.weight(name, numbers, self.wide, frozen=self.frozen),), outputs, self.wide
        )

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """A sum, in the wider format; a CPU makes a copy of the narrower one first (TensorIterator)."""
        copied = min(x, y, key=lambda tensor: tensor.wide).numbers * 4.0 * (x.wide != y.wide) * self.cpu
        on_the_way = self.graph.tensor("workspace", copied, 1.0)
        out = self.graph.tensor(self.graph.part, max(x.numbers, y.numbers), max(x.wide, y.wide))
        del on_the_way
        return self.graph.recorded_as(out, (x, y), (), same=True)

    def add_in_place(self, x: Tensor, y: Tensor) -> Tensor:
        """``y``, which may be smaller, is added to ``x``, a tensor of nobody else's."""
        if not y.gradient:
            return x
        return self.graph.recorded_as(x, (x, y), (), same=True)

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """A product of equally many numbers; each is the other's gradient."""
        return self.graph.operation((x, y), x.numbers, max(x.wide, y.wide), saved=(x, y))

    def scale(self, x: Tensor) -> Tensor:
        """Times a number; or the same numbers in another order."""
        return self.graph.operation((x,), x.numbers, x.wide)

    def dropout(self, x: Tensor, share: float) -> Tensor:
        """A CPU keeps a mask as wide as what it masks, CUDA one byte a number (aten/src/ATen/native/Dropout.cpp)."""
        if not share or not self.training:
            return x
        mask = self.graph.tensor(self.graph.part, x.numbers, x.wide if self.cpu else 1.0)
        return self.graph.operation((x,), x.numbers, x.wide, saved=(mask,))

    def norm(self, x: Tensor, name: str, norm: Norm) -> Tensor:
        """LayerNorm is one kernel, in a step of ours RMSNorm too; it is written in the models' Python, in fp32."""
        rows, graph = x.numbers / norm.width, self.graph
        scale = graph.weight(name, norm.width, self.wide, frozen=self.frozen)
        if norm.mean:
            x = self.cast(x, 4.0) if self.autocast and not self.cpu else x
            moments = graph.tensor(graph.part, 2 * rows, 4.0)
            bias = [graph.weight(f"{name}.bias", norm.width, self.wide, frozen=self.frozen)] if norm.bias else []
            return graph.operation((x, scale, *bias), x.numbers, x.wide, saved=(x, moments))
        if self.fused:
            x, roots = self.cast(x, max(x.wide, self.wide)), graph.tensor(graph.part, rows, 4.0)
            some = 4.0 * min(x.numbers, NORM_IN_CACHE) * self.cpu
            return graph.operation((x, scale), x.numbers, x.wide, saved=(x, roots), temporary=3 * some, before=some)
        wide = self.cast(x, 4.0)
        root = graph.operation((self._mean_square(wide, rows),), rows, 4.0, keeps_output=True)
        source = x if self.t5 else wide  # T5 multiplies what came in, the others its copy in fp32
        normed = graph.operation((source, root), x.numbers, 4.0, saved=(source, root), temporary=4.0 * x.numbers)
        del source, wide, root
        normed = self.cast(normed, self.wide if self.t5 else x.wide)
        out = max(normed.wide, self.wide)
        learnt = scale.gradient is not None
        return graph.operation(
            (normed, scale), x.numbers, out, saved=(normed if learnt else None,), temporary=out * x.numbers * learnt
        )

    def _mean_square(self, x: Tensor, rows: float) -> Tensor:
        square = self.graph.operation((x,), x.numbers, 4.0, saved=(x,), temporary=x.size)
        return self.graph.operation((square,), rows, 4.0)

    def activation(self, x: Tensor, function: str) -> Tensor:
        """One kernel that keeps its input (ReLU: its output), but for gelu_new, which is written out in Python, though
        not in a step of ours."""
        if function == "gelu_new" and not self.fused:
            return self._gelu_new(x)
        relu = function == "relu"
        return self.graph.operation((x,), x.numbers, x.wide, saved=() if relu else (x,), keeps_output=relu)

    def _gelu_new(self, x: Tensor) -> Tensor:
        """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))); autocast on CUDA takes the power in fp32."""
        half = self.scale(x)
        bent = self.scale(self._bend(x))
        return self.multiply(half, bent)

    def _bend(self, x: Tensor) -> Tensor:
        wide = self.cast(x, 4.0) if self.autocast and not self.cpu else x
        inside = self.scale(self.add(x, self.scale(self._cube(wide))))
        return self.graph.operation((inside,), x.numbers, inside.wide, keeps_output=True)

    def _cube(self, x: Tensor) -> Tensor:
        return self.graph.operation((x,), x.numbers, x.wide, saved=(x,), temporary=2 * x.size)

    def softmax(self, scores: Tensor, wide: float, before: float = 0.0) -> Tensor:
        """Over the last dimension, into numbers of ``wide`` bytes."""
        return self.graph.operation((scores,), scores.numbers, wide, keeps_output=True, before=before)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, shape: Shape, bias: Tensor | None = None, share: float = 0.0
    ) -> Tensor:
        """torch's scaled_dot_product_attention through the kernel that it chooses: (B, T, H·D).

        Args:
            bias: what is added to the scores, where something is.
            share: dropped of the weights.
        """
        q, k, v = (self.factor(x) for x in (q, k, v))
        bias = self.factor(bias) if bias is not None else None
        if not self.training:
            share = 0.0
        if self.cpu and (share or (bias is not None and bias.gradient)):
            ours = self.fused and bias is not None
            return (self._biased if ours else self._products)(q, k, v, shape, bias, share)
        y = self._fused(q, k, v, shape, bias)
        return self.scale(y) if shape.ordered_queries else y  # what comes out lies in memory like the queries

    def _fused(self, q: Tensor, k: Tensor, v: Tensor, shape: Shape, bias: Tensor | None) -> Tensor:
        """Keeps inputs, output, and one number for each row of scores: flash (Dao et al. 2022, arXiv 2205.14135), and
        with a bias on CUDA the memory-efficient kernel, whose gradient of the bias is one for every score."""
        sums = self.graph.tensor(self.graph.part, shape.batch * shape.heads * shape.rows, 4.0)
        inputs = (q, k, v) if bias is None else (q, k, v, bias)
        temporary = shape.scores * q.wide if bias is not None and bias.gradient else 0.0
        if not self.cpu and q.wide < 4:
            temporary += 4.0 * q.numbers  # the queries' gradient is summed in fp32
        return self.graph.operation(
            inputs, q.numbers, q.wide, saved=(*inputs, sums), keeps_output=True, temporary=temporary
        )

    def _products(self, q: Tensor, k: Tensor, v: Tensor, shape: Shape, bias: Tensor | None, share: float) -> Tensor:
        """Plain products in fp32, which keep the T × S weights, and with dropout twice more
        (aten/src/ATen/native/transformers/attention.cpp, _scaled_dot_product_attention_math)."""
        out = q.wide
        wide = [self.cast(x, 4.0) for x in (q, self._repeated(k, shape), self._repeated(v, shape))]
        scaled = self.scale(wide[0])  # both named to the end
        scores = self._scores(scaled, self.scale(wide[1]), shape)
        if bias is not None:
            scores = self.add_in_place(scores, bias)
        weights = self.softmax(scores, 4.0, before=shape.scores)  # and a byte each: is a whole row masked?
        del scores
        y = self._weighted(self.dropout(weights, share), wide[2], shape, q.numbers)
        if out < 4:  # the weights are returned in half precision too, and forgotten
            y = self.graph.operation((y,), y.numbers, out, before=out * shape.scores)
        return self.scale(y)

    def _biased(self, q: Tensor, k: Tensor, v: Tensor, shape: Shape, bias: Tensor | None, share: float) -> Tensor:
        """models/cpu_bias_attention.py: keeps copies of queries, keys and values in order, the weights, and with
        dropout a byte for each."""
        assert bias is not None
        q, k, v = (self.scale(x) for x in (q, k, v))
        weights = self.graph.tensor(self.graph.part, shape.scores, q.wide)
        kept = self.graph.tensor(self.graph.part, shape.scores, 1.0) if share else None
        square = shape.scores / shape.batch
        some = 4.0 * min(shape.scores, max(square, SCORES_IN_CACHE))
        return self.graph.operation(
            (q, k, v, bias),
            q.numbers,
            q.wide,
            saved=(q, k, v, weights, kept),
            before=2 * some + 4.0 * square,
            temporary=q.numbers * q.wide + 2 * some,
        )

    def eager(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        shape: Shape,
        added: Sequence[Tensor] = (),
        share: float = 0.0,
        *,
        softmax_in: float | None = None,
    ) -> Tensor:
        """The attention that models write out in Python: scores, scaled, with ``added`` (biases, a mask), softmax (in
        numbers of ``softmax_in`` bytes, made like the values again), dropout, and the product with the values."""
        k, v = self._repeated(k, shape), self._repeated(v, shape)
        weights = self.scale(self._scores(self.factor(q), self.factor(k), shape))
        for bias in added:
            weights = self.add(weights, bias)
        weights = self.softmax(weights, softmax_in or weights.wide)
        if softmax_in:
            weights = self.cast(weights, v.wide)
        weights = self.dropout(weights, share)
        if not self.graph.recording or (self.autocast and weights.wide > 2):  # or they are kept anyway
            self.returned[:] = [weights]
        return self.scale(self._weighted(self.factor(weights), self.factor(v), shape, q.numbers))

    def _scores(self, q: Tensor, k: Tensor, shape: Shape) -> Tensor:
        """(B, H, T, S)"""
        q, k = self._ordered(q, shape), k if shape.keys_in_order else self._ordered(k, shape)
        return self.graph.operation((q, k), shape.scores, q.wide, saved=(q, k))

    def _weighted(self, weights: Tensor, v: Tensor, shape: Shape, numbers: float) -> Tensor:
        v = v if shape.keys_in_order else self._ordered(v, shape)
        return self.graph.operation((weights, v), numbers, v.wide, saved=(weights, v))

    def _ordered(self, x: Tensor, shape: Shape) -> Tensor:
        """As a product of many matrices needs it: a copy, unless there is one sequence only."""
        return x if shape.batch == 1 else self.scale(x)

    def _repeated(self, x: Tensor, shape: Shape) -> Tensor:
        """Keys or values once for each head of queries."""
        return x if shape.groups == 1 else self.graph.operation((x,), x.numbers * shape.groups, x.wide)
