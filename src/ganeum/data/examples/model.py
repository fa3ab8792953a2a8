"""What examples must know of the model that learns from them, told by its config alone."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ganeum import record
from ganeum.config.trust import not_run
from ganeum.errors import DataError, MissingExtra
from ganeum.hardware import hub

# Models that can be told which places of a row belong to one example, and whose layers all see the whole of it
# (tests/data/test_default_batching.py): packing is theirs by default.
PACKED = frozenset({"t5", "mt5", "gpt2", "gpt_neox", "llama", "qwen2", "qwen3"})
# In a row of T places each spends T / (6 · width) times as much on attention as on weights, and a packed row is full:
# in rows longer than so many widths that outweighs the padding that packing saves (docs/log.md).
WIDTHS = 4


@dataclass(frozen=True)
class Learner:
    """``encoder_decoder``: or else a decoder only; ``start``: the decoder's first input; ``vocab_size``: rows of its
    embedding, above every id that it can take; ``positions``: tokens of the longest row that it knows positions for,
    None where these are relative to each other, as T5's; ``packs``: tokens of the longest row in which packing pays, 0
    where rows cannot be packed, or nobody looked whether they can."""

    encoder_decoder: bool
    start: int
    vocab_size: int
    positions: int | None = None
    packs: int = 0


def learner(source: str, *, trust_remote_code: bool = False) -> Learner:
    """What the config of ``model.source`` says.

    Raises:
        CheckpointError: it comes with code of its own.
        DataError: it cannot be had, or a decoder has nothing to begin with.
        MissingExtra: transformers is not installed.
    """
    if find_spec("transformers") is None:
        raise MissingExtra(
            f"model.source={source} needs the package transformers, which is not installed",
            suggestion='pip install "ganeum[hf]"',
        )
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code, **hub.looking_for(source))
    except Exception as error:  # the library's own errors, the hub's, the network's
        if any(record.RunDirectory(place / source).exists() for place in (Path(), record.results_dir())):
            raise DataError(
                f"{source} is a run, and no model of Hugging Face's",
                where=f"model.source: {source}",
                suggestion=f"ganeum export {source} OUT, then model.source=OUT; to go on from its weights alone, "
                f"train.init_from={source} beside the model.source that it began with",
            ) from None
        if "trust_remote_code" in str(error):
            raise not_run(f"the model {source}", f"model.source: {source}") from error
        raise DataError(
            f"the config of the model {source} cannot be had",
            where=f"model.source: {source}",
            why=hub.why_not(source, error),
            suggestion="model.source: a directory with config.json (from another machine, say), or a name on the hub",
        ) from error
    text_config = config.get_text_config(decoder=True)
    first = [getattr(config, name, None) for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id")]
    start = next((id for id in first if isinstance(id, int)), None)
    if config.is_encoder_decoder and start is None:
        raise DataError(
            f"the decoder of {source} has nothing to begin with",
            where=f"model.source: {source}",
            why="its config.json has no decoder_start_token_id, bos_token_id or pad_token_id",
            suggestion="decoder_start_token_id in its config.json, as the model was trained",
        )
    positions = getattr(text_config, "max_position_embeddings", None)
    whole = "sliding_attention" not in (getattr(text_config, "layer_types", None) or ())
    packs = WIDTHS * int(text_config.hidden_size) if config.model_type in PACKED and whole else 0
    return Learner(bool(config.is_encoder_decoder), start or 0, int(text_config.vocab_size), positions, packs)
