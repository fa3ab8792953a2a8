"""From a name or a directory to one of Hugging Face's models, its weights read or drawn; nothing is executed that came
with it unless the reader said so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ganeum.config.trust import not_run, trusted
from ganeum.errors import CheckpointError, MissingExtra
from ganeum.hardware import hub
from ganeum.models import tying
from ganeum.models.adopted import Adopted, check_logits
from ganeum.models.quiet import quiet
from ganeum.units import things

# What the families call the share of activations that is dropped.
DROPOUTS = (
    "dropout",
    "dropout_rate",
    "attention_dropout",
    "activation_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "resid_pdrop",
    "embd_pdrop",
    "attn_pdrop",
    "resid_dropout",
    "embed_dropout",
)


def adopt(
    source: str | Path, *, fresh: bool = False, dropout: float | None = None, empty: bool = False, drawn: bool = False
) -> Adopted:
    """The model in fp32 on the CPU as a :class:`Network`; fresh weights are drawn from torch's global random state.

    Args:
        source: a directory, a config.json (then ``fresh`` is what there is), or a name on the hub.
        fresh: only the config is read.
        empty: of a fresh one nothing is drawn: its weights are whatever lies in memory, until others are loaded.
        drawn: of an empty one: it has the weights that a fresh one has, not those that a file has (``tying.py``).
        dropout: in place of every such share in the config; None: as it says.

    Raises:
        MissingExtra: transformers is not installed.
        CheckpointError: it cannot be read or reached, or wants code of its own to be run.
        ConfigError: its logits are more than its head makes of hidden states.
    """
    network = Adopted(pretrained(source, fresh=fresh, dropout=dropout, empty=empty, drawn=drawn))
    if not empty and network.head.weight.device.type != "meta":
        check_logits(network, str(source))
    return network


def pretrained(
    source: str | Path, *, fresh: bool = False, dropout: float | None = None, empty: bool = False, drawn: bool = False
) -> Any:
    """transformers' own model of the same, whatever its logits are; raises as :func:`adopt`."""
    try:
        with quiet():
            from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig
    except ImportError:
        raise MissingExtra(
            f"model.source={source} needs the package transformers", suggestion="pip install 'ganeum[hf]'"
        ) from None
    config = read_config(source)
    if dropout is not None:
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, dropout)
    kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = _built(kind, source, config, fresh or Path(source).is_file(), empty, drawn)
    if (Path(source) / "generation_config.json").is_file():  # from_config does not look for it: a run's own would go
        with quiet():
            model.generation_config = GenerationConfig.from_pretrained(str(source))
    return model


def read_config(source: str | Path) -> Any:
    """transformers' config of a source; raises CheckpointError."""
    from transformers import AutoConfig

    try:
        with quiet():
            return AutoConfig.from_pretrained(str(source), trust_remote_code=trusted(), **hub.looking_for(source))
    except (OSError, ValueError, KeyError) as error:
        raise _unread(source, error) from error


def _built(kind: Any, source: str | Path, config: Any, fresh: bool, empty: bool, drawn: bool) -> Any:
    """With torch's fused attention where the model knows it."""
    from transformers.initialization import no_init_weights

    options: dict[str, Any] = {"trust_remote_code": trusted(), "dtype": torch.float32}
    for attention in ("sdpa", "eager"):
        try:
            with quiet():
                if fresh and empty:
                    with no_init_weights():
                        model = kind.from_config(config, attn_implementation=attention, **options)
                    model.tie_weights()  # which goes with drawing
                    if not drawn and tying.is_tied(model) and tying.told_apart(source):
                        tying.untie(model)
                    return model
                if fresh:
                    return kind.from_config(config, attn_implementation=attention, **options)
                options |= hub.looking_for(source)
                return _whole(kind, source, config=config, attn_implementation=attention, **options)
        except CheckpointError:
            raise
        except Exception as error:  # the library's own errors, safetensors', pickle's, the network's
            if attention == "eager" or "attention" not in str(error).lower():
                raise _unread(source, error) from error
    raise AssertionError("one of the two was returned or raised")


def _whole(kind: Any, source: str | Path, **options: Any) -> Any:
    """The weights as they are written: transformers would draw what is not there, and go on."""
    model, told = kind.from_pretrained(str(source), output_loading_info=True, ignore_mismatched_sizes=True, **options)
    wrong = [f"{name}: missing" for name in sorted(told["missing_keys"])]
    wrong += [
        f"{name}: {tuple(there)} in the file, {tuple(here)} by config.json"
        for name, there, here in sorted(told["mismatched_keys"])
    ]
    if not wrong:
        _refuse_no_numbers(model, source)
        return model
    more = [f"… and {len(wrong) - 8} more"] if len(wrong) > 8 else []
    raise CheckpointError(
        f"the weights are not all that config.json asks for: {things(len(wrong), 'tensor')}",
        where=f"model.source: {source}",
        why="\n".join(wrong[:8] + more),
        suggestion="the whole directory; or model.fresh=true, which draws all weights from the seed",
    )


def _refuse_no_numbers(model: Any, source: str | Path) -> None:
    """Training would go on with a loss that is none from its first step."""
    names = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if names:
        raise CheckpointError(
            f"the weights hold numbers that are none: NaN or infinite in {things(len(names), 'tensor')}",
            where=f"model.source: {source}",
            why=", ".join(names[:8]) + (", …" if len(names) > 8 else ""),
            suggestion="an earlier checkpoint of that training, or the model's files again from where they came",
        )


def _unread(source: str | Path, error: BaseException) -> CheckpointError:
    """transformers' advice names its own functions and options; the first line says what is wrong."""
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if "trust_remote_code" in str(error):
        return not_run(f"the model {source}", f"model.source: {source}")
    if "no file named" in first:
        return CheckpointError(
            "there are no weights beside config.json",
            where=f"model.source: {source}",
            why="neither model.safetensors, its shards, nor pytorch_model.bin is there",
            suggestion="model.fresh=true draws them from the seed",
        )
    if "weights_only" in first:  # of torch.load, which goes on to advise what would run that code
        return CheckpointError(
            "the weights are refused: they are damaged, or hold more than tensors and plain values",
            where=f"model.source: {source}",
            why="to read such a file is to run whatever code its writer put into it; it was not run",
            suggestion="a .safetensors file of the same weights",
        )
    if Path(source).exists():
        return CheckpointError(
            "the model cannot be read",
            where=f"model.source: {source}",
            why=first,
            suggestion="its files again, from where they came: one may be cut off, or not here at all",
        )
    return CheckpointError(
        f"the model {source} is neither here nor to be had from the hub",
        where=f"model.source: {source}",
        why=hub.why_not(source, error),
        suggestion="a directory with config.json and model.safetensors; or a name on the hub, and the network",
    )
