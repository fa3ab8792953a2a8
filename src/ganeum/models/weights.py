"""Weights in and out of a model: as they lie in files (no padded rows, tied ones once), and from others' files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ganeum.config.schema import Model
from ganeum.errors import CheckpointError
from ganeum.models import adapters, shape, sources, theirs
from ganeum.models.adopted import Adopted
from ganeum.models.gpt import GPT
from ganeum.models.network import Network
from ganeum.models.place import locate

PADDED = ("token_embedding.weight", "head.weight")


def to_file_state(model: Network) -> dict[str, Tensor]:
    """What a checkpoint's model.safetensors holds: name → tensor; an adopted model's under transformers' names.

    The tensors are views of the model's own memory, nothing is copied: write or clone them before the next step.
    The padded rows of the vocabulary are cut off; a tied head is left out, it is the token embedding.
    A compiled model may be given as it is.
    """
    network = _uncompiled(model)
    if isinstance(network, Adopted):
        return network.file_state()
    tied = "head.weight" if network.config.tie_embeddings else None
    return {
        name: tensor[: network.vocab_size] if name in PADDED else tensor
        for name, tensor in adapters.state(network.state_dict()).items()
        if name != tied
    }


@torch.no_grad()
def load_file_state(model: Network, state: Mapping[str, Tensor], *, where: str | None = None) -> None:
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
    network = _uncompiled(model)
    if isinstance(network, GPT):
        for name, tensor in adapters.state(network.state_dict()).items():
            if name in PADDED:
                tensor[network.vocab_size :] = 0.0


def load_initial(path: str | Path, model: Model) -> dict[str, Tensor]:
    """What `train.init_from` names → weights in file form for `load_file_state`, fp32, on the CPU.

    Args:
        path: see `sources.read`.
        model: the model they are for; a GPT's with vocab_size resolved. What can be bridged without changing it is (see
            `shape.differences`); fewer positions than the weights have cut off the rest.
    Raises:
        CheckpointError: nothing that can be read, or weights of another shape (each key with both values).
        RunError: no such run.
    """
    if model.source is not None:
        return theirs.read(path)
    source = sources.read(path)
    differing = shape.differences(model, source.model)
    if not differing:
        state, differing = _bridge(source, model)
    if differing:
        raise shape.mismatch(differing, source.kind, str(source.path))
    return state


def restore(path: str | Path) -> Network:
    """The model that lies at `path` (see `sources.read`), in fp32 on the CPU, ready to read: no dropout.

    A checkpoint of a run that adopted a model, and a Hugging Face directory of no family of ours, is an `Adopted`.

    Raises:
        CheckpointError: as `load_initial`; or nothing there tells the number of heads (a plain state dict).
        RunError: no such run.
    """
    place = locate(path).weights
    if theirs.is_theirs(place):
        adopted, state = theirs.opened(place)
        load_file_state(adopted, state, where=str(place))
        return adopted.eval()
    source = sources.read(path)
    unknown = [key for key in shape.KEYS[source.model["style"]] if key not in source.model]
    if unknown:
        raise CheckpointError(
            f"a {source.kind} does not tell the model's {', '.join(unknown)}",
            where=str(source.path),
            suggestion="the run or the exported directory that it came from",
        )
    model = GPT(Model(**source.model))
    load_file_state(model, source.state, where=str(source.path))
    return model.eval()


def restore_gpt(path: str | Path) -> GPT:
    """The same where a GPT of ours is needed.

    Raises:
        CheckpointError: it is another model.
    """
    model = restore(path)
    if not isinstance(model, GPT):
        raise CheckpointError(
            f"this model is a {model.config.model_type}, and no GPT of ours",
            where=str(path),
            suggestion="ganeum generate RUN --input FILE --output FILE writes with any model",
        )
    return model


def _bridge(source: sources.Source, model: Model) -> tuple[dict[str, Tensor], dict[str, tuple[Any, Any]]]:
    """Brings weights of the same size into the form of `model`, changing nothing of what they compute; says which keys
    forbid that."""
    there, differing = dict(source.state), {}
    if model.tie_embeddings and "head.weight" in there:
        if not torch.equal(there["head.weight"], there["token_embedding.weight"]):
            differing["tie_embeddings"] = (True, False)
    elif "head.weight" not in there:
        there["head.weight"] = there["token_embedding.weight"]
    with torch.device("meta"):
        wanted = to_file_state(GPT(model))
    for name in there.keys() - wanted.keys():
        if name.endswith("bias") and there[name].any():
            key = "qkv_bias" if ".qkv." in name and model.bias else "bias"
            differing[key] = (False, True)
    if differing:
        return {}, differing
    result = {}
    for name, expected in wanted.items():
        if name in there:
            result[name] = there[name][: expected.size(0)]  # rows: padding of the vocabulary, positions too many
        elif name.endswith("bias"):
            result[name] = torch.zeros(expected.shape)
    return result, {}


def _uncompiled(model: Network) -> Network:
    original: Network = getattr(model, "_orig_mod", model)
    return original
