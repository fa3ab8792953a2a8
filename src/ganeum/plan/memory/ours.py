"""What our own GPT (models/gpt.py) keeps of a micro-batch for the backward pass, and needs on the way."""

from __future__ import annotations

from ganeum.plan.architecture.parts import Architecture
from ganeum.plan.execution import Execution
from ganeum.plan.memory.parts import Activations


def activations(architecture: Architecture, execution: Execution) -> Activations:
    """Bytes of one micro-batch."""
    (block,) = architecture.blocks
    (attention,) = block.attentions
    tokens, wide = execution.micro_batch_size * execution.length, 2 if execution.half else 4
    C = architecture.width
    of_attention = wide * (C + 2 * attention.queries + 2 * attention.keys)
    of_mlp = wide * (C + 2 * block.inside * (1 + block.gated))
    layers = block.count if execution.purpose == "training" else 1
    rows = min(execution.loss_chunk or tokens, tokens)
    return Activations(
        kept={
            "attention": tokens * layers * of_attention,
            "mlp": tokens * layers * of_mlp,
            "norms": tokens * layers * 8.0 * C,
            "embedding": 16.0 * tokens * C,
        },
        loss=16.0 * rows * architecture.rows,
    )
