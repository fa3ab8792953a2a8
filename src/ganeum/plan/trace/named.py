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
from ganeum.plan.trace.child import Child, NotTraced

Plan = dict[str, Any]
OURS = (
    "a training is traced as ganeum train takes its steps: transformers' Trainer keeps the logits of all rows at once"
)


def refined(plan: Plan, asked: str | Config, way: Execution, device: Device) -> Plan:
    """The plan of a model by its name with its traced memory; or as it was, and why.

    Args:
        asked: its name, directory or file; or the run of ours that it is the network of.
        way: how it is to be run, but for what the plan chose.
    """
    try:
        way = _chosen(plan, way)
        with _config(asked, way) as config, Child() as child:
            found = exact.of(child, config, device, way)
    except NotTraced as reason:
        return plan | {"memory_gib": plan["memory_gib"] | {"not_traced": str(reason)}}
    memory = exact.section(found, device, plan["memory_gib"])
    if way.purpose == "training" and isinstance(asked, str):
        memory["uncertain"].append(OURS)
    return plan | {"method": "traced", "memory_gib": memory}


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
                "max_iters": 1,
                "optimizer": way.optimizer,
                "weights": weights,
                "lora": way.lora.model_dump(),
            },
        }
    )
