"""YAML files of other tools that train: their own names for what Hugging Face's Trainer calls otherwise.

Axolotl, LLaMA-Factory, torchtune and litgpt (as of 2026): each is known by keys that only it has. Their keys are read
where they stand (``optimizer.fused``), so that a profiler's ``warmup_steps`` is no warm-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ganeum.doctor.audit.settings import FEW, Said, Settings

OFTEN = 0.1  # of the time


@dataclass(frozen=True)
class Dialect:
    """A tool's way of writing it.

    Attributes:
        tool: whose.
        marks: keys of which all are there.
        names: its key → Trainer's.
        more: what only it says.
        same: whether Trainer's own names hold, too.
        unless: Trainer's name → the key without which it is on.
    """

    tool: str
    marks: frozenset[str]
    names: Mapping[str, str]
    more: Callable[[Settings], Iterator[Said]]
    same: bool = True
    unless: Mapping[str, str] = field(default_factory=dict)


def of(keys: Mapping[str, Any]) -> Dialect | None:
    """Whose file it is, by its dotted keys."""
    return next((one for one in DIALECTS if one.marks <= set(keys)), None)


def axolotl(s: Settings) -> Iterator[Said]:
    """Packing, padding, attention, and what is held out."""
    length = s.number("sequence_len")
    if s.get("sample_packing") is not True and s.on("pad_to_sequence_len"):
        yield s.found(
            "padding",
            f"every row is filled up to {length:.0f} tokens" if length else "every row is filled up",
            "pad_to_sequence_len",
            change="sample_packing=true, or pad_to_sequence_len=false",
        )
    elif s.get("sample_packing") is False and not s.is_set("rl"):
        yield _unpacked(s, "sample_packing", "sample_packing=true, where rows are much shorter than sequence_len")
    elif s.on("sample_packing") and (s.on("eager_attention") or s.get("attn_implementation") == "eager"):
        yield s.found(
            "wrong_mask",
            "packed texts see each other: eager attention does not keep them apart",
            "sample_packing",
            "eager_attention",
            "attn_implementation",
            severity="note",
            change="attn_implementation=flash_attention_2, where the model has it",
        )
    if s.on("eager_attention"):
        yield s.found(
            "eager_attention", "attention is asked to be eager", "eager_attention", change="attn_implementation=sdpa"
        )
    if s.number("val_set_size") == 0 and not s.is_set("test_datasets"):
        yield s.found("no_validation", "no rows are held out", "val_set_size", severity="note", change="0.05")


def factory(s: Settings) -> Iterator[Said]:
    """Attention, formats, packing."""
    if s.get("flash_attn") == "disabled":
        yield s.found("eager_attention", "attention is asked to be eager", "flash_attn", change="flash_attn=auto")
    if s.on("pure_bf16"):
        yield s.found(
            "pure_half",
            "the weights themselves are in half precision",
            "pure_bf16",
            evidence=("an update smaller than a 256th of a weight is lost",),
            severity="note",
            change="bf16=true, where the memory suffices",
        )
    if s.on("packing") and s.get("neat_packing") is not True:
        yield s.found(
            "wrong_mask",
            "packed texts see each other",
            "packing",
            evidence=("packing joins texts in one row; only neat_packing keeps attention within each",),
            severity="note",
            change="neat_packing=true",
        )
    elif s.get("packing") is False:
        yield _unpacked(s, "packing", "neat_packing=true, where rows are much shorter than cutoff_len")
    if s.number("val_size") in (None, 0) and s.get("do_train") is True and not s.is_set("eval_dataset"):
        yield s.found("no_validation", "no rows are held out", "val_size", severity="note", change="val_size=0.05")


def torchtune(s: Settings) -> Iterator[Said]:
    """Formats, its optimizer, packing, its profiler."""
    if s.get("dtype") == "fp32":
        yield s.found("fp32", "everything is computed in fp32", "dtype", change="dtype=bf16 (Ampere and later)")
    if s.get("device") == "cpu":
        yield s.found("on_cpu", "it trains on the CPU", "device", change="device=cuda", severity="error")
    if s.on("profiler.enabled"):
        yield s.found("debug_mode", "the profiler is on", "profiler.enabled", change="profiler.enabled=false")
    if s.get("optimizer._component_") == "torch.optim.AdamW" and s.get("optimizer.fused") is not True:
        yield s.found(
            "slow_optimizer", "AdamW is not fused", "optimizer.fused", "optimizer._component_", severity="note",
            change="optimizer.fused=true",
        )  # fmt: skip
    if s.get("dataset.packed") is False:
        yield _unpacked(s, "dataset.packed", "dataset.packed=true, with tokenizer.max_seq_len set")
    if s.get("compile") is False:
        yield s.found("not_compiled", "nothing is compiled", "compile", severity="note", change="compile=true")
    if s.on("enable_activation_offloading"):
        yield s.found(
            "checkpointing_for_nothing",
            "activations go to the machine's memory and back",
            "enable_activation_offloading",
            severity="note",
            change="enable_activation_offloading=false, if it fits",
        )


def litgpt(s: Settings) -> Iterator[Said]:
    """Its formats; what it adds up."""
    said = str(s.get("precision"))
    if said in ("32-true", "32", "32-full"):
        yield s.found("fp32", "everything is computed in fp32", "precision", change="precision=bf16-mixed")
    elif said in ("16-true", "bf16-true") and not s.get("quantize") and not s.is_set("lora_r"):
        yield s.found(
            "pure_half",
            "the weights themselves are in half precision",
            "precision",
            evidence=("an update smaller than a 256th (bf16) or a 2,048th (fp16) of a weight is lost",),
            severity="note",
            change="precision=bf16-mixed, where the memory suffices",
        )
    size, whole = s.number("train.micro_batch_size"), s.number("train.global_batch_size")
    devices = s.number("devices") or 1
    if size and whole and size <= FEW and whole / size / devices >= 2:
        yield s.found(
            "small_micro_batch",
            f"{size:.0f} rows at once, {whole / size / devices:.0f} times a step",
            "train.micro_batch_size",
            "train.global_batch_size",
            severity="note",
            change="more rows at once, while they fit: the step stays the same",
        )
    every, rows = s.number("eval.interval"), s.number("eval.max_iters")
    if every and rows and size and whole:
        share = rows * size / (3 * every * whole + rows * size)  # forward once, where a step is forward thrice
        if share > OFTEN:
            yield s.found(
                "too_often",
                f"an evaluation of {rows:.0f} batches every {every:.0f} steps",
                "eval.interval",
                evidence=("forward once for each of its tokens, where a step needs three times that",),
                change=f"eval.interval={every * share / OFTEN:.0f}, or a smaller eval.max_iters",
                sure="computed",
                size=share,
                unit="share of the time",
            )


def _unpacked(s: Settings, key: str, change: str) -> Said:
    return s.found(
        "padding",
        "rows of unlike lengths stand beside each other, and the short ones are filled up",
        key,
        severity="note",
        change=change,
    )


DIALECTS = (
    Dialect(
        "axolotl",
        frozenset({"base_model", "micro_batch_size"}),
        {
            "micro_batch_size": "per_device_train_batch_size",
            "optimizer": "optim",
            "num_epochs": "num_train_epochs",
            "sample_packing": "packing",
            "sequence_len": "max_length",
        },
        axolotl,
    ),
    Dialect(
        "LLaMA-Factory",
        frozenset({"stage", "finetuning_type"}),
        {"cutoff_len": "max_length"},
        factory,
        unless={"gradient_checkpointing": "disable_gradient_checkpointing"},
    ),
    Dialect(
        "torchtune",
        frozenset({"model._component_", "optimizer._component_", "batch_size"}),
        {
            "batch_size": "per_device_train_batch_size",
            "gradient_accumulation_steps": "gradient_accumulation_steps",
            "epochs": "num_train_epochs",
            "enable_activation_checkpointing": "gradient_checkpointing",
            "log_every_n_steps": "logging_steps",
            "dataset.packed": "packing",
            "tokenizer.max_seq_len": "max_length",
        },
        torchtune,
        same=False,
    ),
    Dialect(
        "litgpt",
        frozenset({"train.micro_batch_size", "train.global_batch_size"}),
        {
            "train.epochs": "num_train_epochs",
            "train.save_interval": "save_steps",
            "train.max_steps": "max_steps",
            "train.lr_warmup_steps": "warmup_steps",
        },
        litgpt,
        same=False,
    ),
)
