"""How a run begins and how it ended, in words and in summary.json: what was planned beside what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ganeum import units
from ganeum.config import Config
from ganeum.models.theirs import SHAPE
from ganeum.record import RunDirectory, read_json, read_metrics
from ganeum.train import comparison, hugging_face, throttling
from ganeum.train.evaluate import Evaluation, ValidationSet
from ganeum.train.progress import Progress
from ganeum.train.settled import Settled

FIGURES = {"steps", "tokens_seen", "loss", "best_step", "best_val_loss", "best_val_bpb"}  # what a summary must have


def going_on(run: RunDirectory, config: Config, predicted: Mapping[str, Any], progress: Progress) -> str:
    """What is trained, on what, for how long, and from which step on; a new run shows its whole plan instead."""
    train, settled = config.train, Settled.of(config)
    at_once = progress.size("train.micro_batch_size", settled.micro_batch_size)
    accumulated = train.batch_size // at_once
    tokens, seen = predicted["data"]["tokens"], settled.max_iters * comparison.tokens_per_step(config, predicted)
    batch = f"{train.batch_size} × {config.model.block_size} tokens"
    if config.model.source is not None:
        about = f"about {comparison.tokens_per_step(config, predicted):,} tokens"
        batch = about if train.batch_tokens else f"{train.batch_size} examples, {about}"
    return "\n".join(
        [
            f"{run.name} → {run.path}",
            f"{units.count(predicted['parameters']['total'])} parameters, {train.precision}"
            f"{', compiled' if train.compile else ''} on {predicted['device']['name']}",
            f"{settled.max_iters:,} steps of {batch} "
            f"({accumulated} × {at_once} at once), {units.count(seen)} in all: "
            f"each of the {units.count(tokens)} tokens there are is seen {seen / tokens:.2g} times",
            f"going on from step {progress.step:,}",
        ]
    )


def of(
    run: RunDirectory,
    config: Config,
    progress: Progress,
    predicted: Mapping[str, Any],
    ended_by: Literal["max_iters", "patience", "callback"],
) -> dict[str, Any]:
    """summary.json's content."""
    logged = list(read_metrics(run.metrics_path))
    return {
        "name": run.name,
        "ended_by": ended_by,
        "steps": progress.step,
        "tokens_seen": progress.tokens_seen,
        "elapsed_s": progress.elapsed_s,
        "loss": logged[-1]["loss"] if logged else None,
        "val_loss": progress.val_loss,
        "val_bpb": progress.val_bpb,
        "best_step": progress.best_step,
        "best_val_loss": progress.best_val_loss,
        "best_val_bpb": progress.best_val_bpb,
        **hugging_face.ended(config, progress, predicted),
        "out_of_memory": progress.out_of_memory,
        "time_planned_from": (predicted.get("time") or {}).get("source"),
        "planned_and_measured": comparison.of(config, progress, predicted, logged),
    }


def stored(run: RunDirectory) -> dict[str, Any]:
    """summary.json; where that is damaged or gone, what status.json and the metrics still tell, `ended_by` None."""
    try:
        content = read_json(run.summary_path)
    except (OSError, ValueError):
        content = None
    if isinstance(content, dict) and content.keys() >= FIGURES:
        return content
    logged, status = list(read_metrics(run.metrics_path)), run.status()
    best = min(
        (line for line in logged if line.get("val_loss") is not None), key=lambda line: line["val_loss"], default={}
    )
    latest = logged[-1] if logged else {}
    return {
        "name": run.name,
        "ended_by": None,
        "steps": status.step if status else latest.get("step", 0),
        "tokens_seen": latest.get("tokens_seen", 0),
        "elapsed_s": latest.get("elapsed_s"),
        "loss": latest.get("loss"),
        "best_step": best.get("step"),
        "best_val_loss": best.get("val_loss"),
        "best_val_bpb": best.get("val_bpb"),
    }


def evaluated(
    run: RunDirectory, config: Config, step: int | None, validation: ValidationSet, evaluation: Evaluation
) -> dict[str, Any]:
    """What `eval_only` answers."""
    return {
        "name": run.name,
        "ended_by": "eval_only",
        "evaluated": config.train.init_from if step is None else run.checkpoint_dir(step).name,
        "val_tokens": validation.tokens,
        "val_loss": evaluation.val_loss,
        "val_bpb": evaluation.val_bpb,
    }


def in_words(evaluated: Mapping[str, Any]) -> str:
    """The same as a sentence."""
    bits = "" if evaluated["val_bpb"] is None else f", {evaluated['val_bpb']:.4f} bits per byte"
    return (
        f"{evaluated['name']}, {evaluated['evaluated']}: validation loss {evaluated['val_loss']:.4f} nats per token"
        f"{bits} ({evaluated['val_tokens']:,} tokens)"
    )


def closing(run: RunDirectory, ended: Mapping[str, Any]) -> str:
    """The last lines of a training."""
    lines = ["", "Training Finished!", f"Total Training Time: {ended['elapsed_s']:.2f} sec", "", _figures(ended)]
    if ended["ended_by"] == "patience":
        lines.append("Stopped early: the validation loss did not get better any more (train.patience).")
    if ended["out_of_memory"]:
        lines += ["Memory ran out:", *map(_lowered, ended["out_of_memory"])]
    lines += comparison.in_words(ended["planned_and_measured"], ended["time_planned_from"])
    if "gpu" in ended and (slowed := throttling.in_words(ended["gpu"])):
        lines.append(slowed)
    return "\n".join([*lines, f"Results: {run.path}", f"Next: {_next(run)}"])


def _next(run: RunDirectory) -> str:
    if (run.path / SHAPE).is_dir():
        return f"ganeum generate {run.name} --input FILE --output FILE"
    return f"ganeum sample {run.name}"


def _lowered(event: Mapping[str, Any]) -> str:
    return f"  at step {event['step']:,}: {event['key']} {event['before']} → {event['after']}"


def already(run: RunDirectory, ended: Mapping[str, Any]) -> str:
    """The answer to the same command once more."""
    damaged = (
        "" if ended.get("ended_by") else "(summary.json is damaged: these are the figures of logs/metrics.jsonl)\n"
    )
    return (
        f"{run.name} is finished: {_figures(ended)}\n{damaged}Results: {run.path}\n"
        "A larger length (train.max_iters=…) goes on with it; --overwrite starts it again."
    )


def _figures(ended: Mapping[str, Any]) -> str:
    text = f"{ended['steps']:,} steps, {units.count(ended['tokens_seen'])} tokens, loss {_number(ended['loss'])}"
    if ended["best_step"] is not None:
        text += f"; best validation loss {_number(ended['best_val_loss'])}"
        if ended["best_val_bpb"] is not None:
            text += f" ({ended['best_val_bpb']:.3f} bits per byte)"
        text += f" at step {ended['best_step']:,}"
    return text


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4f}"
