"""What the keys of a model's config.json (GPT2Config, Qwen3Config of transformers 5.23) come to in `model:`."""

from __future__ import annotations

from ganeum.config.huggingface_rules import Given, Meaning, Setting, first, mapping, number, refusal, word

STYLES = {"gpt2": "gpt2", "gpt2lmheadmodel": "gpt2", "qwen3": "modern", "qwen3forcausallm": "modern"}
ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu"}


def style(given: Given) -> Meaning:
    """model_type, else the one class in architectures."""
    if (kind := word(given, "model.model_type")) is None and "model.architectures" in given:
        listed = given["model.architectures"].value
        kind = str(listed[0]).lower() if isinstance(listed, list) and len(listed) == 1 else None
    if kind is None:
        return Meaning()
    if kind not in STYLES:
        raise refusal(
            given,
            first(given, "model.model_type", "model.architectures") or "",
            why="a model is built as GPT-2 or as Qwen3 here",
            suggestion="model.style: gpt2 or modern",
        )
    return Meaning((Setting("model.style", STYLES[kind]),))


def length(given: Given) -> Meaning:
    """The positions that there are."""
    return _same(given, "model.block_size", "model.max_position_embeddings", "model.n_positions", "model.n_ctx")


def norm(given: Given) -> Meaning:
    """What is added to the variance in every norm."""
    return _same(given, "model.norm_eps", "model.rms_norm_eps", "model.layer_norm_epsilon", "model.layer_norm_eps")


def dropout(given: Given) -> Meaning:
    """GPT-2's three are one here."""
    return _same(given, "model.dropout", "model.resid_pdrop", "model.embd_pdrop", "model.attn_pdrop")


def _same(given: Given, key: str, *names: str) -> Meaning:
    there = [name for name in names if first(given, name)]
    values = {number(given, name) for name in there}
    if len(values) > 1:
        raise refusal(given, *there, why=f"they are one number here, {key}", suggestion=key)
    return Meaning((Setting(key, values.pop()),)) if values else Meaning()


def activation(given: Given) -> Meaning:
    """Which GELU the MLP has."""
    if (name := word(given, "model.activation_function")) is None:
        return Meaning()
    if name not in ACTIVATIONS:
        raise refusal(
            given,
            "model.activation_function",
            why="GPT-2's MLP has a GELU here",
            suggestion="model.activation: gelu_tanh or gelu",
        )
    return Meaning((Setting("model.activation", ACTIVATIONS[name]),))


def rotary(given: Given) -> Meaning:
    """The base of the wavelengths, without any scaling."""
    name = first(given, "model.rope_parameters", "model.rope_scaling")
    if name is None:
        return Meaning()
    options = mapping(given, name)
    kind, theta = options.pop("rope_type", options.pop("type", "default")), options.pop("rope_theta", None)
    if kind != "default" or options:
        raise refusal(
            given,
            name,
            what=f"{name} can hold rope_theta alone here",
            why="positions are rotated without scaling",
            suggestion="model.rope_theta",
        )
    return Meaning((Setting("model.rope_theta", theta),) if theta is not None else ())
