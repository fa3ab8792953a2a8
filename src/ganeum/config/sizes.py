"""Sizes of a model that follow from others where a config says null, resolved here and nowhere else."""

from __future__ import annotations

from ganeum.config.schema import Model


def head_dim(model: Model) -> int:
    """Width of a head; null: the heads share the width of the model."""
    return model.head_dim or model.n_embd // model.n_head


def n_kv_head(model: Model) -> int:
    """Heads of keys and of values; null: as many as of queries."""
    return model.n_kv_head or model.n_head


def qkv_widths(model: Model) -> tuple[int, int, int]:
    """Widths of queries, keys and values, which lie side by side in ``attention.qkv``.

    >>> qkv_widths(Model(style="modern", n_embd=1024, n_head=16, n_kv_head=8, head_dim=128))
    (2048, 1024, 1024)
    """
    keys = n_kv_head(model) * head_dim(model)
    return model.n_head * head_dim(model), keys, keys


def intermediate_size(model: Model) -> int:
    """Width inside the MLP; null: 4 n_embd, and in the modern style, whose MLP has three matrices for two, 8/3 n_embd
    up to the next multiple of 64 (Shazeer 2020, arXiv 2002.05202, section 3.1: as many weights as the other has).

    >>> intermediate_size(Model(n_embd=384)), intermediate_size(Model(style="modern", n_embd=512))
    (1536, 1408)
    """
    if model.intermediate_size:
        return model.intermediate_size
    return 4 * model.n_embd if model.style == "gpt2" else -(-8 * model.n_embd // (3 * 64)) * 64


def norm_eps(model: Model) -> float:
    """What every norm adds to the variance; null: GPT-2's 1e-5, Qwen3's 1e-6."""
    return model.norm_eps or (1e-5 if model.style == "gpt2" else 1e-6)


def qkv_bias(model: Model) -> bool:
    """Whether queries, keys and values have biases; null: as the other layers."""
    return model.bias if model.qkv_bias is None else model.qkv_bias


def dropout(model: Model) -> float:
    """The share that a GPT of ours drops; null: none."""
    return model.dropout or 0.0


def resolved(model: Model) -> Model:
    """The same model with a number for everything that was null."""
    return model.model_copy(
        update={
            "n_kv_head": n_kv_head(model),
            "head_dim": head_dim(model),
            "intermediate_size": intermediate_size(model),
            "norm_eps": norm_eps(model),
            "dropout": dropout(model),
        }
    )
