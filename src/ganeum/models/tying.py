"""Whether one of Hugging Face's models has an output layer of its own.

transformers 5 ties those of T5 and its relatives whatever config.json says, and unties what it loads where the weights
differ, as those of T5 1.1, FLAN-T5 and mT5 do; what it writes says that they are tied all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ganeum.hardware import hub
from ganeum.record import read_json, write_json

KEY = "tie_word_embeddings"


def is_tied(model: Any) -> bool:
    """Whether the output layer's weights are the token embedding's."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and embedding is not None and head.weight is embedding.weight


def told_apart(source: str | Path) -> bool:
    """Whether the config.json of a source says that they are two; its weights then hold both."""
    from transformers import PreTrainedConfig

    found, _ = PreTrainedConfig.get_config_dict(str(source), **hub.looking_for(source))
    return found.get(KEY) is False


def untie(model: Any) -> None:
    """Gives the output layer weights of its own, which are whatever lies in memory."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(torch.empty_like(head.weight))
    for name, module in model.named_modules():
        if module is head:
            model.all_tied_weights_keys.pop(f"{name}.weight", None)


def note(model: Any, directory: Path) -> None:
    """Has the config.json that was written there say what the model is."""
    file = directory / "config.json"
    told = read_json(file)
    if told.get(KEY) and model.get_output_embeddings() is not None and not is_tied(model):
        write_json(file, told | {KEY: False})
