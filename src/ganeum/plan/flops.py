"""FLOPs in closed form: what one token, one step and the whole run cost in multiplications and additions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ganeum.config.schema import Lora
from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear
from ganeum.plan.execution import Execution
from ganeum.plan.parameters import adapted


@dataclass(frozen=True)
class Flops:
    """Floating-point operations; a multiplication and an addition are two.

    Everything is counted a sequence: ``length`` tokens of the decoder, and the encoder's where there is one. What is
    given ``per_token`` is that, divided by the decoder's tokens (and rounded where two lengths do not divide).

    Attributes:
        length: tokens of a sequence of the decoder.
        sequences: sequences a step, on all devices.
        by_part: forward, a sequence: ``encoder matrices``, ``encoder attention``, ``matrices``, ``attention``,
            ``cross attention``, ``head``, as far as they are there.
        matmul: forward, a sequence: products with weights.
        attention: forward, a sequence: scores and their weighted sum, in all layers.
        backward: a sequence; 0 where nothing is trained.
        recomputed: forward work done again in the backward pass by activation checkpointing, a sequence. It is not
            part of ``per_token``: MFU counts the work the model needs, not what a way of saving memory adds.
    """

    length: int
    sequences: int
    by_part: dict[str, int]
    matmul: int
    attention: int
    backward: int
    recomputed: int

    @property
    def forward(self) -> int:
        """Forward, a sequence."""
        return self.matmul + self.attention

    @property
    def attention_per_token(self) -> int:
        """Forward, scores and their weighted sum, in all layers."""
        return self._per_token(self.attention)

    @property
    def forward_per_token(self) -> int:
        """The two together."""
        return self._per_token(self.forward)

    @property
    def recomputed_per_token(self) -> int:
        """What checkpointing adds."""
        return self._per_token(self.recomputed)

    @property
    def per_token(self) -> int:
        """Forward and backward: what training needs."""
        return self._per_token(self.forward + self.backward)

    @property
    def per_step(self) -> int:
        """Of all sequences of a step, without what is recomputed."""
        return self.sequences * (self.forward + self.backward)

    @property
    def recomputed_per_step(self) -> int:
        """Of all sequences of a step."""
        return self.sequences * self.recomputed

    def _per_token(self, flops: int) -> int:
        return (2 * flops + self.length) // (2 * self.length)


def of(architecture: Architecture, execution: Execution) -> Flops:
    """FLOPs as the field counts them.

    Source: PaLM (Chowdhery et al. 2022, arXiv 2204.02311), appendix B. Forward, per token:

    - matrices: each weight is multiplied once and its product added once, ``2 · weights``. Embeddings are looked up and
      cost nothing; the output layer is a matrix and counts, tied or not. Norms, activations, rotations and softmax are
      left out: thousands of operations a token against hundreds of millions. The encoder's matrices meet the encoder's
      tokens, and so do those that make keys and values for the decoder to look across at.
    - attention: a token's queries, A = heads · head_dim numbers, meet T keys (``2 T A``) and the T weights meet T
      values (``2 T A``): ``4 · T · A`` a layer, however many heads share keys and values. This is the whole T × T
      square although a causal token sees (T + 1) / 2 keys on average: the field's MFU is counted so, and only figures
      counted alike compare. A kernel that skips the masked half does about half as much. In generation, token by token,
      there is no square: each token meets itself and those before it, ``(T + 1) / 2`` on average.

    Backward costs twice the forward, since each product has two factors to be differentiated by: 3 × forward in all.
    A frozen matrix (under adapters) costs once the forward, and nothing where it reads the frozen embedding.
    """
    training, generation = execution.purpose == "training", execution.purpose == "generation"
    beams = execution.beams if generation else 1
    by_part: Counter[str] = Counter()
    spared = recomputed = 0
    for block in architecture.blocks:
        prefix, unasked = "encoder " if block.stream == "encoder" else "", _unasked(architecture, block, execution)
        for linear, tokens in products(block, execution.length * beams, execution.source_length, beams):
            product, adapter = 2 * linear.weights, _adapter(linear, execution.lora)
            by_part[f"{prefix}matrices"] += block.count * product * tokens
            by_part["adapters"] += block.count * sum(adapter) * tokens
            if execution.lora.rank is not None:
                spared += block.count * product * tokens
                spared += (linear in unasked) * (product + adapter[0]) * tokens
        for attention in block.attentions:
            part = "cross attention" if attention.across else f"{prefix}attention"
            by_part[part] += block.count * (1 if prefix else beams) * _attention(block, attention, execution)
        recomputed += block.count * sum(work for _, work in again(architecture, block, execution))
    by_part["head"] = 2 * architecture.head.weights * execution.length * beams
    if execution.lora.rank is not None:
        spared += by_part["head"]
    attention_in_all = sum(flops for part, flops in by_part.items() if part.endswith("attention"))
    forward = sum(by_part.values())
    return Flops(
        length=execution.length,
        sequences=execution.micro_batch_size * (execution.accumulation if training else 1) * execution.devices,
        by_part={part: flops for part, flops in by_part.items() if flops},
        matmul=forward - attention_in_all,
        attention=attention_in_all,
        backward=2 * forward - spared if training else 0,
        recomputed=recomputed,
    )


def products(block: Block, length: int, source_length: int, beams: int = 1) -> Iterator[tuple[Linear, int]]:
    """Each matrix of one layer with the tokens that it multiplies: the decoder's ``length`` or the source's, which
    every beam has for itself where it is looked across at."""
    own = source_length if block.stream == "encoder" else length
    for attention in block.attentions:
        for linear in attention.linears:
            source = attention.across and linear.name.endswith((".key", ".value"))
            yield linear, source_length * beams if source else own
    yield from ((linear, own) for linear in block.mlp)


def _adapter(linear: Linear, lora: Lora) -> tuple[int, int]:
    """Of one token through an adapter's two matrices: to ``rank`` numbers, and from there; 0 where there is none."""
    rank = (lora.rank or 0) * adapted(linear, lora)
    return 2 * rank * linear.inputs, 2 * rank * linear.outputs


