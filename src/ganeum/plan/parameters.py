"""Parameters in closed form: what the model will hold, part by part, before it is built."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.config.schema import Lora
from ganeum.plan.architecture.parts import Architecture, Block, Linear, Norm


@dataclass(frozen=True)
class Parameters:
    """Counts of numbers a model learns.

    Attributes:
        by_component: component → count; the values add up to ``total``.
        total: every parameter once: a tied output layer is the token embedding and adds nothing; the rows that pad the
            vocabulary (50,257 → 50,304) are left out, because no token ever reaches them.
        trainable: those that training changes: all, or the adapters alone.
        non_embedding: the blocks and the final norms, without the embeddings and the output layer: the N of scaling
            laws (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
        matmul: those that multiply every token of their stream: the blocks' matrices and the output layer, tied or
            not. Embeddings are looked up, and biases and norms added or scaled: neither is matrix work.
        frozen: those of ``matmul`` that are not trained: they need no gradient.
    """

    by_component: dict[str, int]
    total: int
    trainable: int
    non_embedding: int
    matmul: int
    frozen: int = 0


def of(architecture: Architecture, lora: Lora | None = None) -> Parameters:
    """The parameters of a model, and of the adapters on it, if ``lora.rank`` is set.

    Components of a model with two streams carry the stream's name: ``encoder.mlp``, ``decoder.cross_attention``.

    >>> from ganeum.plan.architecture import find
    >>> of(find("gpt2")).total, of(find("t5-base")).total
    (124439808, 222903552)
    """
    blocks: dict[str, int] = {}
    for block in architecture.blocks:
        stream = f"{block.stream}." if architecture.encoder_decoder else ""
        for attention in block.attentions:
            name = stream + ("cross_attention" if attention.across else "attention")
            blocks[name] = block.count * sum(linear.size for linear in attention.linears)
        blocks[f"{stream}mlp"] = block.count * sum(linear.size for linear in block.mlp)
    norms = sum(norm.size for norm in architecture.norms)
    norms += sum(block.count * norm.size for block in architecture.blocks for norm in norms_of(block))
    within = {**blocks, "norms": norms, **dict(architecture.extra)}
    head = architecture.head
    tables = {table.name: table.size for table in architecture.tables}
    by_component = {**tables, **within, "head": head.size - head.weights * architecture.tied}
    matmul = head.weights + sum(
        block.count * linear.weights for block in architecture.blocks for linear in block.linears
    )
    added = adapters(architecture, lora) if lora else 0
    if added:
        by_component["adapters"] = added
    total = sum(by_component.values())
    return Parameters(
        by_component=by_component,
        total=total,
        trainable=added or total,
        non_embedding=sum(within.values()),
        matmul=matmul + added,
        frozen=matmul if added else 0,
    )


def norms_of(block: Block) -> tuple[Norm, ...]:
    """All norms of one layer, those inside the heads too."""
    return (*block.norms, *(norm for attention in block.attentions for norm in attention.norms))


def adapted(linear: Linear, lora: Lora) -> bool:
    """Whether a matrix gets an adapter."""
    return lora.rank is not None and (lora.targets == "all" or "attention" in linear.name)


def adapters(architecture: Architecture, lora: Lora) -> int:
    """Numbers in the low-rank adapters: ``rank · (in + out)`` of each linear layer that gets one."""
    return sum(
        block.count * (lora.rank or 0) * (linear.inputs + linear.outputs)
        for block in architecture.blocks
        for linear in block.linears
        if adapted(linear, lora)
    )
