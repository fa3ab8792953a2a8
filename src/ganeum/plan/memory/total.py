"""The moments of a step, and which of them is the fullest."""

from __future__ import annotations

from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory import ours
from ganeum.plan.memory.parts import Memory

FRAMEWORK = {"cpu": 120.0 * 2**20, "cuda": 0.0, "mps": 0.0}  # docs/plan.md: steps of four models on a CPU


def of(architecture: Architecture, execution: Execution) -> Memory:
    """The memory of ``architecture`` run as ``execution`` says."""
    activations = ours.activations(architecture, execution)
    wide = 4.0 if execution.weights == "fp32" else 2.0
    numbers = sum(table.rows * table.width for table in architecture.tables)
    numbers += sum(block.count * sum(linear.size for linear in block.linears) for block in architecture.blocks)
    numbers += 0 if architecture.tied else architecture.head.size
    parts = {"weights": wide * numbers, **activations.kept, "logits": activations.loss}
    if execution.purpose == "training":
        parts |= {"gradients": wide * numbers, "optimizer": 8.0 * numbers, "workspace": activations.backward}
    expected = sum(parts.values())
    return Memory(parts, "loss", expected, expected / 0.85, FRAMEWORK[execution.kind])
