"""What transformers' own models keep of a micro-batch, operation by operation as their forward pass is written."""

from __future__ import annotations

from ganeum.plan.architecture import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory import state, update
from ganeum.plan.memory.decoders import Decoder
from ganeum.plan.memory.graph import Graph
from ganeum.plan.memory.replay import Ledger
from ganeum.plan.memory.t5 import T5


def fullest(architecture: Architecture, execution: Execution) -> tuple[dict[str, float], str]:
    """A step's fullest moment: bytes by component, and which moment it is.

    The step is the Trainer's, or ours: forward, loss, backward for each micro-batch, then the update. Sequences of an
    encoder are of different lengths (there is a padding mask), those of a decoder alone are full.
    """
    kept = state.of(architecture, execution)
    ledger = Ledger()
    graph = Graph(ledger, recording=execution.purpose == "training", gradients_stay=_staying(execution))
    model = (
        T5(graph, architecture, execution) if architecture.encoder_decoder else Decoder(graph, architecture, execution)
    )
    for _ in range(min(2, execution.accumulation)):
        loss = model.loss()
        model.forget()
        if graph.recording and loss.gradient:
            loss.gradient.add(graph.tensor("workspace", 1, 4.0))
            del loss
            graph.backward()
    ledger.moment = "update"
    ours = architecture.implementation == "adopted" and execution.purpose == "training"
    graph.tensor("update", update.of(architecture, execution) if ours else kept.update, 1.0)
    parts = ledger.fullest | {"weights": kept.weights, "optimizer": kept.optimizer}
    return {name: size for name, size in parts.items() if size}, ledger.at


def _staying(execution: Execution) -> float:
    """The share of the weights' gradients that stays on a device: from ZeRO's stage 2 on its own, or none of them where
    the optimizer is the CPU's."""
    if execution.zero_stage and execution.offload != "none":
        return 0.0
    return 1 / execution.devices if execution.zero_stage >= 2 else 1.0
