"""A model of a type that nobody described part by part, counted as one of a known type with the same sizes.

Most decoders are Llama's parts under other names, and most models with an encoder are T5's. Learned positions, biases
and second norms are left out: a few thousandths of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Llama's and T5's keys → what others call them; transformers' defaults are those of PretrainedConfig.
DECODER = {
    "hidden_size": ("n_embd", "d_model", "dim"),
    "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("n_head", "num_heads", "n_heads"),
    "num_key_value_heads": (),
    "head_dim": (),
    "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
    "vocab_size": (),
    "max_position_embeddings": ("n_positions", "max_seq_len"),
}
ENCODER_DECODER = {
    "d_model": ("hidden_size",),
    "num_layers": ("encoder_layers", "num_hidden_layers"),
    "num_decoder_layers": ("decoder_layers",),
    "num_heads": ("encoder_attention_heads", "num_attention_heads"),
    "d_ff": ("encoder_ffn_dim", "intermediate_size"),
    "vocab_size": (),
}
NEEDED = {
    "llama": ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"),
    "t5": tuple(ENCODER_DECODER),
}


def akin(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config.json of a Llama or a T5 with the sizes of ``config``; None: it does not say them."""
    pairs = bool(config.get("is_encoder_decoder"))
    found: dict[str, Any] = {"model_type": "t5" if pairs else "llama"}
    for key, others in (ENCODER_DECODER if pairs else DECODER).items():
        said = [config[name] for name in (key, *others) if config.get(name) is not None]
        found |= {key: said[0]} if said else {}
    found["tie_word_embeddings"] = config.get("tie_word_embeddings", True)
    if any(key not in found for key in NEEDED[found["model_type"]]):
        return None
    if pairs:
        found |= {"d_kv": found["d_model"] // found["num_heads"], "dropout_rate": config.get("dropout", 0.1)}
    else:
        found.setdefault("intermediate_size", 4 * found["hidden_size"])
    return found
