"""From what the user names to what writes: a run, a checkpoint, an exported directory, a model of Hugging Face's."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ganeum.config.trust import trusted
from ganeum.errors import CheckpointError, ConfigError, GaneumError, MissingExtra
from ganeum.hardware.device import Device
from ganeum.inference.decoding import Decoding
from ganeum.inference.writer import Precision, Writer
from ganeum.models.place import Place, locate
from ganeum.plan.architecture import Architecture
from ganeum.plan.architecture.hugging_face import from_config_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")
OUR_TOKENIZER = "ganeum.json"
END = 2**20  # bytes of a file's beginning and of its end that its digest is made of, beside its size


def precision_of(wanted: str, device: Device) -> Precision:
    """What ``auto`` becomes: two bytes on a GPU with bf16, where reading the weights is what takes time; else fp32."""
    if wanted == "auto":
        return "bf16" if device.kind == "cuda" and device.fast_precision == "bf16" else "fp32"
    return wanted  # type: ignore[return-value]


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
        CheckpointError, RunError: there is nothing that can be read.
        ConfigError: ``prefix`` or ``longest`` for a GPT of ours, which has neither.
        MissingExtra: one of Hugging Face's without transformers.
    """
    place = _place(name, checkpoint)
    if isinstance(place, Place) and not _is_theirs(place):
        for option, value in (("--prefix", prefix), ("--max-length", longest)):
            if value is not None:
                raise ConfigError(
                    f"{option} says nothing for a GPT of ours",
                    where=name,
                    why="it has one context, and reads what it is given",
                    suggestion="no such option",
                )
        from ganeum.inference.ours import Ours

        return Ours(place, _identity(place.weights), device, precision)
    directory = str(place.weights if isinstance(place, Place) else place)
    model, tokenizer = _pretrained(directory)
    from ganeum.inference.theirs import Theirs

    return Theirs(
        model,
        tokenizer,
        name=name,
        identity=_identity(Path(directory)) if isinstance(place, Place) else _of_hub(directory, model),
        device=device,
        precision=precision,
        decoding=decoding,
        prefix=prefix or "",
        longest=longest,
        architecture=_architecture(model.config.to_dict(), name),
    )


def _place(name: str, checkpoint: str) -> Place | str:
    """Where it lies here, or its name on the hub."""
    try:
        return locate(name, checkpoint)
    except GaneumError:
        if ON_THE_HUB.fullmatch(name) and not Path(name).expanduser().exists():
            return name
        raise


def _is_theirs(place: Place) -> bool:
    """Whether transformers reads it: a directory of Hugging Face's that is no export of a GPT of ours."""
    return (place.weights / "config.json").is_file() and not (place.weights / OUR_TOKENIZER).is_file()


def _pretrained(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    if find_spec("transformers") is None:
        raise MissingExtra(
            f"{name} needs the package transformers, which is not installed", suggestion='pip install "ganeum[hf]"'
        )
    from ganeum.models.quiet import quiet

    with quiet():
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    try:
        with quiet():
            config = AutoConfig.from_pretrained(name, trust_remote_code=trusted())
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trusted())
            model = kind.from_pretrained(name, trust_remote_code=trusted())
    except (OSError, ValueError, KeyError, ImportError) as error:
        why = " ".join(str(error).split())
        raise CheckpointError(
            f"the model {name} cannot be had",
            where=name,
            why=why if len(why) <= 400 else why[:400] + "…",
            suggestion="a directory with config.json, weights and tokenizer; for the hub, a network and HF_TOKEN where "
            "the model asks for one",
        ) from None
    return model, tokenizer


def _architecture(config: dict[str, Any], name: str) -> Architecture | None:
    try:
        return from_config_json(config, name=name)
    except GaneumError:
        return None  # a model whose parts the planner does not know: it is tried


def _identity(weights: Path) -> dict[str, Any]:
    """Where weights lie and a digest of them that takes no time: sizes, beginnings and ends of their files."""
    files = [weights] if weights.is_file() else sorted(weights.glob("*.safetensors")) or sorted(weights.glob("*.bin"))
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(json.dumps([path.name, size]).encode())
        with path.open("rb") as file:
            digest.update(file.read(END))
            file.seek(max(0, size - END))
            digest.update(file.read(END))
    return {"weights": str(weights.resolve()), "weights_digest": digest.hexdigest()}


def _of_hub(name: str, model: PreTrainedModel) -> dict[str, Any]:
    return {"weights": name, "weights_digest": getattr(model.config, "_commit_hash", None)}
