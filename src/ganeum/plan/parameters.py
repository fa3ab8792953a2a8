"""Parameters in closed form: what the model will hold, part by part, before it is built."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.config.schema import Model


@dataclass(frozen=True)
class Parameters:
    """Counts of numbers a model learns.

    Attributes:
        by_component: component → count; the values add up to ``total``.
        total: every parameter once: a tied output layer is the token embedding and adds nothing; the rows that pad the
            vocabulary (50,257 → 50,304) are left out, because no token ever reaches them.
        trainable: those that training changes.
        non_embedding: the blocks and the final norm, without the two embeddings and the output layer: the N of scaling
            laws (Kaplan et al. 2020, arXiv 2001.08361, section 2.1).
        matmul: those that multiply every token: the blocks' matrices and the output layer, tied or not. Embeddings are
            looked up, and biases and norms added or scaled: neither is matrix work.
    """

    by_component: dict[str, int]
    total: int
    trainable: int
    non_embedding: int
    matmul: int


def block_matrices(model: Model) -> dict[str, int]:
    """Component → weights of the matrices in one block: ``(in, out)`` of each linear layer multiplied out."""
    C = model.n_embd
    return {"attention.qkv": C * 3 * C, "attention.out": C * C, "mlp.up": C * 4 * C, "mlp.down": 4 * C * C}


def count(model: Model, vocab_size: int) -> Parameters:
    """The parameters of ``model`` with ``vocab_size`` tokens, in the ``gpt2`` style.

    >>> gpt2_small = Model(n_layer=12, n_head=12, n_embd=768, block_size=1024, bias=True)
    >>> count(gpt2_small, 50_257).total
    124439808
    """
    C, layers = model.n_embd, model.n_layer
    qkv_bias = model.bias if model.qkv_bias is None else model.qkv_bias
    matrices = block_matrices(model)
    attention = matrices["attention.qkv"] + matrices["attention.out"] + 3 * C * qkv_bias + C * model.bias
    mlp = matrices["mlp.up"] + matrices["mlp.down"] + 5 * C * model.bias
    norm = C + C * model.bias
    head = vocab_size * C
    by_component = {
        "token_embedding": vocab_size * C,
        "position_embedding": model.block_size * C,
        "attention": layers * attention,
        "mlp": layers * mlp,
        "norms": (2 * layers + 1) * norm,
        "head": 0 if model.tie_embeddings else head,
    }
    total = sum(by_component.values())
    return Parameters(
        by_component=by_component,
        total=total,
        trainable=total,
        non_embedding=by_component["attention"] + by_component["mlp"] + by_component["norms"],
        matmul=layers * sum(matrices.values()) + head,
    )
