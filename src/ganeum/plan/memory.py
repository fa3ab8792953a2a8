"""A first estimate of a run's memory in closed form, good enough to choose a micro-batch by."""

from __future__ import annotations

from dataclasses import dataclass

from ganeum.config.schema import Model
from ganeum.hardware.device import Kind
from ganeum.plan.parameters import Parameters

# Numbers of the model and the step, which cannot be imported without torch; tests hold them together.
VOCAB_MULTIPLE = 64  # models/gpt.py
CPU_KEEPS_WEIGHTS, CPU_BLOCK = 1024, 64  # models/cpu_attention.py: up to this context, in blocks of so many queries
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
    kind: Kind,
    micro_batch_size: int,
    precision: str,
    loss_chunk: int,
) -> Memory:
    """The memory of a training step with AdamW on a device of this ``kind``.

    States: 4 + 4 + 8 bytes a parameter (weight, gradient, two moments), and 2 more for each matrix weight under
    autocast. Activations: those of the layers (:func:`layer_bytes`), and around them the hidden state, its gradient
    and two more of that width. The loss holds a chunk's logits as product, log-probabilities and gradient, 16 bytes
    an entry in all, and the output layer's gradient until backward adds it.

    This counts tensors; allocators, kernels' own buffers and the framework come on top.
    """
    C, half = model.n_embd, precision in ("bf16", "fp16")
    padded = -(-vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    tokens = micro_batch_size * model.block_size
    return Memory(
        states=16.0 * parameters.total + (2.0 * parameters.matmul if half else 0.0),
        loss=16.0 * min(loss_chunk, tokens) * padded + 4.0 * padded * C,
        activations=float(tokens * (model.n_layer * layer_bytes(model, kind=kind, half=half) + 16 * C)),
    )


def layer_bytes(model: Model, *, kind: Kind, half: bool) -> float:
    """Bytes that one layer keeps of one token for the backward pass; ``half``: under autocast to bf16 or fp16.

    In numbers of n_embd: what goes into each norm (2), and what each product and GELU keep of their input: into qkv
    (1), q k v (3), into the attention's output layer (1), into the MLP (1), into GELU (4) and out of it (4). In fp32
    that is 16 · 4 bytes; under autocast the norms' inputs stay fp32 and the other 14 are half as wide. Each norm keeps
    a mean and a deviation. Fused attention keeps next to nothing of its T × T weights, but a CPU's own attention keeps
    the lower half of them, block by block, and with dropout it falls back on plain products that keep them three times
    in fp32. A GPU's dropout masks are bytes, a CPU's are as wide as what they mask.
    """
    C, T, H = model.n_embd, model.block_size, model.n_head
    kept = (36 if half else 64) * C + 16
    if model.dropout:
        return kept + 2 * C if kind != "cpu" else kept + (10 if half else 8) * C + 12 * H * T
    if kind == "cpu" and T <= CPU_KEEPS_WEIGHTS:
        return kept + (2 if half else 4) * H * min(T, (T + CPU_BLOCK) / 2)
    return kept
