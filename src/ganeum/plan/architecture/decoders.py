"""Decoders of one stream: GPT-2 and StarCoder, Llama and its relatives, CodeGen and Phi, MPT."""

from __future__ import annotations

from ganeum.errors import ConfigError
from ganeum.plan.architecture.keys import Keys
from ganeum.plan.architecture.parts import Architecture, Attention, Block, Linear, Norm, Table


def gpt2(keys: Keys) -> Architecture:
    """GPT-2 (Radford et al. 2019): learned positions, biases everywhere."""
    return _gpt2(keys, key_heads=None, activation="gelu_new")


def gpt_bigcode(keys: Keys) -> Architecture:
    """StarCoder and SantaCoder (Li et al. 2023, arXiv 2305.06161): GPT-2 whose heads share one key and value."""
    shared = keys.flag("multi_query", default=True)
    return _gpt2(keys, key_heads=1 if shared else None, activation="gelu_pytorch_tanh")


def _gpt2(keys: Keys, *, key_heads: int | None, activation: str) -> Architecture:
    C = keys.size("n_embd", "hidden_size", default=768)
    H = keys.size("n_head", "num_attention_heads", default=12)
    D = keys.divided(C, H)
    K = key_heads or H
    T = keys.size("n_positions", "max_position_embeddings", default=1024)
    inside = keys.size("n_inner", default=4 * C)
    if keys.flag("add_cross_attention", default=False):
        raise ConfigError(
            f"{keys.name} looks across at an encoder (add_cross_attention: true), which is not counted for this family",
            where=keys.source,
        )
    return _decoder(
        keys,
        layers=keys.size("n_layer", "num_hidden_layers", default=12),
        vocab_size=keys.size("vocab_size", default=50_257),
        attention=Attention(
            heads=H,
            kv_heads=K,
            head_dim=D,
            linears=(Linear("attention.qkv", C, (H + 2 * K) * D, True), Linear("attention.out", C, C, True)),
            positions="learned",
        ),
        mlp=(Linear("mlp.up", C, inside, True), Linear("mlp.down", inside, C, True)),
        norm=Norm("norm", C),
        activation=keys.text("activation_function", default=activation),
        tied=True,
        longest=T,
        dropout=keys.share("resid_pdrop", default=0.1),
    )


def llama(keys: Keys) -> Architecture:
    """Llama 1 to 3 (Touvron et al. 2023, arXiv 2302.13971): RMSNorm, rotary positions, SwiGLU, shared keys."""
    bias = keys.flag("attention_bias", default=False)
    return _llama(
        keys,
        defaults=(4096, 11_008, 32, 32, None),
        qkv_bias=bias,
        out_bias=bias,
        mlp_bias=keys.flag("mlp_bias", default=False),
    )


def mistral(keys: Keys) -> Architecture:
    """Mistral 7B (Jiang et al. 2023, arXiv 2310.06825): Llama with a sliding window, which changes no size."""
    return _llama(keys, defaults=(4096, 14_336, 32, 32, 8), longest=131_072)


def qwen2(keys: Keys) -> Architecture:
    """Qwen 2 and 2.5 (arXiv 2407.10671): Llama with biases on queries, keys and values."""
    return _llama(keys, defaults=(4096, 22_016, 32, 32, 32), qkv_bias=True, vocab_size=151_936, longest=32_768)


def qwen3(keys: Keys) -> Architecture:
    """Qwen 3 (arXiv 2505.09388): Llama with heads of 128 and a norm on each head's queries and keys."""
    bias = keys.flag("attention_bias", default=False)
    return _llama(
        keys,
        defaults=(4096, 22_016, 32, 32, 32),
        head_dim=128,
        qkv_bias=bias,
        out_bias=bias,
        head_norms=True,
        vocab_size=151_936,
        longest=32_768,
    )


