"""The same weights under other people's names: transformers' GPT2LMHeadModel and nanoGPT.

Both keep GPT-2's names; transformers stores a linear layer's matrix as (in, out), the way Conv1D did, nanoGPT as we do.
All states here are in file form (`weights.to_file_state`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ganeum.config import sizes
from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models import shape

OUTSIDE = {
    "token_embedding": "transformer.wte",
    "position_embedding": "transformer.wpe",
    "norm": "transformer.ln_f",
    "head": "lm_head",
}
INSIDE = {
    "norm_1": "ln_1",
    "attention.qkv": "attn.c_attn",
    "attention.out": "attn.c_proj",
    "norm_2": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
OUTSIDE_BACK = {theirs: ours for ours, theirs in OUTSIDE.items()}
INSIDE_BACK = {theirs: ours for ours, theirs in INSIDE.items()}
LINEAR = re.compile(r"(attention\.(qkv|out)|mlp\.(up|down))\.weight$")
MASK = re.compile(r"h\.\d+\.attn\.(bias|masked_bias)$")  # the causal mask, which old versions saved as a buffer

# Theirs → ours. gelu_pytorch_tanh is the same formula as gelu_new, in one kernel.
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def to_gpt2_names(state: Mapping[str, Tensor], *, transposed: bool) -> dict[str, Tensor]:
    """Our names → GPT-2's; `transposed` for transformers. A tied head stays left out."""
    result = {}
    for name, tensor in state.items():
        if name.startswith("blocks."):
            _, layer, rest = name.split(".", 2)
            module, kind = rest.rsplit(".", 1)
            theirs = f"transformer.h.{layer}.{INSIDE[module]}.{kind}"
        else:
            module, kind = name.rsplit(".", 1)
            theirs = f"{OUTSIDE[module]}.{kind}"
        result[theirs] = tensor.t().contiguous() if transposed and LINEAR.search(name) else tensor
    return result


def from_gpt2_names(state: Mapping[str, Tensor], *, transposed: bool, tied: bool) -> dict[str, Tensor]:
    """GPT-2's names → ours, in fp32. Prefixes that wrappers leave (`_orig_mod.`, `module.`) and the hub's missing
    `transformer.` are understood.

    Raises:
        CheckpointError: a tensor that a GPT-2 does not have.
    """
    result = {}
    for name, tensor in state.items():
        name = re.sub(r"^((_orig_mod|module)\.)+", "", name)
        if not name.startswith(("transformer.", "lm_head.")):
            name = f"transformer.{name}"
        if MASK.search(name) or (tied and name == "lm_head.weight"):
            continue
        module, kind = name.rsplit(".", 1)
        if block := re.match(r"transformer\.h\.(\d+)\.(.+)$", module):
            inside = INSIDE_BACK.get(block[2])
            ours = inside and f"blocks.{block[1]}.{inside}"
        else:
            ours = OUTSIDE_BACK.get(module)
        if ours is None:
            raise CheckpointError(f"{name} is not a tensor of a GPT-2", why="only GPT-2's own architecture is read")
        flip = transposed and LINEAR.search(f"{ours}.{kind}")
        result[f"{ours}.{kind}"] = (tensor.t() if flip else tensor).float().contiguous()
    return result


def with_all_biases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Adds the biases that GPT-2 always has and a config may leave out, as zeros: the same function exactly."""
    result = {}
    for name, tensor in state.items():
        result[name] = tensor
        bias = name.removesuffix("weight") + "bias"
        if name.endswith(".weight") and "embedding" not in name and name != "head.weight" and bias not in state:
            result[bias] = torch.zeros(tensor.size(0), dtype=tensor.dtype)
    return result


def huggingface_config(model: Model, end_of_text: int | None) -> dict[str, Any]:
    """config.json of a GPT2LMHeadModel."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_layer": model.n_layer,
        "n_head": model.n_head,
        "n_embd": model.n_embd,
        "n_positions": model.block_size,
        "vocab_size": model.vocab_size,
        "activation_function": "gelu_new" if model.activation == "gelu_tanh" else "gelu",
        "n_inner": sizes.intermediate_size(model),
        "layer_norm_epsilon": sizes.norm_eps(model),
        "attn_pdrop": sizes.dropout(model),
        "embd_pdrop": sizes.dropout(model),
        "resid_pdrop": sizes.dropout(model),
        "tie_word_embeddings": model.tie_embeddings,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "dtype": "float32",
    }


def model_of_huggingface(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """config.json with `model_type` gpt2 → the keys of `model` it fixes.

    Raises:
        CheckpointError: a variant of GPT-2 that our GPT does not compute.
    """
    layers, heads, width = (config.get(key, usual) for key, usual in (("n_layer", 12), ("n_head", 12), ("n_embd", 768)))
    if not all(isinstance(number, int) and number > 0 for number in (layers, heads, width)) or width % heads:
        raise CheckpointError(
            f"{layers} layers, {heads} heads and a width of {width} are no model",
            where=where,
            why="these are whole numbers, and the heads divide the width",
        )
    same = {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "activation_function": tuple(ACTIVATIONS),
    }
    for key, allowed in same.items():
        if key in config and config[key] not in allowed:
            raise CheckpointError(
                f"{key} is {config[key]!r}",
                where=where,
                why=f"our GPT computes only {' or '.join(map(repr, allowed))}",
            )
    return {
        "n_layer": layers,
        "n_head": heads,
        "n_embd": width,
        "intermediate_size": config.get("n_inner") or 4 * width,
        "norm_eps": config.get("layer_norm_epsilon", 1e-5),
        "activation": ACTIVATIONS[config.get("activation_function", "gelu_new")],
        "tie_embeddings": config.get("tie_word_embeddings", True),
    }


def nanogpt_checkpoint(state: Mapping[str, Tensor], model: Model, step: int) -> dict[str, Any]:
    """What nanoGPT's sample.py and train.py read from ckpt.pt, but for the optimizer's state.

    Raises:
        CheckpointError: nanoGPT's model cannot compute this one.
    """
    wanted = {
        "style": "gpt2",
        "tie_embeddings": True,
        "activation": "gelu",
        "intermediate_size": 4 * model.n_embd,
        "norm_eps": 1e-5,
    }
    ours = sizes.resolved(model)
    wrong = {key: value for key, value in wanted.items() if getattr(ours, key) != value}
    if "style" in wrong:  # the other keys then mean nothing to nanoGPT
        wrong = {"style": "gpt2"}
    if wrong:
        raise CheckpointError(
            "nanoGPT cannot compute this model: "
            + ", ".join(f"its {key} is always {shape.yaml(value)}" for key, value in wrong.items()),
            suggestion="ganeum export --format hf",
        )
    biases = any(name.endswith("bias") for name in state)
    complete = with_all_biases(state) if biases else dict(state)
    theirs = {name: tensor.clone() for name, tensor in to_gpt2_names(complete, transposed=False).items()}
    theirs["lm_head.weight"] = theirs["transformer.wte.weight"]
    keys = ("n_layer", "n_head", "n_embd", "block_size", "vocab_size", "dropout")
    return {
        "model": theirs,
        "model_args": {key: getattr(ours, key) for key in keys} | {"bias": biases},
        "iter_num": step,
        "config": {},
    }
