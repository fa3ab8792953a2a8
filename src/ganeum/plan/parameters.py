"""Parameters in closed form: what the model will hold, part by part, before it is built."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.config import sizes
from ganeum.config.schema import Lora, Model


@dataclass(frozen=True)
class Parameters:
    """Counts of numbers a model learns.

    Attributes:
        by_component: component → count; the values add up to ``total``.
        total: every parameter once: a tied output layer is the token embedding and adds nothing; the rows that pad the
            vocabulary (50,257 → 50,304) are left out, because no token ever reaches them.
        trainable: those that training changes: all, or the adapters alone.
        non_embedding: the blocks and the final norm, without the two embeddings and the output layer: the N of scaling
            laws (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
        matmul: those that multiply every token: the blocks' matrices and the output layer, tied or not. Embeddings are
            looked up, and biases and norms added or scaled: neither is matrix work.
        frozen: those of ``matmul`` that are not trained: they need no gradient.
    """

    by_component: dict[str, int]
    total: int
    trainable: int
    non_embedding: int
    matmul: int
    frozen: int = 0


def block_matrices(model: Model) -> dict[str, tuple[int, int]]:
    """The matrices of one block by their names in the model: ``(in, out)`` of each linear layer."""
    C, inside = model.n_embd, sizes.intermediate_size(model)
    qkv = sizes.qkv_widths(model)
    gate = {"mlp.gate": (C, inside)} if model.style == "modern" else {}
    return {
        "attention.qkv": (C, sum(qkv)),
        "attention.out": (qkv[0], C),
        **gate,
        "mlp.up": (C, inside),
        "mlp.down": (inside, C),
    }


def adapters(model: Model, lora: Lora) -> int:
    """Numbers in the low-rank adapters: ``rank · (in + out)`` of each linear layer that gets one."""
    targets = [size for name, size in block_matrices(model).items() if lora.targets == "all" or "attention" in name]
    return model.n_layer * (lora.rank or 0) * sum(before + after for before, after in targets)


def count(model: Model, vocab_size: int, lora: Lora | None = None) -> Parameters:
    """The parameters of ``model`` with ``vocab_size`` tokens, and of the adapters on it, if ``lora.rank`` is set.

    >>> gpt2_small = Model(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True)
    >>> count(gpt2_small, 50_257).total
    124439808
    """
    C, layers, modern = model.n_embd, model.n_layer, model.style == "modern"
    matrices = {name: before * after for name, (before, after) in block_matrices(model).items()}
    attention = matrices["attention.qkv"] + matrices["attention.out"]
    attention += sum(sizes.qkv_widths(model)) * sizes.qkv_bias(model) + C * model.bias
    mlp = sum(matrices.values()) - matrices["attention.qkv"] - matrices["attention.out"]
    mlp += (sizes.intermediate_size(model) + C) * model.bias
    norm = C + C * model.bias
    in_heads = 2 * sizes.head_dim(model) if modern else 0  # a norm of queries and one of keys, each for all heads
    head = vocab_size * C
    by_component = {
        "token_embedding": vocab_size * C,
        "position_embedding": 0 if modern else model.block_size * C,
        "attention": layers * attention,
        "mlp": layers * mlp,
        "norms": (2 * layers + 1) * norm + layers * in_heads,
        "head": 0 if model.tie_embeddings else head,
    }
    matmul = layers * sum(matrices.values()) + head
    added = adapters(model, lora) if lora else 0
    if added:
        by_component["adapters"] = added
    total = sum(by_component.values())
    return Parameters(
        by_component=by_component,
        total=total,
        trainable=added or total,
        non_embedding=by_component["attention"] + by_component["mlp"] + by_component["norms"],
        matmul=matmul + added,
        frozen=matmul if added else 0,
    )
