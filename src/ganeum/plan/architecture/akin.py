"""A model of a type that nobody described part by part, counted as one of a known type with the same sizes.

Most decoders are Llama's parts under other names, those without a gate in their MLP GPT-2's, and most models with an
encoder are T5's. Of billions of parameters that is within a few thousandths: what is left out, or in it for nothing,
are learned positions, biases and norms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# The known type's keys → what others call them.
NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "llama": {
        "hidden_size": ("n_embd", "d_model", "dim"),
        "num_hidden_layers": ("n_layer", "num_layers", "n_layers"),
        "num_attention_heads": ("n_head", "num_heads", "n_heads"),
        "num_key_value_heads": (),
        "head_dim": (),
        "intermediate_size": ("n_inner", "ffn_dim", "ffn_hidden_size", "d_ff"),
        "vocab_size": (),
        "max_position_embeddings": ("n_positions", "max_seq_len"),
    },
    "gpt2": {
        "n_embd": ("hidden_size", "d_model", "dim"),
        "n_layer": ("num_hidden_layers", "num_layers", "n_layers"),
        "n_head": ("num_attention_heads", "num_heads", "n_heads"),
        "n_inner": ("intermediate_size", "ffn_dim", "ffn_hidden_size", "d_ff"),
        "vocab_size": (),
        "n_positions": ("max_position_embeddings", "max_seq_len"),
    },
    "t5": {
        "d_model": ("hidden_size",),
        "num_layers": ("encoder_layers", "num_hidden_layers"),
        "num_decoder_layers": ("decoder_layers",),
        "num_heads": ("encoder_attention_heads", "num_attention_heads"),
        "d_ff": ("encoder_ffn_dim", "intermediate_size"),
        "vocab_size": (),
    },
}
WITHOUT = frozenset({"num_key_value_heads", "head_dim", "intermediate_size", "n_inner"})  # what need not be said
WITHOUT |= {"max_position_embeddings", "n_positions"}
UNGATED = frozenset({"relu", "gelu", "gelu_new", "gelu_fast", "gelu_python"})  # activations of MLPs of two matrices


def akin(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config.json of a Llama, a GPT-2 or a T5 with the sizes of ``config``; None: it does not say them."""

    def said(key: str, *others: str) -> Any:
        return next((config[name] for name in (key, *others) if config.get(name) is not None), None)

    gated = said("hidden_act", "activation_function", "activation") not in UNGATED
    kind = "t5" if config.get("is_encoder_decoder") else "llama" if gated else "gpt2"
    found = {key: said(key, *others) for key, others in NAMES[kind].items()}
    if any(value is None and key not in WITHOUT for key, value in found.items()):
        return None
    found = {key: value for key, value in found.items() if value is not None}
    found |= {"model_type": kind, "tie_word_embeddings": config.get("tie_word_embeddings", True)}
    if kind == "t5":
        found |= {"d_kv": found["d_model"] // found["num_heads"], "dropout_rate": config.get("dropout", 0.1)}
    elif kind == "llama":
        found.setdefault("intermediate_size", 4 * found["hidden_size"])
    return found
