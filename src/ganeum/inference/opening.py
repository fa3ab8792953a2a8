"""From what the user names to what writes: a run, a checkpoint, an exported directory, a model of Hugging Face's."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from ganeum.config import load_stored
from ganeum.config.schema import Sample
from ganeum.config.trust import trusted
from ganeum.data.examples.tokenizer import open_tokenizer
from ganeum.errors import CheckpointError, ConfigError, GaneumError, RunError
from ganeum.hardware import hub
from ganeum.hardware.device import Device
from ganeum.inference.decoding import Decoding
from ganeum.inference.ours import Ours
from ganeum.inference.writer import Precision, Prompts, Writer
from ganeum.models.adopted import Adopted
from ganeum.models.place import Place, locate
from ganeum.models.pretrained import pretrained
from ganeum.models.theirs import is_theirs
from ganeum.models.weights import restore
from ganeum.plan.architecture import Architecture
from ganeum.plan.architecture.hugging_face import from_config_json
from ganeum.record import read_json

ON_THE_HUB = re.compile(r"([\w.-]+/)?[\w.-]+")  # the oldest have no owner: t5-small
OUR_TOKENIZER = "ganeum.json"
END = 2**20  # bytes of a file's beginning and of its end that its digest is made of, beside its size


def precision_of(wanted: str, device: Device) -> Precision:
    """What ``auto`` becomes: two bytes on a GPU with bf16, where reading the weights is what takes time; else fp32."""
    if wanted == "auto":
        return "bf16" if device.kind == "cuda" and device.fast_precision == "bf16" else "fp32"
    return wanted  # type: ignore[return-value]


def defaults(name: str, checkpoint: str = "best") -> Sample:
    """What a run's config says of its texts, or an exported directory's generation_config.json; of anything else the
    defaults of the keys."""
    place = _place(name, checkpoint)
    if not isinstance(place, Place):
        return Sample()
    if place.run:
        return load_stored(place.run.config_path).sample
    said: Any = None
    with suppress(OSError, ValueError):
        said = read_json(place.weights / "generation_config.json")
    if not isinstance(said, dict):
        return Sample()
    lengths = {key: said[key] for key in ("max_new_tokens", "num_beams") if isinstance(said.get(key), int)}
    return Sample(**lengths)


def open_writer(
    name: str,
    device: Device,
    decoding: Decoding,
    *,
    checkpoint: str = "best",
    precision: Precision = "fp32",
    prefix: str | None = None,
    longest: int | None = None,
) -> Writer:
    """The model at ``name``, on its device, with its tokenizer.

    Args:
        name: a run's name or directory, a checkpoint's, an exported one, Hugging Face's, or OWNER/NAME on its hub.
        checkpoint: of a run: best, latest, a step.
        prefix, longest: of a prompt, tokens; None: a run's own, else none and as many as the model can take.
    Raises:
        CheckpointError, DataError, RunError: there is nothing that can be read.
        ConfigError: beams, ``prefix`` or ``longest`` for a GPT of ours, which has none of them.
        MissingExtra: one of Hugging Face's without transformers.
    """
    place = _place(name, checkpoint)
    if isinstance(place, Place) and not _is_theirs(place):
        _refuse_what_ours_lacks(name, decoding, prefix, longest)
        return Ours(place, _identity(place.weights), device, precision)
    prompts = Prompts(prefix or "", longest)
    if isinstance(place, str):
        model, directory = pretrained(place), place
    elif place.run:
        data, directory = load_stored(place.run.config_path).data, str(place.run.tokenizer_dir)
        prompts = Prompts(
            data.prefix if prefix is None else prefix,
            longest or data.max_length,
            (data.source_column, data.text_column),
        )
        adopted = restore(place.weights)
        assert isinstance(adopted, Adopted), "a run with a model of theirs"
        model = adopted.model
    else:
        model, directory = pretrained(place.weights), str(place.weights)
        if prefix is None:  # as `ganeum export` leaves it
            prompts = Prompts(getattr(model.config, "prefix", None) or "", longest)
    from ganeum.inference.theirs import Theirs

    return Theirs(
        model,
        open_tokenizer(directory, key=name, trust_remote_code=trusted()),
        name=name,
        identity=_of_hub(place, model) if isinstance(place, str) else _identity(place.weights),
        prompts=prompts,
        device=device,
        precision=precision,
        decoding=decoding,
        architecture=_architecture(model.config.to_dict(), name),
    )


def _place(name: str, checkpoint: str) -> Place | str:
    """Where it lies here, or its name on the hub."""
    try:
        return locate(name, checkpoint)
    except RunError as error:
        if not ON_THE_HUB.fullmatch(name) or Path(name).expanduser().exists():
            raise
        if "/" not in name and not hub.has(name):
            raise RunError(
                f"there is no run {name}",
                where=error.where,
                why="nor is it the name of a model that the hub has, or that was fetched from it before",
                suggestion="`ganeum runs` lists the runs there are",
            ) from None
        return name


def _is_theirs(place: Place) -> bool:
    """Whether transformers writes with it: with a GPT-2 or Qwen3, too, but for one that `ganeum export` made."""
    shared = (place.weights / "config.json").is_file() and not (place.weights / OUR_TOKENIZER).is_file()
    return place.weights.is_dir() and (shared or is_theirs(place.weights))


def _refuse_what_ours_lacks(name: str, decoding: Decoding, prefix: str | None, longest: int | None) -> None:
    if decoding.num_beams > 1:
        raise ConfigError(
            f"a GPT of ours writes without beams, but {decoding.num_beams} are asked for",
            where=name,
            suggestion="--num-beams 1; or `ganeum export --format hf`, without ganeum.json in what it wrote",
        )
    for option, value in (("--prefix", prefix), ("--max-length", longest)):
        if value is not None:
            raise ConfigError(
                f"{option} says nothing for a GPT of ours",
                where=name,
                why="it reads what it is given, as much as its context holds",
                suggestion="no such option",
            )


def _architecture(config: dict[str, Any], name: str) -> Architecture | None:
    try:
        return from_config_json(config, name=name)
    except GaneumError:
        return None  # a model whose parts the planner does not know: it is tried


def _identity(weights: Path) -> dict[str, Any]:
    """Where weights lie and a digest of them that takes no time: sizes, beginnings and ends of their files."""
    files = [weights] if weights.is_file() else sorted(weights.glob("*.safetensors")) or sorted(weights.glob("*.bin"))
    if not files:
        raise CheckpointError("there are no weights in this directory", where=str(weights))
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(json.dumps([path.name, size]).encode())
        with path.open("rb") as file:
            digest.update(file.read(END))
            file.seek(max(0, size - END))
            digest.update(file.read(END))
    return {"weights": str(weights.resolve()), "weights_digest": digest.hexdigest()}


def _of_hub(name: str, model: Any) -> dict[str, Any]:
    return {"weights": name, "weights_digest": getattr(model.config, "_commit_hash", None)}
