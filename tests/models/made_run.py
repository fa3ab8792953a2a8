"""A run's directory as DESIGN §5 lays it out, without training: for tests of whatever reads one."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ganeum.config.schema import Model
from ganeum.data.tokenizer import Tokenizer
from ganeum.models.build import build
from ganeum.models.weights import to_file_state


def run_with_checkpoint(directory: Path, config: Model, tokenizer: Tokenizer | None = None, **keys) -> torch.nn.Module:
    """Two checkpoints, that of step 10 the best: its model comes back. `keys`: more of the config's sections."""
    directory.mkdir()
    model = build(config).eval()
    (directory / "config.yaml").write_text(json.dumps({"model": config.model_dump(), **keys}))
    if tokenizer:
        tokenizer.save(directory / "tokenizer")
    for step in ("step-00000010", "step-00000020"):
        checkpoint = directory / "checkpoints" / step
        checkpoint.mkdir(parents=True)
        other = model if step.endswith("10") else build(config)
        save_file(to_file_state(other), checkpoint / "model.safetensors")
    (directory / "checkpoints" / "best").write_text("step-00000010\n")
    (directory / "checkpoints" / "latest").write_text("step-00000020\n")
    return model
