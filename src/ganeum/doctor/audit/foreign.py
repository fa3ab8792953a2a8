"""A YAML file that is no config of ours: the keys in it that Hugging Face's Trainer, tokenizers and loaders know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from ganeum.doctor.audit.settings import FEW, Nothing, Said, Settings
from ganeum.doctor.audit.settings import read as read_settings
from ganeum.doctor.finding import Finding
from ganeum.errors import ConfigError
from ganeum.hardware.device import Device

KNOWN = {
    "per_device_train_batch_size", "gradient_accumulation_steps", "fp16", "bf16", "tf32", "optim", "warmup_steps",
    "max_steps", "save_steps", "eval_steps", "logging_steps", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "dataloader_persistent_workers", "gradient_checkpointing", "deepspeed", "padding",
    "auto_find_batch_size", "eval_accumulation_steps", "num_train_epochs", "torch_compile", "group_by_length",
    "attn_implementation", "padding_side", "eval_strategy", "evaluation_strategy", "use_cache",
}  # fmt: skip

OURS = {"model": {"n_layer", "n_head", "n_embd", "block_size", "source"}, "train": {"max_iters", "micro_batch_size"}}


def settings(text: str, path: str, device: Device | None = None) -> Settings:
    """Its known keys, wherever they stand in it.

    Raises:
        ConfigError: it is no YAML, has none of them, or is a config of ours, whose own faults are to be told.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError("it is no YAML that can be read", where=path, why=str(error)) from None
    if _ours(root):
        raise ConfigError("it is a config of ours, and no file for Hugging Face's Trainer", where=path)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name, node in _keys(root):
        if name in KNOWN and name not in values:
            values[name] = (
                yaml.safe_load(node.value) if isinstance(node, yaml.ScalarNode) and not node.style else node.value
            )
            places[name] = f"{path}, line {node.start_mark.line + 1}"
    if not values:
        raise ConfigError(
            "no key in it is known",
            where=path,
            why="it is no config of ours, and none for Hugging Face's Trainer",
            suggestion="ganeum doctor script FILE.py, where the settings stand in a script",
        )
    return Settings(values, places, device, complete=False, text=text)


def read(found: Settings) -> Iterator[Said]:
    """All that these keys say."""
    yield from read_settings(found)
    if not found.is_set("bf16", "fp16") and found.is_set("per_device_train_batch_size"):
        yield found.found(
            "fp32", "neither bf16 nor fp16 is set here", severity="note",
            evidence=("unless the script sets one, everything is computed in fp32",), change="bf16: true",
        )  # fmt: skip
    if found.get("padding") == "max_length":
        yield found.found(
            "padding", "every row is filled up to the longest that is allowed", "padding",
            change="padding: false, and a collator that pads to the longest of each batch",
        )  # fmt: skip
    elif found.get("padding") in (False, "longest"):
        yield Nothing(
            f"padding: {str(found.get('padding')).lower()}: with the Trainer's collator either pads each batch "
            f"to its longest row"
        )
    if found.get("attn_implementation") == "eager":
        yield found.found("eager_attention", "attention is asked to be eager", "attn_implementation", change="sdpa")
    size = found.number("per_device_train_batch_size")
    if size is not None and size <= FEW and not found.is_set("gradient_accumulation_steps"):
        yield Finding(
            cause="small_micro_batch",
            title=f"{size:.0f} rows at once",
            change="more, while they fit; the learning rate belongs to the batch",
            severity="note",
            where=found.where("per_device_train_batch_size"),
        )


def _ours(root: yaml.Node | None) -> bool:
    """Whether one of our sections is in it, with a key that only ours has."""
    return isinstance(root, yaml.MappingNode) and any(
        isinstance(section, yaml.MappingNode)
        and OURS.get(name.value, set()) & {key.value for key, _ in section.value if isinstance(key, yaml.ScalarNode)}
        for name, section in root.value
        if isinstance(name, yaml.ScalarNode)
    )


def _keys(node: yaml.Node | None) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key.value, value
            yield from _keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _keys(value)
