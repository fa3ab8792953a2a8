"""Weights as they lie in files: no padded rows, tied weights once, our own names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ganeum.errors import CheckpointError
from ganeum.models.gpt import GPT

PADDED = ("token_embedding.weight", "head.weight")


def to_file_state(model: GPT) -> dict[str, Tensor]:
    """What a checkpoint's model.safetensors holds: name → tensor.

    The tensors are views of the model's own memory, nothing is copied: write or clone them before the next step.
    The padded rows of the vocabulary are cut off; a tied head is left out, it is the token embedding.
    A compiled model may be given as it is.
    """
    tied = "head.weight" if model.config.tie_embeddings else None
    return {
        name: tensor[: model.vocab_size] if name in PADDED else tensor
        for name, tensor in _uncompiled(model).state_dict().items()
        if name != tied
    }


@torch.no_grad()
def load_file_state(model: GPT, state: Mapping[str, Tensor], *, where: str | None = None) -> None:
    """Copies a file's weights into `model`, wherever it lies, in its own precision; padded rows become zero.

    Nothing is changed unless everything fits.

    Args:
        where: the file, for the error.
    Raises:
        CheckpointError: a tensor is missing, unknown or of another shape; all of them are named.
    """
    own = to_file_state(model)
    wrong = [f"{name}: missing" for name in own if name not in state]
    wrong += [f"{name}: not of this model" for name in state if name not in own]
    wrong += [
        f"{name}: {tuple(own[name].shape)} here, {tuple(state[name].shape)} in the file"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    if wrong:
        more = [f"… and {len(wrong) - 8} more"] if len(wrong) > 8 else []
        raise CheckpointError(
            f"the weights do not fit the model: {len(wrong)} of {len(own)} tensors",
            where=where,
            why="\n".join(wrong[:8] + more),
        )
    for name, tensor in own.items():
        tensor.copy_(state[name])
    for name, tensor in _uncompiled(model).state_dict().items():
        if name in PADDED:
            tensor[model.vocab_size :] = 0.0


def _uncompiled(model: GPT) -> GPT:
    original: GPT = getattr(model, "_orig_mod", model)
    return original
