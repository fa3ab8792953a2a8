"""T5 and its descendants: an encoder that reads the source, a decoder that looks across at it and writes."""

from __future__ import annotations

from ganeum.plan.architecture.keys import Keys
from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear, Norm, Stream, Table


def t5(keys: Keys) -> Architecture:
    """T5 of both versions, with FLAN's and ByT5's weights too (Raffel et al. 2020, arXiv 1910.10683)."""
    return _t5(keys, vocab=32_128, d_ff=2048, layers=6, heads=8, mlp="relu")


def mt5(keys: Keys) -> Architecture:
    """mT5 (Xue et al. 2021, arXiv 2010.11934): the shape of T5 1.1 with 250,112 tokens."""
    return _t5(keys, vocab=250_112, d_ff=1024, layers=8, heads=6, mlp="gated-gelu")


def umt5(keys: Keys) -> Architecture:
    """UMT5 (Chung et al. 2023, arXiv 2304.09151): as mT5, with a table of relative positions in every layer."""
    return _t5(keys, vocab=250_112, d_ff=1024, layers=8, heads=6, mlp="gated-gelu", table_in_each=True)


def _t5(
    keys: Keys,
    *,
    vocab: int,
    d_ff: int,
    layers: int,
    heads: int,
    mlp: str,
    table_in_each: bool = False,
) -> Architecture:
    """Defaults are those of transformers' config class of the family.

    A config that says ``tie_word_embeddings: false`` (T5 1.1, mT5) has weights with an output layer of their own, and
    so has the model that is loaded from them; transformers 5 ties them all the same where it builds one from nothing.
    """
    C = keys.size("d_model", "hidden_size", default=512)
    H = keys.size("num_heads", "num_attention_heads", default=heads)
    D = keys.size("d_kv", "head_dim", default=64)
    inside = keys.size("d_ff", default=d_ff)
    count: dict[Stream, int] = {"encoder": keys.size("num_layers", "num_hidden_layers", default=layers)}
    count["decoder"] = keys.size("num_decoder_layers", default=count["encoder"])
    vocab = keys.size("vocab_size", default=vocab)
    function = keys.text("feed_forward_proj", default=mlp)
    gated = keys.flag("is_gated_act", default=function.startswith("gated-"))
    if "-" in function.removeprefix("gated-"):
        raise keys.wrong("feed_forward_proj", function, "a function's name, or gated- and such a name")

    usual = "gelu_new" if function == "gated-gelu" else function.removeprefix("gated-")

    def norm(name: str) -> Norm:
        return Norm(name, C, mean=False, bias=False)

    def attention(name: str, *, causal: bool, across: bool = False) -> Attention:
        into = tuple(Linear(f"{name}.{part}", C, H * D) for part in ("query", "key", "value"))
        return Attention(
            heads=H,
            kv_heads=H,
            head_dim=D,
            linears=(*into, Linear(f"{name}.out", H * D, C)),
            causal=causal,
            across=across,
            positions="none" if across else "relative",
        )

    def block(stream: Stream) -> Block:
        decoder = stream == "decoder"
        across = (attention("cross_attention", causal=False, across=True),) if decoder else ()
        return Block(
            stream=stream,
            count=count[stream],
            width=C,
            attentions=(attention("attention", causal=decoder), *across),
            mlp=(
                *((Linear("mlp.gate", C, inside),) if gated else ()),
                Linear("mlp.up", C, inside),
                Linear("mlp.down", inside, C),
            ),
            norms=(norm("attention_norm"), *((norm("cross_attention_norm"),) if decoder else ()), norm("mlp_norm")),
            activation=keys.text("dense_act_fn", default=usual),
        )

    buckets = keys.size("relative_attention_num_buckets", default=32)
    tables = sum(count.values()) if table_in_each else len(count)
    return Architecture(
        name=keys.name,
        family=keys.text("model_type", default="t5"),
        implementation="transformers",
        vocab_size=vocab,
        width=C,
        tables=(Table("token_embedding", vocab, C),),
        blocks=(block("encoder"), block("decoder")),
        norms=(norm("encoder.final_norm"), norm("decoder.final_norm")),
        head=Linear("head", C, vocab),
        tied=keys.flag("tie_word_embeddings", default=True),
        extra=(("relative_positions", tables * buckets * H),),
        dropout=keys.share("dropout_rate", default=0.1),
        rows=vocab,
        source=keys.source,
    )
