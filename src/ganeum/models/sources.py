"""Weights from wherever a user points: a run, a checkpoint, an exported directory, a file. Nothing is executed."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ganeum.config import load_stored
from ganeum.errors import CheckpointError
from ganeum.models import adapters, formats, qwen3, shape
from ganeum.models.place import locate
from ganeum.record import read_json

PICKLES = (".pt", ".pth", ".bin")
INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class Source:
    """Weights under our names in fp32, and all that is known of the model they belong to.

    Attributes:
        kind: what it is, for messages: "checkpoint", "Hugging Face directory", "nanoGPT checkpoint", "state dict".
        path: the file or directory they were read from.
        model: keys of the config's `model`; some are missing where nothing tells them (see `shape.of_state`).
    """

    kind: str
    path: Path
    state: dict[str, Tensor]
    model: dict[str, Any]


def read(path: str | Path) -> Source:
    """Reads what `path` names.

    | path | read |
    |---|---|
    | a run's name or directory | its best checkpoint, or the latest where none was best |
    | checkpoints/step-…/ | model.safetensors, with the run's config.yaml for what tensors do not tell |
    | config.json and weights | a GPT-2 or Qwen3 of Hugging Face: model.safetensors, sharded or not, pytorch_model.bin |
    | ckpt.pt, or a directory with it | nanoGPT |
    | *.pth, *.safetensors | a plain state dict: our own names (`ganeum export --format pth`) |

    Raises:
        CheckpointError: there is nothing, it is damaged, or it is no GPT that we have.
        RunError: no such run.
    """
    place = locate(path).weights
    if place.is_file():
        return _file(place)
    return _huggingface(place) if (place / "config.json").is_file() else _own(place)


def of_checkpoint(directory: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint as they were written; raises CheckpointError where they are not that."""
    _check_sum(directory)
    return _safetensors(directory / "model.safetensors")


def _own(directory: Path) -> Source:
    tensors = of_checkpoint(directory)
    config_file = directory.resolve().parent.parent / "config.yaml"
    config = load_stored(config_file) if config_file.is_file() else None
    state = adapters.merged(tensors, config.train.lora if config else None, where=str(directory))
    model = shape.of_state(state)
    if config is not None:
        model = shape.of_config(config.model) | model
    return Source("checkpoint", directory, state, model)


def _check_sum(directory: Path) -> None:
    """Compares the weights with the sum that training wrote beside them, where it did."""
    path, meta = directory / "model.safetensors", directory / "meta.json"
    try:
        expected = read_json(meta)["files"][path.name]["sha256"]
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError):
        raise CheckpointError("meta.json of the checkpoint cannot be read", where=str(meta)) from None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    if digest.hexdigest() != expected:
        raise CheckpointError(
            f"the checkpoint {directory.name} is damaged: {path.name} is not what was written (its sha256 differs)",
            where=str(path),
            suggestion="another checkpoint of the run, or a copy of this one",
        )


def _huggingface(directory: Path) -> Source:
    config_file = directory / "config.json"
    config = _json(config_file)
    match kind := config.get("model_type", "model of no named type"):
        case "gpt2":
            model = formats.model_of_huggingface(config, str(config_file))
            tensors = _huggingface_tensors(directory)
            state = formats.from_gpt2_names(tensors, transposed=True, tied=model["tie_embeddings"])
        case "qwen3":
            model = qwen3.model_of_huggingface(config, str(config_file))
            state = qwen3.from_names(_huggingface_tensors(directory), tied=model["tie_embeddings"])
        case _:
            raise CheckpointError(
                f"the model is a {kind}, not a gpt2 or a qwen3",
                where=str(config_file),
                why="only these two architectures are read",
            )
    found = model | shape.of_state(state)
    if kind == "gpt2" and found["n_embd"] % found["n_head"]:
        raise CheckpointError(
            f"{found['n_head']} heads do not divide the width of {found['n_embd']} that the weights have",
            where=str(config_file),
            why="n_head is 12 where it is not said",
            suggestion="the config.json that belongs to these weights",
        )
    return Source("Hugging Face directory", directory, state, found)


def _huggingface_tensors(directory: Path) -> dict[str, Tensor]:
    if (directory / "model.safetensors").is_file():
        return _safetensors(directory / "model.safetensors")
    if (directory / INDEX).is_file():
        shards = _json(directory / INDEX).get("weight_map")
        tensors: dict[str, Tensor] = {}
        for name in sorted({str(name) for name in shards.values()} if isinstance(shards, dict) else ()):
            if Path(name).name != name:
                raise CheckpointError(
                    f"the index names a file outside its directory: {name}", where=str(directory / INDEX)
                )
            tensors |= _safetensors(directory / name)
        return tensors
    if (directory / "pytorch_model.bin").is_file():
        content = _pickle(directory / "pytorch_model.bin")
        return _tensors(content, directory / "pytorch_model.bin")
    raise CheckpointError(
        "there are no weights beside config.json",
        where=str(directory),
        why=f"neither model.safetensors nor {INDEX} nor pytorch_model.bin is there",
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except ValueError as error:
        raise CheckpointError(f"{path.name} cannot be read", where=str(path), why=str(error)) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path.name} cannot be read", where=str(path), why="it holds no JSON object")
    return content


def _file(path: Path) -> Source:
    if path.suffix == ".safetensors":
        return _plain(_safetensors(path), path)
    if path.suffix not in PICKLES:
        raise CheckpointError(
            "this file's name says nothing about what is in it",
            where=str(path),
            why="read are *.safetensors, " + ", ".join(f"*{suffix}" for suffix in PICKLES),
        )
    content = _pickle(path)
    if isinstance(content, Mapping) and isinstance(content.get("model_args"), Mapping):
        args = content["model_args"]
        state = formats.from_gpt2_names(_tensors(content.get("model"), path), transposed=False, tied=True)
        known = {"activation": "gelu", "norm_eps": 1e-5}
        known |= {"n_head": args["n_head"]} if "n_head" in args else {}
        return Source("nanoGPT checkpoint", path, state, known | shape.of_state(state))
    return _plain(_tensors(content, path), path)


def _plain(tensors: dict[str, Tensor], path: Path) -> Source:
    if "token_embedding.weight" not in tensors:
        raise CheckpointError(
            "these are not the weights of our GPT",
            where=str(path),
            why=f"of its {len(tensors)} tensors none is token_embedding.weight",
            suggestion="the directory with its config.json, if this is a Hugging Face model",
        )
    state = {name: tensor.float() for name, tensor in tensors.items()}
    return Source("state dict", path, state, shape.of_state(state))


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path.name} cannot be read", where=str(path), why=str(error)) from None


def _pickle(path: Path) -> Any:
    """torch.load, which with weights_only builds tensors and plain containers and calls nothing else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path.name} is refused: it is damaged, or holds more than tensors and plain values",
            where=str(path),
            why="to read such a file is to run whatever code its writer put into it; it was not run",
            suggestion="a .safetensors file of the same weights",
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path.name} cannot be read",
            where=str(path),
            why=str(error).splitlines()[0] if str(error) else "it ends early",
        ) from None


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointError("this is not a table of names and tensors", where=str(path))
    return dict(content)
