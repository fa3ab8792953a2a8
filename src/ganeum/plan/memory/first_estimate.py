"""A first estimate of a run's memory in closed form, good enough to choose a micro-batch and a lever by."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ganeum.config import sizes
from ganeum.config.schema import Config, Model, Train
from ganeum.hardware.device import Device, Kind
from ganeum.plan import parameters
from ganeum.plan.parameters import Parameters

# Numbers of the model and the step, which cannot be imported without torch; tests hold them together.
VOCAB_MULTIPLE = 64  # models/gpt.py
CPU_KEEPS_WEIGHTS, CPU_BLOCK = 1024, 64  # models/cpu_attention.py: up to this context, in blocks of so many queries
PIECE, STACK = 1 << 20, 1 << 22  # step/optimizers.py
UPDATE = 9  # numbers in fp32 for each weight of such a piece: AdamW in 8 bits on weights in bf16, which needs the most
FRAMEWORK = {"cpu": 120.0 * 2**20, "cuda": 0.0, "mps": 0.0}  # docs/plan.md: steps of four models on a CPU
PEFT, TORCHAO = 64.0 * 2**20, 16.0 * 2**20  # their code and what they import, beside a torch at work
LOSS_CHUNK = {"cpu": 512, "cuda": 2048, "mps": 2048}  # what `train.loss_chunk: auto` becomes (step/optimizer_step.py)


@dataclass(frozen=True)
class Memory:
    """Bytes at the fullest moment, part by part.

    Attributes:
        weights: all of them, and autocast's copies of the matrices.
        gradients: of those that are trained.
        optimizer: its state, as far as it lies on the device.
        activations: what the backward pass needs of a micro-batch, and what is computed again for it.
        loss: a chunk of logits on its way to a gradient, and the output layer's own gradient.
        update: what the optimizer computes on the way, when activations and loss are gone.
        framework: what torch, its kernels and threads take beside all tensors of ours, on a CPU.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    loss: float
    update: float
    framework: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    def fits(self, device: Device) -> bool:
        return self.total <= 0.85 * device.usable_gib * 2**30

    @property
    def parts(self) -> dict[str, float]:
        """Name → bytes, of what is there at the fullest moment: activations and loss, or the update."""
        absent = ("update",) if self.activations + self.loss >= self.update else ("activations", "loss")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in absent}


def training(config: Config, *, kind: Kind, micro_batch_size: int, precision: str, loss_chunk: int) -> Memory:
    """A training step's memory on a device of this ``kind``, at the end of the last micro-batch's forward pass.

    Weights and gradients take 4 bytes each, or 2 with ``train.weights: bf16``; under autocast another 2 for each matrix
    weight. The optimizer's state: :func:`state_bytes`. Activations: those of the layers (:func:`layer_bytes`), and
    around them the hidden state, its gradient and two more of that width. The loss holds a chunk's logits as product,
    log-probabilities and gradient, 16 bytes an entry in all, and the output layer's gradient until backward adds it.

    This counts tensors; allocators, kernels' own buffers and the framework come on top.
    """
    model, train = config.model, config.train
    counted, half = _counted(model, train), precision in ("bf16", "fp16")
    wide = 4.0 if train.weights == "fp32" else 2.0
    tokens = micro_batch_size * model.block_size
    layers = model.n_layer * kept_bytes(model, train, kind=kind, half=half)
    layers += recomputed_bytes(model, train, kind=kind, half=half)  # of one layer at a time
    return Memory(
        weights=_weight_bytes(counted, train, half),
        gradients=wide * counted.trainable,
        optimizer=0.0 if train.optimizer_offload and kind == "cuda" else state_bytes(model, train, counted),
        activations=tokens * (layers + 16.0 * model.n_embd),
        loss=16.0 * min(loss_chunk, tokens) * _padded(model) + wide * _padded(model) * model.n_embd,
        update=update_bytes(model, train, kind),
        framework=framework_bytes(train, kind),
    )


def evaluation(config: Config, *, kind: Kind, eval_batch_size: int, precision: str, loss_chunk: int) -> Memory:
    """An evaluation's memory between two steps: the optimizer's state is there, gradients are not, and a layer's
    numbers are gone when the next one's come. Logits never exist for more than a chunk, 12 bytes an entry."""
    model, train, half = config.model, config.train, precision in ("bf16", "fp16")
    counted, tokens = _counted(model, train), eval_batch_size * config.model.block_size
    return Memory(
        weights=_weight_bytes(counted, train, half),
        gradients=0.0,
        optimizer=0.0 if train.optimizer_offload and kind == "cuda" else state_bytes(model, train, counted),
        activations=tokens * (layer_bytes(model, kind=kind, half=half, dropout=False) + 12.0 * model.n_embd),
        loss=12.0 * min(loss_chunk, tokens) * _padded(model),
        update=0.0,
        framework=framework_bytes(train, kind),
    )


def state_bytes(model: Model, train: Train, counted: Parameters) -> float:
    """The optimizer's state, for the weights that are trained.

    AdamW keeps two moments (Loshchilov and Hutter 2019, arXiv 1711.05101), in 8 bits each with a scale for every 256
    (Dettmers et al. 2022, arXiv 2110.02861); Muon one for the blocks' matrices, and AdamW's two for the rest; SGD one
    where it has momentum; Adafactor a sum for each row and column (Shazeer and Stern 2018, arXiv 1804.04235), which
    is next to nothing.
    """
    every = counted.trainable
    if train.optimizer == "adamw":
        return 8.0 * every
    if train.optimizer == "adamw8bit":
        return (2.0 + 8 / 256) * every
    if train.optimizer == "muon":
        matrices = min(
            every, model.n_layer * sum(rows * columns for rows, columns in parameters.block_matrices(model).values())
        )
        return 4.0 * matrices + 8.0 * (every - matrices)
    if train.optimizer == "sgd":
        return 4.0 * every if train.momentum else 0.0
    return 0.0


