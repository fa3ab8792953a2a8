"""A YAML file that is no config of ours: the keys in it that Hugging Face's Trainer, tokenizers and loaders know, or
another tool that trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from ganeum import units
from ganeum.doctor.audit import dialects, trainer
from ganeum.doctor.audit.settings import FEW, Nothing, Said, Settings
from ganeum.doctor.audit.source import UNKNOWN
from ganeum.doctor.finding import Finding
from ganeum.errors import ConfigError
from ganeum.hardware.device import Device

KNOWN = {
    "per_device_train_batch_size", "gradient_accumulation_steps", "fp16", "bf16", "tf32", "optim", "warmup_steps",
    "max_steps", "save_steps", "eval_steps", "logging_steps", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_prefetch_factor", "dataloader_persistent_workers", "gradient_checkpointing", "deepspeed", "padding",
    "auto_find_batch_size", "eval_accumulation_steps", "num_train_epochs", "torch_compile", "group_by_length",
    "attn_implementation", "padding_side", "eval_strategy", "evaluation_strategy", "use_cache", "fsdp", "fsdp_config",
    "load_in_4bit", "load_in_8bit", "quantization_bit", "packing",
}  # fmt: skip

# Keys of many programs: read beside one of the others, and no sign of Trainer's by themselves.
ANYBODYS = {"learning_rate", "warmup_ratio", "max_grad_norm", "predict_with_generate"}
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
    nodes: dict[str, yaml.Node] = {}
    for key, node in _keys(root):
        nodes.setdefault(key, node)
    tool = dialects.of(nodes)
    if tool is None and _ours(root):
        raise ConfigError("it is a config of ours, and no file for Hugging Face's Trainer", where=path)
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, node in nodes.items():
        name = tool.names.get(key) if tool else None
        if name is None and (tool is None or tool.same):
            name = next((last for last in (key, key.rpartition(".")[2]) if last in KNOWN | ANYBODYS), None)
        value = _value(node)
        for called in {name, key if tool else None} - {None}:
            assert called is not None
            if value is not None and called not in values:
                values[called] = value
                places[called] = f"{path}, line {node.start_mark.line + 1}"
    if not values.keys() - ANYBODYS:
        raise ConfigError(
            "no key in it is known",
            where=path,
            why="it is no config of ours, and none for Hugging Face's Trainer, Axolotl, LLaMA-Factory, torchtune or "
            "litgpt",
            suggestion="ganeum doctor script FILE.py, where the settings stand in a script",
        )
    for name, key in (tool.unless if tool else {}).items():
        if values.get(key) is not True:
            values.setdefault(name, UNKNOWN)
    names = {theirs: key for key, theirs in tool.names.items()} if tool else {}
    return Settings(values, places, device, complete=False, text=text, names=names)


def _value(node: yaml.Node) -> Any:
    """Of a list or a section, that it is there; None where nothing stands."""
    if not isinstance(node, yaml.ScalarNode):
        return True
    value = node.value if node.style else yaml.safe_load(node.value)
    return None if value == "" else value


def read(found: Settings) -> Iterator[Said]:
    """All that these keys say."""
    yield from trainer.read(found)
    tool = dialects.of(found.values)
    if tool is not None:
        yield from tool.more(found)
    off = all(found.get(name) in (None, False) for name in ("bf16", "fp16", "pure_bf16"))
    if off and found.is_set("per_device_train_batch_size") and (tool is None or tool.same):
        yield found.found(
            "fp32", "neither bf16 nor fp16 is set here", "bf16", "fp16", severity="note",
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
            title=f"{units.things(round(size), 'row')} at once",
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


def _keys(node: yaml.Node | None, above: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """``train.epochs`` → its value: all of them, sections before what is in them."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield above + key.value, value
                yield from _keys(value, f"{above}{key.value}.")
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _keys(value, above)
