"""A config of ours: what the plan warns of, and what each fixed setting costs beside the one it would choose.

Every size is computed: the plan of the config as it is, and the plan with one key changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ganeum import units
from ganeum.config import Config
from ganeum.config.change import change
from ganeum.doctor.audit.settings import Nothing, Said
from ganeum.doctor.finding import Finding
from ganeum.errors import GaneumError
from ganeum.hardware import mounts
from ganeum.hardware.device import Device
from ganeum.plan.question.subject import Run

# What a warning of the plan begins with → its cause here.
CAUSES = {
    "the windows overlap": "overlapping_windows",
    "the same text is repeated": "repeated_text",
    "the model has room": "repeated_text",
    "text that is repeated": "repeated_text",
    "there is no validation": "no_validation",
    "it will spill": "spill",
    "it does not fit": "does_not_fit",
    "it may not fit": "does_not_fit",
    "activations are computed twice": "checkpointing_for_nothing",
    "much of the run is": "too_often",
    "the warm-up": "schedule",
    "the length in steps": "schedule",
    "too few tokens at once": "small_micro_batch",
    "the batch is small": "frequent_update",
    "the context is short": "short_context",
    "widths that": "odd_widths",
    "this device has no hardware": "bf16_emulated",
    "fp16 where": "fp16",
    "fp32 leaves": "fp32",
    "tf32 leaves": "fp32",
}
OVERFLOWS = "is known to overflow in fp16"
# A key that somebody may have fixed → what it is by itself, its cause, what is told.
FIXED: Mapping[str, tuple[Any, str, str]] = {
    "train.precision": ("auto", "fp32", "the number format"),
    "train.compile": ("auto", "not_compiled", "whether it is compiled"),
    "train.micro_batch_size": ("auto", "small_micro_batch", "how many sequences are computed at once"),
    "train.activation_checkpointing": ("auto", "checkpointing_for_nothing", "what is computed twice"),
    "train.optimizer_offload": (False, "checkpointing_for_nothing", "the optimizer's state on the CPU"),
}
OFTEN = 40  # steps
WORTH = 1.05  # times as long: less than the plan can tell
LARGE = 0.25  # of the memory at the peak


def read(config: Config, device: Device, tokens: int | None = None) -> Iterator[Said]:
    """All that can be said of ``config`` on ``device``; ``tokens`` of its text, where that is not prepared here.

    Raises:
        GaneumError: it cannot be planned.
    """
    plan = Run.of(config, tokens).plan(device)
    costs = list(_fixed(config, device, tokens, plan))
    told = {finding.cause for finding in costs}
    yield from costs
    for warning in plan["warnings"]:
        finding = _warned(warning, plan)
        if finding.cause not in told or finding.cause in ("repeated_text", "schedule"):
            yield finding
    yield from _memory(plan)
    yield from _rest(config, device)


def _fixed(config: Config, device: Device, tokens: int | None, plan: Mapping[str, Any]) -> Iterator[Finding]:
    """Settings that cost time beside what would be chosen: two plans each."""
    now = plan.get("time", {}).get("step_s")
    for key, (free, cause, what) in FIXED.items():
        section, _, name = key.partition(".")
        value = getattr(getattr(config, section), name)
        if value == free or now is None:
            continue
        try:
            other = Run.of(change(config, {key: free}), tokens).plan(device)
        except GaneumError:  # what it chose does not fit: the setting is needed
            continue
        then = other.get("time", {}).get("step_s")
        if then is None or now / then < WORTH or other["memory_gib"].get("fits") is False:
            continue
        chosen: Mapping[str, Any] = next((choice for choice in other["choices"] if choice["key"].endswith(name)), {})
        yield Finding(
            cause=cause,
            title=f"{key}={_shown(value)} makes a step {now / then:.3g} times as long",
            evidence=(
                f"a step on {device.name}: {units.duration(now)} as it is, {units.duration(then)} if {what} is "
                f"left free",
                *([f"{name} would be {_shown(chosen['value'])}: {chosen['reason']}"] if chosen else []),
            ),
            change=f"{key}={_shown(free)}",
            sure="computed",
            size=now / then,
            unit="times as long a step",
            where=key,
        )


def _shown(value: Any) -> str:
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _warned(warning: Mapping[str, str], plan: Mapping[str, Any]) -> Finding:
    """A warning of the plan in our words; what it could be worth, where that is exact."""
    what = warning["what"]
    cause = next((name for start, name in CAUSES.items() if what.startswith(start)), "learning")
    cause = "fp16" if OVERFLOWS in what else cause
    size, unit = None, ""
    length, stride = plan["model"].get("block_size"), plan["data"].get("stride")
    if cause == "overlapping_windows" and length and stride:
        size, unit = length / stride, "times the steps of an epoch"
    severity = warning["severity"]
    return Finding(
        cause=cause,
        title=what,
        evidence=(warning["figure"],),
        change=warning["try"],
        severity="error" if severity == "error" else "warning" if severity == "warning" else "note",
        sure="computed",
        size=size,
        unit=unit,
    )


def _memory(plan: Mapping[str, Any]) -> Iterator[Said]:
    """The largest parts of the memory at its peak, with what makes each smaller."""
    memory = plan["memory_gib"]
    parts, whole = memory.get("by_component", {}), memory.get("tensors") or 0
    levers = {
        "logits": ("logits", "the logits of all tokens at once", "train.loss_chunk=auto, or a smaller micro-batch"),
        "optimizer": (
            "optimizer_state",
            "the optimizer's moments",
            "train.optimizer=adamw8bit, or adapters",
        ),
    }
    for name, (cause, what, change_) in levers.items():
        held = parts.get(name, 0.0)
        if whole and held > LARGE * whole:
            yield Finding(
                cause=cause,
                title=f"{what} are {held / whole:.0%} of the memory at its fullest",
                evidence=(f"{held:.2f} of {whole:.2f} GiB",),
                change=f"{change_}, if memory is what is short",
                severity="note",
                sure="computed",
                size=held,
                unit="GiB",
            )


def _rest(config: Config, device: Device) -> Iterator[Said]:
    """What no plan knows."""
    train, data = config.train, config.data
    if config.model.source is not None and data.batching == "fixed":
        yield Finding(
            cause="padding",
            title="every row is filled up to the longest that is allowed",
            change="data.batching=buckets, or packed",
            where="data.batching",
        )
    if train.optimizer == "adafactor" and device.kind == "cuda" and config.model.source is None:
        yield Finding(
            cause="slow_optimizer",
            title="Adafactor saves memory and costs time",
            change="train.optimizer=adamw, if its moments fit",
            severity="note",
            where="train.optimizer",
        )
    if config.device == "cpu" and device.kind != "cpu":
        yield Finding(
            cause="on_cpu",
            title="it is set to train on the CPU",
            change="device=auto",
            where="device",
            severity="error",
        )
    every = config.sample.interval
    if isinstance(every, int) and 0 < every <= OFTEN:
        passes = config.sample.max_new_tokens * config.sample.num_samples
        yield Finding(
            cause="too_often",
            title=f"texts are generated every {units.things(every, 'step')}",
            evidence=(f"{passes:,} tokens, one after the other, each with a pass of its own",),
            change="sample.interval=auto: with every evaluation",
            severity="note",
            where="sample.interval",
        )
    directory = Path(data.directory)
    if directory.exists() and (kind := mounts.shared_kind(directory)) is not None:
        yield Finding(
            cause="slow_disk",
            title=f"the data lies on a file system that machines share ({kind})",
            evidence=("windows are read at random: until all of it lies in memory each one is asked for there",),
            change="copy it to a local disk before training",
            severity="note",
            where="data.directory",
        )
    if isinstance(config.model.vocab_size, int) and config.model.vocab_size % 64 and config.model.source is None:
        yield Nothing(
            f"a vocabulary of {config.model.vocab_size:,}: the tables are padded to a multiple of 64 by themselves"
        )
