"""The moments of a step, and which of them is the fullest."""

from __future__ import annotations

from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory import state, update
from ganeum.plan.memory.ours import OurGPT, buffers
from ganeum.plan.memory.parts import Memory
from ganeum.plan.memory.replay import Ledger, Tape

FRAMEWORK = {"cpu": 120.0 * 2**20, "cuda": 0.0, "mps": 0.0}  # docs/plan.md: steps of four models on a CPU


def of(architecture: Architecture, execution: Execution) -> Memory:
    """The memory of ``architecture`` run as ``execution`` says."""
    held, training = state.of(architecture, execution), execution.purpose == "training"
    ledger, accumulating = Ledger(), training and execution.accumulation > 1
    ledger.take("weights", held.weights + buffers(architecture))
    ledger.take("optimizer", held.optimizer)
    if accumulating:
        ledger.take("gradients", held.gradients)
    if architecture.implementation == "transformers":
        from ganeum.plan.memory import transformers

        parts, at = transformers.fullest(architecture, execution)
        most = sum(parts.values())
        return Memory(parts, at, most, most / 0.85, FRAMEWORK[execution.kind])
    tape = Tape(ledger, recording=training, accumulating=accumulating)
    OurGPT(architecture, execution, tape).step()
    if training:
        ledger.moment = "update"
        needed = update.of(architecture, execution)
        ledger.take("update", needed)
        ledger.give("update", needed)
    parts = {name: size for name, size in ledger.fullest.items() if size}
    return Memory(parts, ledger.at, ledger.most, ledger.most / 0.85, FRAMEWORK[execution.kind])
