"""plan.json: everything about a run that arithmetic alone can say before it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import ganeum
from ganeum import units
from ganeum.config import Config, to_yaml
from ganeum.config.change import change
from ganeum.hardware.device import Device
from ganeum.hardware.peaks import torch_version
from ganeum.plan import fastest, flops, micro_batch, parameters, warnings
from ganeum.plan.lengths import lengths, stride_of

GPT2_VOCAB_SIZE = 50_257


def plan(
    config: Config,
    *,
    device: Device,
    tokens: int | None = None,
    vocab_size: int | None = None,
    step_s: float | None = None,
    evaluations_s: float = 0.0,
    time_source: str = "measured before the start",
    held_bytes: int | None = None,
    choices: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The plan of a run, as ``plan.json`` holds it. What cannot be known yet is left out, never guessed or null.

    Args:
        config: whatever is still ``auto`` in it is chosen here where arithmetic can, and listed in ``choices``.
        device: what it will run on.
        tokens: tokens in ``train.bin``; None while the data is not prepared.
        vocab_size: the data's, for ``model.vocab_size: auto``; without it GPT-2's is taken, with a warning.
        step_s: seconds of one optimizer step, where it was measured: fills ``time``.
        evaluations_s: seconds of all evaluations.
        time_source: where these come from.
        held_bytes: what the process holds before there is a model; on a CPU its memory is measured as a whole.
        choices: those made already, ``{key, value, reason}``, kept in front.

    Returns:
        ganeum_version, torch_version, config_sha256 (of the config's YAML), name, method, model, device, parameters,
        flops (counts; ``per_token`` is forward and backward), data, batch, memory_gib, time, choices, warnings.
    """
    settled, made = _settle(config, device, vocab_size)
    model, train = settled.model, settled.train
    assert isinstance(model.vocab_size, int)
    assert isinstance(train.micro_batch_size, int)
    counted = parameters.count(model, model.vocab_size, train.lora)
    work = flops.count(model, counted, train)
    length = lengths(settled, tokens, step_s=step_s)
    precision = device.fast_precision if train.precision == "auto" else train.precision
    peak, total = (
        device.peak(precision),
        None if length.steps is None else work.per_token * length.tokens_per_step * length.steps,
    )
    facts = warnings.Facts(
        config=settled,
        device=device,
        parameters=counted,
        flops=work,
        lengths=length,
        precision=precision,
        vocab_known=config.model.vocab_size != "auto" or vocab_size is not None,
        total_flops=total,
    )
    found: dict[str, Any] = {
        "ganeum_version": ganeum.__version__,
        "torch_version": torch_version(),
        "config_sha256": hashlib.sha256(to_yaml(config).encode()).hexdigest(),
        "name": config.name,
        "method": "closed_form",
        "model": model.model_dump(include={"style", "n_layer", "n_head", "n_embd", "block_size", "vocab_size"}),
        "device": {
            "name": device.name,
            "kind": device.kind,
            "memory_gib": round(device.memory_gib, 2),
            "usable_gib": round(device.usable_gib, 2),
            "precision": precision,
            "peak_flops_per_second": peak,
            "source": device.source,
        },
        "parameters": {
            "total": counted.total,
            "trainable": counted.trainable,
            "non_embedding": counted.non_embedding,
            "by_component": counted.by_component,
        },
        "flops": {
            "per_token": work.per_token,
            "per_step": work.per_token * length.tokens_per_step,
            "attention_per_token": 3 * work.attention_per_token,
            "recomputed_per_token": work.recomputed_per_token,
            "total": total,
        },
        "data": {
            "directory": settled.data.directory,
            "tokens": length.tokens,
            "stride": stride_of(settled),
            "windows": length.windows,
            "steps_per_epoch": length.steps_per_epoch,
            "epochs": length.epochs,
            "steps": length.steps,
            "tokens_seen": length.tokens_seen,
            "repeats_per_token": length.repeats_per_token,
            "tokens_per_parameter": None if length.tokens is None else length.tokens / counted.total,
        },
        "batch": {
            "batch_size": train.batch_size,
            "micro_batch_size": train.micro_batch_size,
            "gradient_accumulation_steps": train.batch_size // train.micro_batch_size,
            "tokens_per_step": length.tokens_per_step,
        },
        "memory_gib": _memory(settled, device, train.micro_batch_size, held_bytes),
        "choices": [*map(dict, choices), *made],
        "warnings": [warning.as_dict() for warning in warnings.of(facts)],
    }
    if step_s is not None:
        per_second = length.tokens_per_step / step_s
        found["time"] = {
            "step_s": step_s,
            "tokens_per_second": per_second,
            "mfu": per_second * work.per_token / peak if peak else None,
            "hours": None if length.steps is None else (length.steps * step_s + evaluations_s) / 3600,
            "source": time_source,
        }
    return {key: _without_none(value) for key, value in found.items() if value is not None}


def _memory(config: Config, device: Device, micro_batch_size: int, held_bytes: int | None) -> dict[str, Any]:
    """``tensors`` at a step's fullest moment, and ``peak_allocated`` where a run measures just that: a GPU's allocator
    counts tensors, a CPU's process also holds what it held before; MPS tells no peak."""
    needed = micro_batch.needed(config, device, micro_batch_size)
    tensors = needed.total / units.GIB
    found: dict[str, Any] = {
        "tensors": tensors,
        "by_component": {name: part / units.GIB for name, part in needed.parts.items()},
        "source": "estimated",
    }
    if device.kind == "cuda":
        found["peak_allocated"] = tensors
    elif device.kind == "cpu" and held_bytes is not None:
        held = held_bytes / units.GIB
        found |= {"before_the_model": held, "peak_allocated": tensors + held}
    return found


def _settle(config: Config, device: Device, vocab_size: int | None) -> tuple[Config, list[dict[str, Any]]]:
    """The config with vocabulary and micro-batch as numbers, and the choices that took."""
    made: list[dict[str, Any]] = []
    if config.model.vocab_size == "auto":
        value, reason = vocab_size, f"as in {config.data.directory}"
        if value is None:
            value, reason = GPT2_VOCAB_SIZE, "GPT-2's, until the data is prepared and says its own"
        config = config.model_copy(update={"model": config.model.model_copy(update={"vocab_size": value})})
        made.append({"key": "model.vocab_size", "value": value, "reason": reason})
    settings, chosen = fastest.choose(config, device)
    return change(config, settings), made + chosen


def _without_none(value: Any) -> Any:
    return {key: v for key, v in value.items() if v is not None} if isinstance(value, dict) else value