def _unasked(architecture: Architecture, block: Block, execution: Execution) -> tuple[Linear, ...]:
    """Matrices of a stream's first layer for whose input no gradient is asked: it is the embedding, which is frozen.

    Under checkpointing transformers asks for that gradient all the same (``enable_input_require_grads``).
    """
    if architecture.implementation == "transformers" and execution.checkpointing != "none":
        return ()
    first = block.attentions[0].linears[:-1]
    if not block.parallel:
        return first
    return first + (block.mlp[:-1] if adapted(block.mlp[0], execution.lora) else block.mlp)


def _attention(block: Block, attention: Attention, execution: Execution) -> int:
    """Scores and weighted sum of one layer, a sequence."""
    queries = execution.source_length if block.stream == "encoder" else execution.length
    keys = execution.source_length if attention.across else queries
    if execution.purpose == "generation" and attention.causal:
        return 2 * queries * (queries + 1) * attention.queries
    return 4 * queries * keys * attention.queries


def again(architecture: Architecture, block: Block, execution: Execution) -> Iterator[tuple[str, int]]:
    """What checkpointing computes a second time in one layer, a sequence: each part's name and FLOPs.

    Of the MLP half, or of the whole block. It is stopped as soon as backward has what it needs, and nobody needs what
    the last product gives once more, but a dropout of the block behind it does.
    """
    if execution.checkpointing == "none" or execution.purpose != "training":
        return
    whole, last = execution.checkpointing == "whole", block.mlp[-1]
    to_the_end = whole and architecture.dropout > 0
    for linear, tokens in products(block, execution.length, execution.source_length):
        if not whole and linear not in block.mlp:
            continue
        product, (into, out) = 2 * linear.weights, _adapter(linear, execution.lora)
        if linear is last and not to_the_end:  # an adapter's second product comes behind the matrix's own
            product, out = (product, 0) if out else (0, 0)
        if product + into + out:
            yield linear.name, (product + into + out) * tokens
    if whole:
        for attention in block.attentions:
            yield "cross attention" if attention.across else "attention", _attention(block, attention, execution)
