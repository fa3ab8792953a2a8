"""plan.json: everything about a run that arithmetic alone can say before it starts."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

import ganeum
from ganeum.config import Config, to_yaml
from ganeum.config.change import change
from ganeum.hardware.device import Device
from ganeum.hardware.peaks import torch_version
from ganeum.plan import critique, execution, fastest, flops, memory, micro_batch, parameters, sections, time
from ganeum.plan.architecture import Architecture, configured
from ganeum.plan.examples import rows_of
from ganeum.plan.execution import Execution
from ganeum.plan.lengths import Lengths, lengths, stride_of
from ganeum.step import compile as compilation

GPT2_VOCAB_SIZE = 50_257
EVALUATIONS = 10  # what eval_interval: auto comes to


def plan(
    config: Config,
    *,
    device: Device,
    tokens: int | None = None,
    vocab_size: int | None = None,
    val_tokens: int | None = None,
    steps_per_epoch: int | None = None,
    data: Mapping[str, Any] | None = None,
    step_s: float | None = None,
    evaluations_s: float = 0.0,
    time_source: str = "measured before the start",
    held_bytes: int | None = None,
    choices: Sequence[Mapping[str, Any]] = (),
    may_shorten: bool = False,
) -> dict[str, Any]:
    """The plan of a run, as ``plan.json`` holds it. What cannot be known yet is left out, never guessed or null.

    Args:
        config: whatever is still ``auto`` in it is chosen here where arithmetic can, and listed in ``choices``.
        device: what it will run on.
        tokens: tokens to train with, in ``train.bin`` or of examples; None: not known yet, or what is remembered of
            examples.
        vocab_size: the data's, for ``model.vocab_size: auto``; without it GPT-2's is taken, with a warning.
        val_tokens: tokens in ``val.bin``; None: as many as an evaluation takes.
        steps_per_epoch: of examples; None: as many as are remembered make.
        data: what else there is to say of examples, for ``plan.json``.
        step_s: seconds of one optimizer step, where it was measured; else ``time`` is the roofline's, where the
            device's rates are known.
        evaluations_s: seconds of all evaluations, with ``step_s``.
        time_source: where these come from.
        held_bytes: what the process holds before there is a model; on a CPU its memory is measured as a whole.
        choices: those made already, ``{key, value, reason}``, kept in front.
        may_shorten: the context may be cut where nothing else makes the run fit.

    Returns:
        ganeum_version, torch_version, config_sha256 (of the config's YAML), name, method, model, device, parameters,
        flops (counts; ``per_token`` is forward and backward), data, batch, memory_gib, time, loss (nats a token),
        choices, warnings.
    """
    settled, made = settle(config, device, vocab_size, may_shorten=may_shorten)
    model, train = settled.model, settled.train
    assert isinstance(train.micro_batch_size, int)
    architecture, way = configured.of(settled), execution.of(settled, device, train.micro_batch_size)
    rows = None
    if model.source is not None:
        told = None if data is None else {**data, "tokens": tokens}
        rows = rows_of(settled, encoder_decoder=architecture.encoder_decoder, told=told)
        tokens, val_tokens = tokens or rows.tokens, val_tokens or rows.held_out
        steps_per_epoch = steps_per_epoch or rows.steps_per_epoch(settled)
    long = partial(lengths, settled, tokens, steps_per_epoch=steps_per_epoch)
    if step_s is None and rows is None:
        way, compiled = as_trained(train.compile, architecture, way, device, lambda step_s: long(step_s=step_s).steps)
        made += compiled
    usual = way if rows is None else execution.usually(way, rows)
    counted, work = parameters.of(architecture, train.lora), flops.of(architecture, usual)
    predicted = time.of(architecture, usual, device) if step_s is None else None
    pace = predicted.step_s if predicted else step_s
    length = long(step_s=pace)
    if predicted:
        evaluations_s = time_to_evaluate(settled, architecture, usual, device, length, val_tokens)
    peak = device.peak(way.precision)
    hours = None if length.steps is None or pace is None else (length.steps * pace + evaluations_s) / 3600
    taken = None
    if predicted:
        taken = sections.predicted_time(predicted, work.per_step, peak, hours)
        if rows is not None:  # those of padding are computed, and teach nothing
            taken["tokens_per_second"] = length.tokens_per_step / predicted.step_s
    elif step_s is not None:
        taken = sections.measured_time(step_s, length.tokens_per_step, work.per_step, peak, hours, time_source)
    facts = critique.Facts(
        architecture=architecture,
        execution=way,
        device=device,
        flops=work,
        steps=length.steps,
        step_s=pace,
        precision_chosen=any(choice["key"] == "train.precision" for choice in (*choices, *made)),
        config=settled,
        parameters=counted,
        lengths=length,
        vocab_known=config.model.vocab_size != "auto" or vocab_size is not None,
    )
    found: dict[str, Any] = {
        "ganeum_version": ganeum.__version__,
        "torch_version": torch_version(),
        "config_sha256": _sum(config),
        "name": config.name,
        "method": "closed_form",
        "model": model.model_dump(include={"style", "n_layer", "n_head", "n_embd", "block_size", "vocab_size"})
        if rows is None
        else sections.somebody_elses(architecture, way),
        "device": sections.device(device, way.precision),
        "parameters": sections.parameters(counted),
        "flops": sections.flops(work, length.steps, None if rows is None else length.tokens_per_step),
        "data": {
            **(
                {"directory": settled.data.directory, "stride": stride_of(settled)}
                if rows is None
                else {"train": settled.data.train, "usual_row": _sides(usual), **rows.told}
            ),
            "tokens": length.tokens,
            "windows": length.windows,
            "steps_per_epoch": length.steps_per_epoch,
            "epochs": length.epochs,
            "steps": length.steps,
            "tokens_seen": length.tokens_seen,
            "repeats_per_token": length.repeats_per_token,
            "tokens_per_parameter": None if length.tokens is None or rows else length.tokens / counted.total,
        },
        "batch": {
            "batch_size": way.accumulation * train.micro_batch_size,
            "micro_batch_size": train.micro_batch_size,
            "gradient_accumulation_steps": way.accumulation,
            "largest_micro_batch": fastest.largest(architecture, way, device),
            "tokens_per_step": length.tokens_per_step,
        },
        "memory_gib": sections.memory(memory.of(architecture, way), device, held_bytes),
        "time": taken,
        "loss": None  # the laws are of trainings from the beginning
        if train.init_from or model.source
        else sections.loss(counted, architecture.vocab_size, length.tokens_seen, length.tokens),
        "choices": [*map(dict, choices), *made],
        "warnings": [warning.as_dict() for warning in critique.of(facts)],
    }
    return {key: sections.without_none(value) for key, value in found.items() if value is not None}


def as_trained(
    requested: bool | Literal["auto"],
    architecture: Architecture,
    way: Execution,
    device: Device,
    steps: Callable[[float], float | None],
) -> tuple[Execution, list[dict[str, Any]]]:
    """``way`` compiled where training would compile, by its own rule (:mod:`ganeum.step.compile`), and that choice.

    Args:
        steps: seconds of a step, uncompiled → the steps of the run, where they are known.
    """
    if requested != "auto":
        return way, []
    eager = time.of(architecture, way, device)
    if eager is None:
        return way, []
    length = steps(eager.step_s)
    compiled, why = compilation.choose(
        requested, steps=None if length is None else round(length), step_s_estimate=eager.step_s, device=device
    )
    chosen = [{"key": "train.compile", "value": True, "reason": why}] if compiled else []
    return replace(way, compiled=compiled), chosen


def _sides(way: Execution) -> dict[str, int]:
    return {"source": way.source_length, "target": way.length}


@lru_cache(maxsize=4)  # one config is planned for many cards
def _sum(config: Config) -> str:
    return hashlib.sha256(to_yaml(config).encode()).hexdigest()


def settle(
    config: Config, device: Device, vocab_size: int | None = None, *, may_shorten: bool = False
) -> tuple[Config, list[dict[str, Any]]]:
    """The config with vocabulary, precision, checkpointing and micro-batch decided, and the choices that took."""
    made: list[dict[str, Any]] = []
    if config.model.vocab_size == "auto" and config.model.source is None:
        value, reason = vocab_size, f"as in {config.data.directory}"
        if value is None:
            value, reason = GPT2_VOCAB_SIZE, "GPT-2's, until the data is prepared and says its own"
        config = change(config, {"model.vocab_size": value})
        made.append({"key": "model.vocab_size", "value": value, "reason": reason})
    settings, chosen = fastest.choose(config, device, may_shorten=may_shorten)
    return change(config, settings), made + chosen


def time_to_evaluate(
    config: Config,
    architecture: Architecture,
    way: Execution,
    device: Device,
    length: Lengths,
    val_tokens: int | None,
) -> float:
    """Seconds of all evaluations, by the roofline; 0 where it is not known how much is evaluated, or how often."""
    train = config.train
    at_once = train.eval_batch_size
    if at_once == "auto":
        at_once, _ = micro_batch.choose_for_evaluation(config, device)
    evaluation = time.of(architecture, replace(way, purpose="evaluation", micro_batch_size=at_once), device)
    tokens = val_tokens
    if train.eval_tokens != "all":
        tokens = train.eval_tokens if val_tokens is None else min(train.eval_tokens, val_tokens)
    if evaluation is None or tokens is None or length.steps is None:
        return 0.0
    every = train.eval_interval
    often = EVALUATIONS if every == "auto" else round(1 / every) if every < 1 else math.ceil(length.steps / every)
    return often * tokens / evaluation.tokens_per_second
