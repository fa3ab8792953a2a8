"""The same weights under transformers' names for Qwen3, whose layout the modern style is.

All states here are in file form (`weights.to_file_state`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ganeum.config import sizes
from ganeum.config.schema import Model
from ganeum.errors import CheckpointError

OUTSIDE = {"token_embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}
INSIDE = {
    "norm_1": "input_layernorm",
    "attention.out": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "norm_2": "post_attention_layernorm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")  # one matrix here: their rows, one after the other
OUTSIDE_BACK = {theirs: ours for ours, theirs in OUTSIDE.items()}
INSIDE_BACK = {theirs: ours for ours, theirs in INSIDE.items()}

# Keys of config.json → ours, those that every Qwen3 has.
KEYS = {
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "num_key_value_heads": "n_kv_head",
    "head_dim": "head_dim",
    "hidden_size": "n_embd",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "block_size",
}


def to_names(state: Mapping[str, Tensor], model: Model) -> dict[str, Tensor]:
    """Our names → Qwen3's. A tied head stays left out."""
    result = {}
    for name, tensor in state.items():
        module = name.removesuffix(".weight")
        if not module.startswith("blocks."):
            result[f"{OUTSIDE[module]}.weight"] = tensor
            continue
        _, layer, inside = module.split(".", 2)
        parts = (
            zip(QKV, tensor.split(sizes.qkv_widths(model)), strict=True)
            if inside == "attention.qkv"
            else [(INSIDE[inside], tensor)]
        )
        result |= {f"model.layers.{layer}.{theirs}.weight": part for theirs, part in parts}
    return result


def from_names(state: Mapping[str, Tensor], *, tied: bool) -> dict[str, Tensor]:
    """Qwen3's names → ours, in fp32. Prefixes that wrappers leave (`_orig_mod.`, `module.`) are understood, and the
    missing `model.` of the base model.

    Raises:
        CheckpointError: a tensor that a Qwen3 does not have, or queries, keys and values that are not all there.
    """
    result, packed = {}, dict[str, dict[str, Tensor]]()
    for name, tensor in state.items():
        module = re.sub(r"^((_orig_mod|module)\.)+", "", name).removesuffix(".weight")
        if not module.startswith(("model.", "lm_head")):
            module = f"model.{module}"
        block = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
        if block and block[2] in QKV:
            packed.setdefault(f"blocks.{block[1]}.attention.qkv.weight", {})[block[2]] = tensor.float()
            continue
        inside = INSIDE_BACK.get(block[2]) if block else None
        ours = f"blocks.{block[1]}.{inside}" if block and inside else OUTSIDE_BACK.get(module)
        if tied and ours == "head":
            continue
        if ours is None or not name.endswith(".weight"):
            raise CheckpointError(f"{name} is not a tensor of a Qwen3", why="only Qwen3's own architecture is read")
        result[f"{ours}.weight"] = tensor.float()
    for name, parts in packed.items():
        if missing := [part for part in QKV if part not in parts]:
            raise CheckpointError(f"{name} cannot be put together: {' and '.join(missing)} are missing")
        shapes = [list(parts[part].shape) for part in QKV]
        if len({(len(shape), *shape[1:]) for shape in shapes}) > 1:
            raise CheckpointError(f"{name} cannot be put together: {', '.join(QKV)} are {', '.join(map(str, shapes))}")
        result[name] = torch.cat([parts[part] for part in QKV])
    return result


def huggingface_config(model: Model, end_of_text: int | None) -> dict[str, Any]:
    """config.json of a Qwen3ForCausalLM, as releases 4 and 5 of transformers read it."""
    model = sizes.resolved(model)
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **{theirs: getattr(model, ours) for theirs, ours in KEYS.items()},
        "vocab_size": model.vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": model.rope_theta},
        "attention_bias": False,
        "attention_dropout": model.dropout,
        "use_sliding_window": False,
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }


def model_of_huggingface(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """config.json with `model_type` qwen3 → the keys of `model` it fixes: all that the modern style has.

    Raises:
        CheckpointError: a key is missing, or asks for what our GPT does not compute; all of these are named.
    """
    wrong = [*_variants(config)]
    if wrong:
        raise CheckpointError(
            f"the model is a Qwen3 that our GPT does not compute: {', '.join(wrong)}",
            where=where,
            why="computed are rotary positions without scaling, full attention in every layer, SiLU, and no biases",
        )
    told = {**config, **(config.get("rope_parameters") or {})}  # transformers 4 has rope_theta beside the other keys
    wanted = (*KEYS, "rms_norm_eps", "rope_theta")
    if missing := [key for key in wanted if not isinstance(told.get(key), (int, float)) or told[key] <= 0]:
        raise CheckpointError(
            f"config.json does not tell the model's {', '.join(missing)}", where=where, why="a Qwen3 has them all"
        )
    return {
        "style": "modern",
        **{ours: config[key] for key, ours in KEYS.items()},
        "rope_theta": float(told["rope_theta"]),
        "norm_eps": float(told["rms_norm_eps"]),
        "tie_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


def _variants(config: Mapping[str, Any]) -> Iterator[str]:
    """What config.json asks for beyond Qwen3's own arithmetic, as `key: value`."""
    same = {"hidden_act": ("silu",), "attention_bias": (False,), "use_sliding_window": (False,)}
    for key, allowed in same.items():
        if config.get(key, allowed[0]) not in allowed:
            yield f"{key} is {config[key]!r}"
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key) or {}
        if not isinstance(rope, Mapping):
            yield f"{key} is {rope!r}"
            continue
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            yield f"{key} is of the type {kind!r}"
        elif others := sorted(rope.keys() - {"rope_type", "type", "rope_theta"}):
            yield f"{key} has {', '.join(others)}"
    kinds = config.get("layer_types") or []
    if not isinstance(kinds, list):
        yield f"layer_types is {kinds!r}"
    elif others := sorted({repr(kind) for kind in kinds if kind != "full_attention"}):
        yield f"layer_types has {', '.join(others)}"
    if config.get("quantization_config"):
        yield "quantization_config is there"
