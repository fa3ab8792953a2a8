"""A first estimate of a run's memory in closed form, good enough to choose a micro-batch by."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.config.schema import Model
from ganeum.plan.parameters import Parameters

VOCAB_MULTIPLE = 64  # the model pads its vocabulary to it (models/gpt.py); a test holds the two together
LOSS_CHUNK = {"cpu": 512, "cuda": 2048, "mps": 2048}  # what `train.loss_chunk: auto` becomes (step/optimizer_step.py)


@dataclass(frozen=True)
class Memory:
    """Bytes at the fullest moment of a step, at the end of the last micro-batch's forward pass.

    Attributes:
        states: weights, gradients and AdamW's two moments in fp32, and autocast's copies of the matrices.
        loss: one chunk of logits on its way to a gradient, and the output layer's own gradient.
        activations: what the backward pass needs of a micro-batch.
    """

    states: float
    loss: float
    activations: float

    @property
    def total(self) -> float:
        return self.states + self.loss + self.activations


def estimate(
    model: Model,
    vocab_size: int,
    parameters: Parameters,
    *,
    micro_batch_size: int,
    precision: str,
    loss_chunk: int,
) -> Memory:
    """The memory of a training step with AdamW and fused attention.

    States: 4 + 4 + 8 bytes a parameter (weight, gradient, two moments), and 2 more for each matrix weight under
    autocast. Activations, per token and layer, in numbers of n_embd: what goes into each norm (2), and what each
    product and GELU keep of their input: into qkv (1), q k v (3), into the attention's output layer (1), into the MLP
    (1), into GELU (4) and out of it (4). In fp32 that is 16 · 4 bytes. Under autocast the two norm inputs stay fp32
    and the other 14 are half as wide: 2 · 4 + 14 · 2. Dropout keeps two masks of a byte. Around the blocks there are a
    few of the same width once. The loss holds a chunk's logits as product, log-probabilities and gradient, 16 bytes
    an entry in all, and the output layer's gradient until backward adds it.

    This counts tensors; allocators, kernels' own buffers and the framework come on top.
    """
    C, half = model.n_embd, precision in ("bf16", "fp16")
    padded = -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    tokens = micro_batch_size * model.block_size
    per_layer = (36 if half else 64) + (2 if model.dropout else 0)
    return Memory(
        states=16.0 * parameters.total + (2.0 * parameters.matmul if half else 0.0),
        loss=16.0 * min(loss_chunk, tokens) * padded + 4.0 * padded * C,
        activations=float(tokens * C * (model.n_layer * per_layer + 16)),
    )
