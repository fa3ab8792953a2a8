"""What a run's directory says of it from the start: its plan, its machine, its tokenizer, the shape of its model."""

from __future__ import annotations

from typing import Any

from ganeum import hardware, record
from ganeum.models.adopted import Adopted
from ganeum.models.theirs import SHAPE
from ganeum.plan.closed_form import plan
from ganeum.plan.trace import exact
from ganeum.record import RunDirectory
from ganeum.step.optimizer_step import OptimizerStep
from ganeum.train.material import Material
from ganeum.train.resolve import Resolved
from ganeum.train.settled import Settled

NEW_TOKENIZER, NEW_SHAPE = ".new-tokenizer", ".new-model"  # while they are written


def describe(run: RunDirectory, decided: Resolved, material: Material, device: hardware.Device) -> dict[str, Any]:
    """plan.json, environment.json and tokenizer/, each once, before step 0; → the plan."""
    if (predicted := stored_plan(run)) is None:
        predicted = predict(decided, material, device)
        record.write_json(run.plan_path, predicted)
    if not run.environment_path.exists():
        record.write_json(run.environment_path, hardware.environment(decided.config.seed))
    if material.tokenizer is not None and not run.tokenizer_dir.exists():
        growing = run.path / NEW_TOKENIZER
        material.tokenizer.save(growing)
        growing.rename(run.tokenizer_dir)
    return predicted


def keep_shape(run: RunDirectory, step: OptimizerStep) -> None:
    """model/ with the config of an adopted model, once, before step 0."""
    if isinstance(step.model, Adopted) and not (run.path / SHAPE).exists():
        growing = run.path / NEW_SHAPE
        step.model.save_shape(growing)
        growing.rename(run.path / SHAPE)


def stored_plan(run: RunDirectory) -> dict[str, Any] | None:
    """plan.json; None where it was thrown away or is damaged."""
    try:
        content = record.read_json(run.plan_path)
    except (OSError, ValueError):
        return None
    whole = isinstance(content, dict) and content.keys() >= {"data", "parameters", "device", "flops"}
    return content if whole else None


def was_to_choose(predicted: dict[str, Any], key: str) -> bool:
    """Whether a key was `auto` when the run was made."""
    return any(choice["key"] == key for choice in predicted.get("choices", []))


def predict(
    decided: Resolved, material: Material, device: hardware.Device, held_bytes: int | None = None
) -> dict[str, Any]:
    """The plan; its times are those measured before the start, or without a measurement the roofline's."""
    config, pace = decided.config, decided.pace
    predicted = plan(
        config,
        device=device,
        **material.for_plan(config),
        step_s=pace.step_s if pace else None,
        evaluations_s=pace.evaluations_s(Settled.of(config).max_iters) if pace else 0.0,
        choices=decided.choices,
        held_bytes=held_bytes,
    )
    if pace is not None:
        predicted["time"] |= {"low": pace.low, "high": pace.high}
    predicted["data"]["identity"] = material.identity
    if device.kind == "cuda" and config.train.trace_memory:
        predicted = exact.started(predicted, config, device)
    return predicted
