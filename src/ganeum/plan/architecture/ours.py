"""Our own GPT in its two styles, as parts; models/gpt.py is what runs."""

from __future__ import annotations

from ganeum.config import sizes
from ganeum.config.schema import Model
from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear, Norm, Table

VOCAB_MULTIPLE = 64  # models/gpt.py pads the vocabulary up to it; a test holds the two together


def architecture(model: Model, vocab_size: int | None = None) -> Architecture:
    """The parts of ``model`` with ``vocab_size`` tokens; None: ``model.vocab_size``, which is then a number."""
    if vocab_size is None:
        assert isinstance(model.vocab_size, int), "vocab_size is resolved before anything is counted"
        vocab_size = model.vocab_size
    C, inside, modern = model.n_embd, sizes.intermediate_size(model), model.style == "modern"
    queries, keys, values = sizes.qkv_widths(model)
    head_dim = sizes.head_dim(model)

    def norm(name: str, width: int = C) -> Norm:
        return Norm(name, width, mean=not modern, bias=model.bias)

    attention = Attention(
        heads=model.n_head,
        kv_heads=sizes.n_kv_head(model),
        head_dim=head_dim,
        linears=(
            Linear("attention.qkv", C, queries + keys + values, sizes.qkv_bias(model)),
            Linear("attention.out", queries, C, model.bias),
        ),
        norms=(norm("attention.query_norm", head_dim), norm("attention.key_norm", head_dim)) if modern else (),
        positions="rotary" if modern else "learned",
        rotary_dim=head_dim if modern else 0,
    )
    gate = (Linear("mlp.gate", C, inside, model.bias),) if modern else ()
    block = Block(
        stream="decoder",
        count=model.n_layer,
        width=C,
        attentions=(attention,),
        mlp=(*gate, Linear("mlp.up", C, inside, model.bias), Linear("mlp.down", inside, C, model.bias)),
        norms=(norm("attention_norm"), norm("mlp_norm")),
        activation="silu" if modern else model.activation,
    )
    positions = () if modern else (Table("position_embedding", model.block_size, C),)
    return Architecture(
        name=f"{model.style}, {model.n_layer} × {C}",
        family=f"ganeum {model.style}",
        implementation="ganeum",
        vocab_size=vocab_size,
        width=C,
        tables=(Table("token_embedding", vocab_size, C), *positions),
        blocks=(block,),
        norms=(norm("final_norm"),),
        head=Linear("head", C, vocab_size),
        tied=model.tie_embeddings,
        longest=model.block_size,
        dropout=sizes.dropout(model),
        rows=-(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE,
    )
