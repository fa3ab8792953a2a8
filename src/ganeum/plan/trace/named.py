"""A model by its name, traced: its config.json alone makes the model, with weights that have shapes and no numbers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ganeum.config import Config
from ganeum.hardware.device import Device
from ganeum.plan.architecture.known import known
from ganeum.plan.execution import LOSS_CHUNK, Execution
from ganeum.plan.trace import exact
from ganeum.plan.trace.child import Child, NotTraced, OutOfTime
from ganeum.plan.trace.room import largest
from ganeum.plan.trace.section import section

Plan = dict[str, Any]
# What a config of ours calls the levers that a model by its name has too, and what is typed there.
KEYS = {f"train.{key}": key for key in ("optimizer", "weights", "activation_checkpointing", "micro_batch_size")}
OURS = (
    "a training is traced as ganeum train takes its steps: transformers' Trainer keeps the logits of all rows at once"
)


def refined(plan: Plan, asked: str | Config, way: Execution, device: Device, *, explain: bool = False) -> Plan:
    """The plan of a model by its name with its traced memory; or as it was, and why.

    On a GPU ``largest_micro_batch`` is exact, but of an evaluation.

    Args:
        asked: its name, directory or file; or the run of ours that it is the network of.
        way: how it is to be run, but for what the plan chose.
        explain: of a training also ``memory_gib.levers``, and on a GPU ``batch.largest_length``.
    """
    batch, training = dict(plan["batch"]), way.purpose == "training" and isinstance(asked, str)
    doubts, levers = ([OURS] if training else []), list[dict[str, Any]]()
    try:
        way = _chosen(plan, way)
        with _config(asked, way) as config, Child() as child:
            found = exact.of(child, config, device, way)
            if device.kind == "cuda" and way.purpose != "evaluation":
                most, untold = _largest(child, plan, config, device, way)
                batch, doubts = batch | most, [*doubts, *untold]
            if explain and training:
                if device.kind == "cuda":
                    longer, untold = exact.longer_rows(child, config, device, way)
                    batch, doubts = batch | longer, [*doubts, *untold]
                pulls = [one for one in exact.keeping(config, device, way) if one[0] in KEYS and one[1] != "selective"]
                levers, untold = exact.pulled(child, config, device, way, found, pulls)
                doubts += untold
    except NotTraced as reason:
        return plan | {"memory_gib": plan["memory_gib"] | {"not_traced": str(reason)}}
    memory = section(found, device, plan["memory_gib"])
    memory["uncertain"] += doubts
    if explain and training:
        memory["levers"] = [lever | {"key": KEYS[lever["key"]]} for lever in levers]
    return plan | {"method": "traced", "batch": batch, "memory_gib": memory}


def _largest(
    child: Child, plan: Plan, config: Config, device: Device, way: Execution
) -> tuple[dict[str, Any], list[str]]:
    """``largest_micro_batch`` of a plan's batch and what is known of one more; or that there was no time for it."""
    guess = plan["batch"]["largest_micro_batch"]
    enough = exact.ENOUGH * way.micro_batch_size * way.accumulation
    try:
        most = largest(child, config, device, replace(way, accumulation=1, compiled=False), guess, enough)
    except OutOfTime as reason:
        return {}, [f"the largest micro-batch is the closed form's: {reason}"]
    return {"largest_micro_batch": most.size, "one_more": most.beyond}, []


def _chosen(plan: Plan, way: Execution) -> Execution:
    """``way`` with what the plan settled.

    Raises:
        NotTraced: memory is shared with other devices, or weights are of a kind that no step of ours has.
    """
    if way.zero_stage or way.devices > 1 or way.offload != "none":
        raise NotTraced("what lies on other devices or in the CPU's memory is DeepSpeed's, and is not traced")
    if way.weights in ("int8", "nf4"):
        raise NotTraced(f"weights in {way.weights} are another library's, and are not traced")
    settled = {choice["key"]: choice["value"] for choice in plan["choices"]}
    batch, training = plan["batch"], way.purpose in ("training", "evaluation")
    return replace(
        way,
        micro_batch_size=batch["micro_batch_size"],
        accumulation=batch["gradient_accumulation_steps"],
        precision=plan["device"]["precision"],
        checkpointing=settled.get("activation_checkpointing", way.checkpointing),
        loss_chunk=LOSS_CHUNK[way.kind] if training else way.loss_chunk,
    )


@contextmanager
def _source(name: str) -> Iterator[Path]:
    """A directory with the model's config.json.

    Raises:
        NotTraced: none is known here.
    """
    path = Path(name)
    if (path / "config.json").is_file():
        yield path
        return
    if path.is_file():
        shape = json.loads(path.read_text(encoding="utf-8"))
    else:
        found = next((one for one in known() if name.lower() in (one.name.lower(), one.hub.lower())), None)
        if found is None:
            raise NotTraced(f"the config.json of {name} is not here: a directory with it can be traced")
        shape = found.config
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(shape), encoding="utf-8")
        yield Path(directory)


@contextmanager
def _config(asked: str | Config, way: Execution) -> Iterator[Config]:
    """A config of ours that says the same."""
    if isinstance(asked, Config):
        yield asked
        return
    with _source(asked) as source:
        yield _adopting(source, way)


def _adopting(source: Path, way: Execution) -> Config:
    weights = way.weights if way.weights in ("fp32", "bf16") and way.purpose == "training" else "fp32"
    return Config.model_validate(
        {
            "name": "named",
            "model": {"source": str(source)},
            "data": {
                "train": "examples.jsonl",
                "max_length": way.source_length or way.length,
                "max_target_length": way.length,
                "batching": "padded",
            },
            "train": {
                "batch_size": way.micro_batch_size * way.accumulation,
                "micro_batch_size": way.micro_batch_size,
                "precision": way.precision if way.purpose == "training" else "auto",
                "activation_checkpointing": way.checkpointing,
                "max_iters": 1,
                "optimizer": way.optimizer,
                "weights": weights,
                "lora": way.lora.model_dump(),
            },
        }
    )
