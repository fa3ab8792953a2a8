"""FLOPs in closed form: what one token, one step and the whole run cost in multiplications and additions."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.config import sizes
from ganeum.config.schema import Model, Train
from ganeum.plan.parameters import Parameters, block_matrices


@dataclass(frozen=True)
class Flops:
    """Floating-point operations per token; a multiplication and an addition are two.

    Attributes:
        matmul_per_token: forward, ``2 · matmul parameters``.
        attention_per_token: forward, scores and their weighted sum, in all layers.
        forward_per_token: the two together.
        recomputed_per_token: forward work done again in the backward pass by activation checkpointing. It is not part
            of ``per_token``: MFU counts the work the model needs, not what a way of saving memory adds.
        per_token: forward and backward, what training needs.
    """

    matmul_per_token: int
    attention_per_token: int
    forward_per_token: int
    recomputed_per_token: int
    per_token: int


def count(model: Model, parameters: Parameters, train: Train | None = None) -> Flops:
    """FLOPs per token of training, as the field counts them.

    Source: PaLM (Chowdhery et al. 2022, arXiv 2204.02311), appendix B. Forward, per token:

    - matrices: each weight is multiplied once and its product added once, ``2 · matmul``. Embeddings are looked up and
      cost nothing; the output layer is a matrix and counts, tied or not. Norms, activations, rotations and softmax are
      left out: thousands of operations a token against hundreds of millions.
    - attention: a token's queries, A = n_head · head_dim numbers, meet T keys (``2 T A``) and the T weights meet T
      values (``2 T A``): ``4 · T · A`` a layer, however many heads share keys and values. This is the whole T × T
      square although a causal token sees (T + 1) / 2 keys on average: the field's MFU is counted so, and only figures
      counted alike compare. A kernel that skips the masked half does about half as much.

    Backward costs twice the forward, since each product has two factors to be differentiated by: 3 × forward in all;
    once for a matrix that is frozen.

    ``train`` tells what is recomputed (models/checkpointing.py): it is stopped as soon as backward has what it needs.
    """
    queries, _, _ = sizes.qkv_widths(model)
    attention = model.n_layer * 4 * model.block_size * queries
    forward = 2 * parameters.matmul + attention
    return Flops(
        matmul_per_token=2 * parameters.matmul,
        attention_per_token=attention,
        forward_per_token=forward,
        recomputed_per_token=_recomputed(model, train) if train else 0,
        per_token=3 * forward - 2 * parameters.frozen,
    )


def _recomputed(model: Model, train: Train) -> int:
    """Per token in all layers: of the MLP half, or of the whole block. Nobody needs what ``mlp.down`` gives once more,
    but a dropout of the block behind it and an adapter on it do. The adapters' own products are left out."""
    mode, again = train.activation_checkpointing, block_matrices(model)
    if mode in ("auto", "none"):
        return 0
    adapted = train.lora.rank is not None and train.lora.targets == "all"
    if not adapted and not (mode == "whole" and model.dropout):
        del again["mlp.down"]
    attention = 4 * model.block_size * sizes.qkv_widths(model)[0]
    if mode == "selective":
        again, attention = {name: size for name, size in again.items() if name.startswith("mlp")}, 0
    return model.n_layer * (2 * sum(before * after for before, after in again.values()) + attention)
