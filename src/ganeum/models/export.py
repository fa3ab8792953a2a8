"""Weights out: a Hugging Face directory, a plain .pth, nanoGPT's ckpt.pt. Whole, or not there at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ganeum.config import Config, load_stored
from ganeum.errors import CheckpointError, RunError
from ganeum.models import adapters, formats, qwen3, theirs, tying
from ganeum.models.adopted import Adopted
from ganeum.models.gpt import GPT
from ganeum.models.network import Network
from ganeum.models.quiet import quiet
from ganeum.models.weights import to_file_state
from ganeum.record import flush_directory, read_json, write_json

# A directory is replaced only if one of these says that an export made it.
MARKS = ("config.json", "ckpt.pt", "adapter_config.json")


def export_huggingface(
    model: GPT,
    out: Path,
    *,
    end_of_text: int | None = None,
    write_tokenizer: Callable[[Path], None] | None = None,
    overwrite: bool = False,
) -> Path:
    """A directory that transformers' AutoModelForCausalLM loads, and `ganeum sample` and `init_from`.

    config.json, generation_config.json, model.safetensors: a GPT-2 or, in the modern style, a Qwen3. Biases that the
    model does not have are written as zeros, which GPT-2's architecture always has: the logits are the same.

    Args:
        out: the directory to make.
        end_of_text: the token that ends a text.
        write_tokenizer: called with the directory while it grows, to add the tokenizer's files.
        overwrite: replace an earlier export.
    Raises:
        RunError: `out` is in the way.
    """
    with _growing(out, overwrite, directory=True) as growing:
        if write_tokenizer:
            write_tokenizer(growing)
        state = {name: tensor.cpu() for name, tensor in to_file_state(model).items()}
        if model.config.style == "modern":
            named = qwen3.to_names(state, model.config)
            config = qwen3.huggingface_config(model.config, end_of_text)
        else:
            named = formats.to_gpt2_names(formats.with_all_biases(state), transposed=True)
            config = formats.huggingface_config(model.config, end_of_text)
        named = {name: tensor.contiguous() for name, tensor in named.items()}
        save_file(named, growing / "model.safetensors", metadata={"format": "pt"})
        _write_json(growing / "config.json", config)
        shutil.copymode(growing / "config.json", growing / "model.safetensors")  # made for its owner alone
        _write_json(
            growing / "generation_config.json",
            {"bos_token_id": end_of_text, "eos_token_id": end_of_text, "pad_token_id": end_of_text},
        )
    return out


def export_adopted(
    model: Adopted,
    out: Path,
    *,
    trained: Config | None = None,
    write_tokenizer: Callable[[Path], None] | None = None,
    overwrite: bool = False,
) -> Path:
    """An adopted model as transformers writes it, for its `from_pretrained`; raises RunError as above.

    Args:
        trained: the run's config. How its texts are asked for goes where transformers' own generate and pipelines look:
            ``data.prefix`` to ``prefix`` in config.json, ``data.max_length`` to ``model_max_length`` in
            tokenizer_config.json, ``sample``'s lengths and beams to generation_config.json.
    """
    with _growing(out, overwrite, directory=True) as growing:
        if write_tokenizer:
            write_tokenizer(growing)
        if trained:
            _say_how_texts_are_asked_for(model.model, growing / "tokenizer_config.json", trained)
        with quiet():
            model.model.save_pretrained(growing)
            tying.note(model.model, growing)
    return out


def _say_how_texts_are_asked_for(model: Any, of_tokenizer: Path, trained: Config) -> None:
    if trained.data.prefix:
        model.config.prefix = trained.data.prefix
    sample, said = trained.sample, model.generation_config
    said.update(max_new_tokens=sample.max_new_tokens, max_length=None, num_beams=sample.num_beams, do_sample=False)
    said.update(temperature=None, top_k=None, top_p=None)  # of draws
    if of_tokenizer.is_file():
        write_json(of_tokenizer, read_json(of_tokenizer) | {"model_max_length": trained.data.max_length})


def export_pth(model: Network, out: Path, *, overwrite: bool = False) -> Path:
    """A file with name → tensor and nothing else, for `torch.load(weights_only=True)`; raises RunError as above."""
    with _growing(out, overwrite, directory=False) as growing:
        torch.save({name: tensor.cpu().clone() for name, tensor in to_file_state(model).items()}, growing)
    return out


def export_nanogpt(model: Network, out: Path, *, step: int = 0, overwrite: bool = False) -> Path:
    """A directory with the ckpt.pt that nanoGPT's sample.py reads (`--out_dir=`).

    Raises:
        CheckpointError: nanoGPT's model cannot compute this one.
        RunError: `out` is in the way.
    """
    if not isinstance(model, GPT):
        raise CheckpointError(
            f"nanoGPT has no model like this {model.config.model_type}",
            why="its sample.py computes a GPT-2",
            suggestion="ganeum export --format hf",
        )
    state = {name: tensor.cpu() for name, tensor in to_file_state(model).items()}
    content = formats.nanogpt_checkpoint(state, model.config, step)
    with _growing(out, overwrite, directory=True) as growing:
        torch.save(content, growing / "ckpt.pt")
    return out


def export_peft(checkpoint: Path, out: Path, *, overwrite: bool = False) -> Path:
    """A directory that peft puts on an exported base model: adapter_config.json and adapter_model.safetensors.

    In the modern style, whose queries, keys and values are one matrix here and three there, each of the three gets the
    same A and its rows of B.

    Args:
        checkpoint: a checkpoint's directory, in its run's.
    Raises:
        RunError: its run has trained no adapters, or `out` is in the way.
    """
    config_file = checkpoint.resolve().parent.parent / "config.yaml"
    config = load_stored(config_file) if config_file.is_file() else None
    if config is None or config.train.lora.rank is None:
        raise RunError(
            "there are no adapters to export",
            where=str(checkpoint),
            why="the run trained every weight (train.lora.rank: null)" if config else "it lies in no run's directory",
            suggestion="ganeum export --format hf",
        )
    state, found, modern = load_file(checkpoint / "model.safetensors"), {}, config.model.style == "modern"
    adopted = theirs.shape_of(checkpoint) if config.model.source is not None else None
    for layer in (name.removesuffix(adapters.A) for name in state if name.endswith(adapters.A)):
        named = {f"{layer}.weight": state[layer + adapters.B]}
        if adopted is None:
            named = qwen3.to_names(named, config.model) if modern else formats.to_gpt2_names(named, transposed=False)
        for name, part in named.items():
            module = f"base_model.model.{name.removesuffix('.weight')}"
            found[module + adapters.A] = state[layer + adapters.A].clone()
            found[module + adapters.B] = part.contiguous()
    layers = {name.removeprefix("base_model.model.").split(".lora_")[0] for name in found}
    with _growing(out, overwrite, directory=True) as growing:
        save_file(found, growing / "adapter_model.safetensors", metadata={"format": "pt"})
        _write_json(
            growing / "adapter_config.json",
            {
                "peft_type": "LORA",
                "task_type": "SEQ_2_SEQ_LM" if adopted and adopted.is_encoder_decoder else "CAUSAL_LM",
                "base_model_name_or_path": config.model.source or config.train.init_from,
                "r": config.train.lora.rank,
                "lora_alpha": config.train.lora.alpha,
                "lora_dropout": config.train.lora.dropout,
                "target_modules": sorted(layers if adopted else {name.split(".", 3)[-1] for name in layers}),
                # transformers' GPT-2 stores its matrices as (in, out)
                "fan_in_fan_out": adopted.model_type == "gpt2" if adopted else not modern,
                "bias": "none",
                "inference_mode": True,
            },
        )
        shutil.copymode(growing / "adapter_config.json", growing / "adapter_model.safetensors")
    return out


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


@contextmanager
def _growing(out: Path, overwrite: bool, *, directory: bool) -> Iterator[Path]:
    """A temporary place beside `out` that gets its name when it is complete and on the disk."""
    if out.exists() and not overwrite:
        raise RunError(
            f"{out} is there already", suggestion="another place, or --overwrite to replace an earlier export"
        )
    if out.exists() and (
        out.is_dir() != directory or (directory and not any((out / mark).is_file() for mark in MARKS))
    ):
        raise RunError(
            f"{out} is in the way, and it is not an earlier export",
            why="--overwrite replaces nothing that an export did not make",
            suggestion="another place",
        )
    room = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
        growing = room / out.name
        if directory:
            growing.mkdir()
        yield growing
        for path in growing.iterdir() if directory else [growing]:
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        if directory and out.exists():
            out.rename(room / "old")
        growing.replace(out)
        flush_directory(out.parent)
    except (OSError, SafetensorError, RuntimeError) as error:  # each library has its own way to say: the disk is full
        raise RunError(
            "the export cannot be written", where=str(out), why=str(error), suggestion="another place, or free space"
        ) from error
    finally:
        if room:
            shutil.rmtree(room, ignore_errors=True)
