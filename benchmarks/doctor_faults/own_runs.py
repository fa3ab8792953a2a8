"""Faults of ganeum's own runs: keys of a config, the environment, and a module that changes ganeum from outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

GPT: Mapping[str, Any] = {
    "device": "cpu",
    "model.n_layer": 2,
    "model.n_head": 4,
    "model.n_embd": 96,
    "model.block_size": 64,
    "train.batch_size": 8,
    "train.micro_batch_size": 8,
    "train.max_iters": 600,
    "train.eval_interval": 300,
    "train.eval_tokens": 2048,
    "train.checkpoint_interval": 600,
    "train.compile": False,
    "sample.interval": 0,
    "log.tensorboard": False,
}
T5: Mapping[str, Any] = {
    "device": "cpu",
    "model.fresh": True,
    "train.batch_size": 16,
    "train.max_iters": 400,
    "train.eval_interval": 200,
    "train.eval_tokens": 2048,
    "train.checkpoint_interval": 400,
    "train.compile": False,
    "sample.interval": 0,
    "train.learning_rate": 1e-3,
    "data.max_length": 128,
    "data.max_target_length": 32,
    "log.tensorboard": False,
}


@dataclass(frozen=True)
class OwnFault:
    """A fault of a config of ours.

    Attributes:
        kind: what people call it.
        causes: of the doctor's catalogue; any of them is a right answer.
        keys: what the config says besides.
        honest: the same keys as they should be; left out: as ganeum decides.
        environment: of all processes of the run.
        patch: Python that every process of the run executes when it starts.
        base: ``gpt`` or ``t5``.
        harm: as of :class:`doctor_faults.fault.Fault`.
    """

    kind: str
    causes: tuple[str, ...]
    keys: Mapping[str, Any] = field(default_factory=dict)
    honest: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    patch: str = ""
    base: str = "gpt"
    harm: str = "speed"


# A sitecustomize.py: when a module of ganeum has been read, one of its functions is put into another.
AROUND = """
import gc, importlib.abc, importlib.util, sys, time


def before():
    {what}


class Later(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        read = spec.loader.exec_module

        def exec_module(module):
            read(module)
            owner = getattr(module, {owner!r})
            inner = getattr(owner, {function!r})

            def around(*arguments, **named):
                before()
                return inner(*arguments, **named)

            setattr(owner, {function!r}, around)

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Later())
"""
BATCHES = {"module": "ganeum.data.batches", "owner": "Batches", "function": "batch"}
STEPS = {"module": "ganeum.step.optimizer_step", "owner": "OptimizerStep", "function": "__call__"}

OWN_FAULTS: Mapping[str, OwnFault] = {
    "long_division": OwnFault("fp32 where bf16 is faster", ("fp32",), {"train.precision": "fp32"}),
    "crumb_by_crumb": OwnFault(
        "tiny micro-batch", ("small_micro_batch",), {"train.micro_batch_size": 1}, {"train.micro_batch_size": 8}
    ),
    "second_helping": OwnFault(
        "recomputation", ("checkpointing_for_nothing",), {"train.activation_checkpointing": "whole"}
    ),
    "exam_week": OwnFault("an evaluation every few steps", ("too_often",), {"train.eval_interval": 4}),
    "line_by_line_ledger": OwnFault(
        "a checkpoint every step", ("too_often", "slow_disk"), {"train.checkpoint_interval": 1}
    ),
    "running_commentary": OwnFault(
        "samples every few steps", ("too_often",), {"sample.interval": 10}, {"sample.interval": 0}
    ),
    "teaspoons": OwnFault("the loss in tiny pieces", ("logits", "small_micro_batch"), {"train.loss_chunk": 16}),
    "roof_tiles": OwnFault(
        "overlapping windows", ("overlapping_windows",), {"data.order": "epochs", "data.stride": 8}, harm="learning"
    ),
    "wooden_crates": OwnFault(
        "padding to the longest there could be", ("padding",), {"data.batching": "fixed"}, base="t5"
    ),
    "short_pew": OwnFault(
        "tiny micro-batch", ("small_micro_batch",), {"train.micro_batch_size": 1, "data.batching": "padded"}, base="t5"
    ),
    "crowd_control": OwnFault(
        "more threads than cores", ("oversubscription",), environment={"OMP_NUM_THREADS": "24", "MKL_NUM_THREADS": "24"}
    ),
    "cold_tap": OwnFault(
        "sleep in the loader", ("loader", "slow_disk"), patch=AROUND.format(what="time.sleep(0.012)", **BATCHES)
    ),
    "housemaid": OwnFault(
        "collecting garbage in every step",
        ("memory_emptied", "pauses"),
        patch=AROUND.format(what="gc.collect()", **STEPS),
    ),
}
