"""What shape weights have, said in the config's own words, and how two shapes differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models.gpt import padded_vocab_size

# Keys that make weights of one model useless to another; dropout is not among them.
KEYS = (
    "n_layer",
    "n_head",
    "n_embd",
    "block_size",
    "bias",
    "qkv_bias",
    "activation",
    "tie_embeddings",
    "vocab_size",
)


def of_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keys of `model` that tensors tell by themselves (all of KEYS but n_head and activation).

    Args:
        state: weights under our names, as `weights.to_file_state` gives them.
    Raises:
        CheckpointError: these are not weights of our GPT.
    """
    try:
        V, C = state["token_embedding.weight"].shape
        T = state["position_embedding.weight"].size(0)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"these are not the weights of a GPT: {len(state)} tensors, and {error.args[0]!r} is not as it should be"
        ) from None
    bias, qkv_bias = "norm.bias" in state, "blocks.0.attention.qkv.bias" in state
    return {
        "n_layer": len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        "n_embd": C,
        "block_size": T,
        "bias": bias,
        "qkv_bias": None if qkv_bias == bias else qkv_bias,
        "tie_embeddings": "head.weight" not in state,
        "vocab_size": V,
    }


def of_config(config: Model) -> dict[str, Any]:
    """The same keys of a config."""
    return {key: getattr(config, key) for key in KEYS}


def differences(wanted: Model, found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values forbid using the weights: key → (value here, value of the weights).

    Left out is what can be bridged exactly: fewer positions here than there (the rest is cut off), a vocabulary that
    is there only padded (50,304 rows for 50,257 tokens), biases that one side has (zeros are biases that do nothing),
    an untied head here where it is tied there (it starts as a copy). Biases and heads that turn out not to
    be bridgeable are named when the weights are read.
    """
    result = {}
    for key in ("n_layer", "n_head", "n_embd", "activation"):
        if key in found and found[key] != getattr(wanted, key):
            result[key] = (getattr(wanted, key), found[key])
    if wanted.block_size > found["block_size"]:
        result["block_size"] = (wanted.block_size, found["block_size"])
    if isinstance(wanted.vocab_size, int) and not (
        wanted.vocab_size <= found["vocab_size"] <= padded_vocab_size(wanted.vocab_size)
    ):
        result["vocab_size"] = (wanted.vocab_size, found["vocab_size"])
    return result


def mismatch(differing: Mapping[str, tuple[Any, Any]], kind: str, where: str) -> CheckpointError:
    """The error for weights of another shape: every differing key with both values, and what to type."""
    why, overrides, other = [], [], []
    for key, (here, there) in differing.items():
        line = f"model.{key}: {yaml(here)} here, {yaml(there)} in the {kind}"
        if key == "block_size":
            line += " (positions can be cut off, not invented)"
        why.append(line)
        if key == "vocab_size":
            other.append(f"data prepared with the tokenizer of the weights ({there:,} tokens)")
        else:
            overrides.append(f"model.{key}={yaml(there)}")
    count = f"{len(differing)} key differs" if len(differing) == 1 else f"{len(differing)} keys differ"
    return CheckpointError(
        f"the weights are of another shape than the model: {count}",
        where=where,
        why="\n".join(why),
        suggestion="\n".join([" ".join(overrides)] * bool(overrides) + other),
    )


def yaml(value: object) -> str:
    """A value as one types it in a config."""
    return str(value).lower() if isinstance(value, bool) else str(value)