def update_bytes(model: Model, train: Train, kind: Kind) -> float:
    """What an update needs beside weights, gradients and state: nothing with torch's fused AdamW; else at most nine
    numbers in fp32 for each weight of the piece that is under way (step/optimizers.py): a part of one weight, Muon's
    stack of matrices, Adafactor's whole weight."""
    matrices = [rows * columns for rows, columns in parameters.block_matrices(model).values()]
    embedding = _padded(model) * model.n_embd
    largest = min(PIECE, max(*matrices, embedding))
    if train.optimizer == "adamw" and train.weights == "fp32" and not (train.optimizer_offload and kind == "cuda"):
        return 0.0
    if train.lora.rank is not None:
        return 0.0
    if train.optimizer == "muon":
        largest = max(largest if train.weights == "bf16" else 0, *matrices, min(STACK, model.n_layer * max(matrices)))
    elif train.optimizer == "adafactor":
        largest = max(*matrices, embedding)
    return UPDATE * 4.0 * largest


def framework_bytes(train: Train, kind: Kind) -> float:
    """What the libraries take that this run loads; on a GPU none of it lies on the device."""
    if kind != "cpu":
        return FRAMEWORK[kind]
    return FRAMEWORK[kind] + PEFT * (train.lora.rank is not None) + TORCHAO * (train.optimizer == "adamw8bit")


def kept_bytes(model: Model, train: Train, *, kind: Kind, half: bool) -> float:
    """Bytes that one layer keeps of one token for the backward pass, under ``train.activation_checkpointing``."""
    whole = layer_bytes(model, kind=kind, half=half)
    if train.activation_checkpointing == "whole":
        return 4.0 * model.n_embd
    return whole if train.activation_checkpointing in ("auto", "none") else whole - _mlp_half_bytes(model, half=half)


def recomputed_bytes(model: Model, train: Train, *, kind: Kind, half: bool) -> float:
    """Bytes that are there again of one token while one layer's backward pass is under way."""
    if train.activation_checkpointing == "whole":
        return layer_bytes(model, kind=kind, half=half)
    return _mlp_half_bytes(model, half=half) if train.activation_checkpointing == "selective" else 0.0


def layer_bytes(model: Model, *, kind: Kind, half: bool, dropout: bool = True) -> float:
    """Bytes that one layer keeps of one token for the backward pass; ``half``: under autocast to bf16 or fp16.

    Each norm keeps its input in fp32, a product and an activation function theirs in the format of the products.
    In numbers of n_embd, for ``gpt2``: what goes into each norm (2), into qkv (1), q k v (3), into the attention's
    output layer (1), into the MLP (1), into GELU (4) and out of it (4): 64 n_embd bytes in fp32, 36 under autocast.
    ``modern`` keeps queries and keys as they are turned besides as they were, and under autocast in fp32 between; and
    inside the MLP four numbers for two (into SiLU, out of it, what that is multiplied with, the product).

    Fused attention keeps next to nothing of its T × T weights, but a CPU's own attention (models/cpu_attention.py)
    keeps the lower half of them, block by block, and with dropout it falls back on plain products that keep them three
    times in fp32.
    A GPU's dropout masks are bytes, a CPU's are as wide as what they mask.
    """
    C, T, H, wide = model.n_embd, model.block_size, model.n_head, 2 if half else 4
    queries, keys, values = sizes.qkv_widths(model)
    kept = 8 * C + 8 + wide * (C + queries + keys + values + queries) + _mlp_half_bytes(model, half=half)
    modern, own_kernel = model.style == "modern", kind == "cpu" and T <= CPU_KEEPS_WEIGHTS
    if model.dropout and dropout:
        own_kernel = False
        kept += 2 * C if kind != "cpu" else (10 if half else 8) * C + 12 * H * T
    if own_kernel:
        kept += wide * H * min(T, (T + CPU_BLOCK) / 2) + modern * wide * (queries + keys + values)
    elif modern:
        kept += (wide + 4 * (half or kind == "cpu")) * (queries + keys)
    return kept


def _mlp_half_bytes(model: Model, *, half: bool) -> float:
    """The part of :func:`layer_bytes` that ``selective`` checkpointing computes again: the MLP, from its norm on.
    Under autocast gate and up keep a copy each of what goes into them."""
    inside, wide = sizes.intermediate_size(model), 2 if half else 4
    if model.style == "modern":
        return wide * ((1 + half) * model.n_embd + 4 * inside) + 8
    return wide * (model.n_embd + 2 * inside) + 8


def _counted(model: Model, train: Train) -> Parameters:
    assert isinstance(model.vocab_size, int), "vocab_size is resolved before memory is estimated"
    return parameters.count(model, model.vocab_size, train.lora)


def _weight_bytes(counted: Parameters, train: Train, half: bool) -> float:
    return 2.0 * counted.total if train.weights == "bf16" else 4.0 * counted.total + 2.0 * half * counted.matmul


def _padded(model: Model) -> int:
    assert isinstance(model.vocab_size, int)
    return -(-model.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
