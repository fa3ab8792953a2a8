"""`ganeum export`: a run's model for other programs."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.models.network import Network
    from ganeum.models.place import Place


class Format(str, Enum):
    """What to write."""

    hf = "hf"
    pth = "pth"
    nanogpt = "nanogpt"
    peft = "peft"


def command(
    run: Annotated[str, typer.Argument(help="a run's name or directory, or a checkpoint's directory")],
    out: Annotated[
        Path | None,
        typer.Argument(help="where to write; without it NAME-hf, NAME.pth, NAME-nanogpt or NAME-peft, here"),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="hf: a directory for transformers (safetensors, tokenizer); pth: a plain state dict in one file; "
            "nanogpt: a directory with ckpt.pt for nanoGPT's sample.py; peft: a run's adapters alone; "
            "without it pth where OUT ends in .pth, else hf"
        ),
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="best, latest, a step, or a checkpoint's directory")] = "best",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace an earlier export")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="run code that came with the model")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print what was written as JSON")] = False,
) -> None:
    """Write a run's model for other programs: a Hugging Face directory, a .pth, or nanoGPT's ckpt.pt.

    transformers loads the directory with AutoModelForCausalLM (AutoModelForSeq2SeqLM where such a model was adopted)
    and AutoTokenizer and computes the same logits.
    """
    import json

    from ganeum.config.trust import trusting
    from ganeum.models import export, weights
    from ganeum.models.place import locate

    format = format or (Format.pth if out and out.suffix == ".pth" else Format.hf)
    place = locate(run, checkpoint)
    with trusting(trust_remote_code):
        model = weights.restore(place.weights)
    match format:
        case Format.hf:
            written = _huggingface(model, place, out or Path(f"{place.name}-hf"), overwrite)
        case Format.pth:
            written = export.export_pth(model, out or Path(f"{place.name}.pth"), overwrite=overwrite)
        case Format.nanogpt:
            target = out or Path(f"{place.name}-nanogpt")
            written = export.export_nanogpt(model, target, step=place.step or 0, overwrite=overwrite)
        case Format.peft:
            written = export.export_peft(place.weights, out or Path(f"{place.name}-peft"), overwrite=overwrite)
    if as_json:
        print(json.dumps({"from": str(place.weights), "format": format.value, "written": str(written)}))
    else:
        print(f"{place.weights} → {written}")


def _huggingface(model: Network, place: Place, target: Path, overwrite: bool) -> Path:
    from functools import partial
    from shutil import copytree

    from ganeum.config import load_stored
    from ganeum.data.for_transformers import save_for_transformers
    from ganeum.data.tokenizer import load_tokenizer
    from ganeum.models import export
    from ganeum.models.adopted import Adopted
    from ganeum.models.gpt import GPT

    directory = place.tokenizer_dir
    if isinstance(model, Adopted):
        copied = partial(copytree, directory, dirs_exist_ok=True) if directory else None
        trained = load_stored(place.run.config_path) if place.run else None
        return export.export_adopted(model, target, trained=trained, write_tokenizer=copied, overwrite=overwrite)
    assert isinstance(model, GPT), "there are these two"
    tokenizer = load_tokenizer(directory) if directory else None
    return export.export_huggingface(
        model,
        target,
        end_of_text=tokenizer.end_of_text if tokenizer else None,
        write_tokenizer=partial(save_for_transformers, tokenizer, block_size=model.config.block_size)
        if tokenizer
        else None,
        overwrite=overwrite,
    )