def _llama(
    keys: Keys,
    *,
    defaults: tuple[int, int, int, int, int | None],
    head_dim: int | None = None,
    qkv_bias: bool = False,
    out_bias: bool = False,
    mlp_bias: bool = False,
    head_norms: bool = False,
    vocab_size: int = 32_000,
    longest: int = 2048,
) -> Architecture:
    """``defaults``: width, MLP, layers, heads, heads of keys and values (None: all)."""
    width, inner, layers, heads, key_heads = defaults
    C = keys.size("hidden_size", default=width)
    H = keys.size("num_attention_heads", default=heads)
    # null is not "left out" here: it says as many heads of keys as of queries
    null = keys.values.get("num_key_value_heads", key_heads) is None
    K = keys.shared(H, H if null else keys.size("num_key_value_heads", default=key_heads or H))
    D = keys.optional_size("head_dim") or head_dim or keys.divided(C, H)
    inside = keys.size("intermediate_size", default=inner)
    norms = tuple(Norm(f"attention.{part}_norm", D, mean=False, bias=False) for part in ("query", "key"))
    return _decoder(
        keys,
        layers=keys.size("num_hidden_layers", default=layers),
        vocab_size=keys.size("vocab_size", default=vocab_size),
        attention=Attention(
            heads=H,
            kv_heads=K,
            head_dim=D,
            linears=(*_apart(C, H, K, D, qkv_bias), Linear("attention.out", H * D, C, out_bias)),
            norms=norms if head_norms else (),
            positions="rotary",
            rotary_dim=D,
        ),
        mlp=(
            Linear("mlp.gate", C, inside, mlp_bias),
            Linear("mlp.up", C, inside, mlp_bias),
            Linear("mlp.down", inside, C, mlp_bias),
        ),
        norm=Norm("norm", C, mean=False, bias=False),
        activation=keys.text("hidden_act", default="silu"),
        tied=False,
        longest=keys.size("max_position_embeddings", default=longest),
        dropout=0.0,
    )


def codegen(keys: Keys) -> Architecture:
    """CodeGen (Nijkamp et al. 2022, arXiv 2203.13474), of GPT-J's shape: attention and MLP side by side."""
    C = keys.size("n_embd", "hidden_size", default=4096)
    H = keys.size("n_head", "num_attention_heads", default=16)
    inside = keys.size("n_inner", default=4 * C)
    return _decoder(
        keys,
        layers=keys.size("n_layer", "num_hidden_layers", default=28),
        vocab_size=keys.size("vocab_size", default=50_400),
        attention=Attention(
            heads=H,
            kv_heads=H,
            head_dim=keys.divided(C, H),
            linears=(Linear("attention.qkv", C, 3 * C), Linear("attention.out", C, C)),
            positions="rotary",
            rotary_dim=keys.size("rotary_dim", default=64),
        ),
        mlp=(Linear("mlp.up", C, inside, True), Linear("mlp.down", inside, C, True)),
        norm=Norm("norm", C),
        activation=keys.text("activation_function", default="gelu_new"),
        tied=False,
        longest=keys.size("n_positions", "max_position_embeddings", default=2048),
        dropout=keys.share("resid_pdrop", default=0.0),
        parallel=True,
        head_bias=True,
    )


def phi(keys: Keys) -> Architecture:
    """Phi 1 to 2 (Gunasekar et al. 2023, arXiv 2306.11644): attention and MLP side by side, biases everywhere."""
    C = keys.size("hidden_size", default=2048)
    H = keys.size("num_attention_heads", default=32)
    K = keys.shared(H, keys.size("num_key_value_heads", default=H))
    D = keys.divided(C, H)
    inside = keys.size("intermediate_size", default=8192)
    rotated = keys.inner("rope_parameters").share("partial_rotary_factor", default=0.5)
    rotated = keys.share("partial_rotary_factor", default=rotated)
    norms = tuple(Norm(f"attention.{part}_norm", D) for part in ("query", "key"))
    return _decoder(
        keys,
        layers=keys.size("num_hidden_layers", default=24),
        vocab_size=keys.size("vocab_size", default=51_200),
        attention=Attention(
            heads=H,
            kv_heads=K,
            head_dim=D,
            linears=(*_apart(C, H, K, D, True), Linear("attention.out", C, C, True)),
            norms=norms if keys.flag("qk_layernorm", default=False) else (),
            positions="rotary",
            rotary_dim=int(D * rotated),
        ),
        mlp=(Linear("mlp.up", C, inside, True), Linear("mlp.down", inside, C, True)),
        norm=Norm("norm", C),
        activation=keys.text("hidden_act", default="gelu_new"),
        tied=False,
        longest=keys.size("max_position_embeddings", default=2048),
        dropout=keys.share("resid_pdrop", default=0.0),
        parallel=True,
        head_bias=True,
    )


