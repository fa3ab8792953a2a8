"""Weights of adopted models: a run's checkpoint with the config beside it, or a directory of Hugging Face's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from ganeum.config import load_stored
from ganeum.models import adapters, sources
from ganeum.models.adopted import Adopted
from ganeum.models.place import locate
from ganeum.models.pretrained import adopt, read_config
from ganeum.record import read_json

OURS = ("gpt2", "qwen3")  # families that are read as a GPT of ours
SHAPE = "model"  # in a run's directory: config.json and generation_config.json of the model that it adopted


def is_theirs(place: Path) -> bool:
    """Whether a checkpoint's or an exported directory holds a model that is no GPT of ours."""
    if (place / "config.json").is_file():
        content = read_json(place / "config.json")
        return isinstance(content, dict) and content.get("model_type") not in (*OURS, None)
    return (_run_of(place) / SHAPE / "config.json").is_file()


def opened(place: Path, *, dropout: float | None = None) -> tuple[Adopted, dict[str, Tensor]]:
    """The model, and the weights that it is to have under the names of its files; adapters are added up.

    Raises:
        CheckpointError: they cannot be read.
    """
    if (place / "config.json").is_file():
        network = adopt(place, dropout=dropout)
        return network, network.file_state()
    run = _run_of(place)
    network = adopt(run / SHAPE, fresh=True, dropout=dropout, empty=True)
    tensors, config = sources.of_checkpoint(place), load_stored(run / "config.yaml")
    across = network.matrices_across()
    return network, adapters.merged(tensors, config.train.lora, where=str(place), across=across)


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights that a run, a checkpoint or a directory holds, under the names of files."""
    return opened(locate(path).weights)[1]


def shape_of(checkpoint: Path) -> Any:
    """transformers' config of the model that a checkpoint's run has adopted."""
    return read_config(_run_of(checkpoint) / SHAPE)


def _run_of(checkpoint: Path) -> Path:
    return checkpoint.resolve().parent.parent
