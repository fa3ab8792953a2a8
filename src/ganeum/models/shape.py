"""What shape weights have, said in the config's own words, and how two shapes differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ganeum.config import sizes
from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models.gpt import padded_vocab_size

# Keys that say what weights compute, in each style; dropout is not among them.
BOTH = ("style", "n_layer", "n_head", "n_embd", "intermediate_size", "norm_eps", "block_size", "tie_embeddings")
KEYS = {
    "gpt2": (*BOTH, "vocab_size", "bias", "qkv_bias", "activation"),
    "modern": (*BOTH, "vocab_size", "n_kv_head", "head_dim", "rope_theta"),
}
# Those of them that must be equal; a difference in another can be bridged, or is named when the weights are read.
EQUAL = (
    *("n_layer", "n_head", "n_kv_head", "head_dim", "n_embd", "intermediate_size"),
    *("activation", "rope_theta", "norm_eps"),
)


def of_state(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The keys of `model` that tensors tell by themselves. What they do not tell: norm_eps; n_head and activation
    (gpt2); block_size and rope_theta (modern).

    Args:
        state: weights under our names, as `weights.to_file_state` gives them.
    Raises:
        CheckpointError: these are not weights of our GPT.
    """
    try:
        V, C = state["token_embedding.weight"].shape
        of_style = _modern(state) if "blocks.0.mlp.gate.weight" in state else _gpt2(state)
        width = state["blocks.0.mlp.up.weight"].size(0)
    except (KeyError, ValueError) as error:
        raise CheckpointError(
            f"these are not the weights of a GPT: {len(state)} tensors, and {error.args[0]!r} is not as it should be"
        ) from None
    return {
        "n_layer": len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        "n_embd": C,
        "intermediate_size": width,
        "tie_embeddings": "head.weight" not in state,
        "vocab_size": V,
        **of_style,
    }


def _gpt2(state: Mapping[str, Tensor]) -> dict[str, Any]:
    bias, qkv_bias = "norm.bias" in state, "blocks.0.attention.qkv.bias" in state
    return {
        "style": "gpt2",
        "block_size": state["position_embedding.weight"].size(0),
        "bias": bias,
        "qkv_bias": None if qkv_bias == bias else qkv_bias,
    }


def _modern(state: Mapping[str, Tensor]) -> dict[str, Any]:
    D = state["blocks.0.attention.q_norm.weight"].size(0)
    n_head = state["blocks.0.attention.out.weight"].size(1) // D
    rows = state["blocks.0.attention.qkv.weight"].size(0)
    n_kv_head = (rows // D - n_head) // 2
    if n_kv_head < 1 or rows != (n_head + 2 * n_kv_head) * D:  # queries, keys and values
        raise ValueError("blocks.0.attention.qkv.weight")
    return {"style": "modern", "n_head": n_head, "n_kv_head": n_kv_head, "head_dim": D}


def of_config(config: Model) -> dict[str, Any]:
    """All keys of a config that say what its weights compute, none of them null but qkv_bias."""
    config = sizes.resolved(config)
    return {key: getattr(config, key) for key in KEYS[config.style]}


def differences(wanted: Model, found: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values forbid using the weights: key → (value here, value of the weights).

    Left out is what can be bridged exactly: fewer positions here than there (the rest is cut off; rotary positions are
    computed, as many as one likes), a vocabulary that is there only padded (50,304 rows for 50,257 tokens), biases
    that one side has (zeros are biases that do nothing), an untied head here where it is tied there (it starts as a
    copy). Biases and heads that turn out not to be bridgeable are named when the weights are read.
    """
    result: dict[str, tuple[Any, Any]] = {}
    if wanted.style != found["style"]:
        result["style"] = (wanted.style, found["style"])
    # What is null here follows from the sizes it depends on: those of the weights, since they will have to be taken.
    base = {key: found[key] for key in ("style", "n_head", "n_embd") if key in found}
    here = of_config(wanted.model_copy(update=base)) | {"n_head": wanted.n_head, "n_embd": wanted.n_embd}
    for key in EQUAL:
        if key in here and key in found and found[key] != here[key]:
            result[key] = (here[key], found[key])
    if found["style"] == "gpt2" and wanted.block_size > found["block_size"]:
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