def mpt(keys: Keys) -> Architecture:
    """MPT: no biases, ALiBi's slopes for positions (Press et al. 2021, arXiv 2108.12409).

    transformers' MPT is the published one: it knows no biases, no learned positions and no other MLP, and a config
    that asks for them describes a network that it would not build.
    """
    C = keys.size("d_model", "hidden_size", default=2048)
    H = keys.size("n_heads", "num_attention_heads", default=16)
    attention = keys.inner("attn_config")
    usual: dict[str, tuple[object, object]] = {
        "no_bias": (keys.flag("no_bias", default=True), True),
        "attn_config.alibi": (attention.flag("alibi", default=True), True),
        "attn_config.qk_ln": (attention.flag("qk_ln", default=False), False),
        "expansion_ratio": (keys.size("expansion_ratio", "mlp_ratio", default=4), 4),
        "attn_config.attn_type": (
            attention.text("attn_type", default="multihead_attention"),
            "multihead_attention",
        ),
    }
    for key, (value, built) in usual.items():
        if value != built:
            raise ConfigError(
                f"{key} in the config of {keys.name} is {value!r}, and transformers builds MPT only with {built!r}",
                where=keys.source,
                why="it leaves the key out of account, so the model would not be the one that the config describes",
            )
    return _decoder(
        keys,
        layers=keys.size("n_layers", "num_hidden_layers", default=24),
        vocab_size=keys.size("vocab_size", default=50_368),
        attention=Attention(
            heads=H,
            kv_heads=H,
            head_dim=keys.divided(C, H),
            linears=(Linear("attention.qkv", C, 3 * C), Linear("attention.out", C, C)),
            positions="alibi",
        ),
        mlp=(Linear("mlp.up", C, 4 * C), Linear("mlp.down", 4 * C, C)),
        norm=Norm("norm", C, bias=False),
        activation="gelu",
        tied=True,
        longest=keys.size("max_seq_len", default=2048),
        dropout=attention.share("attn_pdrop", default=0.0),
    )


def replit(keys: Keys) -> Architecture:
    """replit-code-v1: MPT's network, with names of its own for the same keys and other defaults."""
    attention = {
        "alibi": keys.flag("alibi", default=False),
        "qk_ln": keys.flag("attn_qk_ln", default=False),
        "attn_pdrop": keys.share("attn_pdrop", default=0.0),
    }
    renamed = {**keys.values, "no_bias": keys.flag("no_bias", default=False), "attn_config": attention}
    return mpt(Keys(renamed, keys.name, keys.source))


def _apart(C: int, H: int, K: int, D: int, bias: bool) -> tuple[Linear, ...]:
    """Queries, keys and values as three matrices."""
    return (
        Linear("attention.query", C, H * D, bias),
        Linear("attention.key", C, K * D, bias),
        Linear("attention.value", C, K * D, bias),
    )


def _decoder(
    keys: Keys,
    *,
    layers: int,
    vocab_size: int,
    attention: Attention,
    mlp: tuple[Linear, ...],
    norm: Norm,
    activation: str,
    tied: bool,
    longest: int,
    dropout: float,
    parallel: bool = False,
    head_bias: bool = False,
) -> Architecture:
    """One stream of ``layers`` equal blocks; every norm is like ``norm``, one a block where ``parallel``."""
    C = norm.width

    def like(name: str) -> Norm:
        return Norm(name, C, mean=norm.mean, bias=norm.bias)

    learned = (Table("position_embedding", longest, C),) if attention.positions == "learned" else ()
    return Architecture(
        name=keys.name,
        family=keys.text("model_type", default=""),
        implementation="transformers",
        vocab_size=vocab_size,
        width=C,
        tables=(Table("token_embedding", vocab_size, C), *learned),
        blocks=(
            Block(
                stream="decoder",
                count=layers,
                width=C,
                attentions=(attention,),
                mlp=mlp,
                norms=(like("norm"),) if parallel else (like("attention_norm"), like("mlp_norm")),
                activation=activation,
                parallel=parallel,
            ),
        ),
        norms=(like("final_norm"),),
        head=Linear("head", C, vocab_size, head_bias),
        tied=keys.flag("tie_word_embeddings", default=tied),
        longest=longest,
        dropout=dropout,
        rows=vocab_size,
        source=keys.source,
    )
