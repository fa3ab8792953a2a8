"""How a model that is known by its name is to be run: the keys that `ganeum plan t5-base length=512 …` takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ganeum.config.keys import Key, walk
from ganeum.config.load import fit, typed
from ganeum.config.schema import Auto, Lora, Section
from ganeum.config.source import Place
from ganeum.errors import ConfigError, GaneumError, Several
from ganeum.plan.execution import Kernel, Offload, Optimizer, Precision, Purpose, Weights


class Use(Section):
    """One way to run a model that somebody else described."""

    purpose: Purpose = Field("training", description="what for")
    length: PositiveInt | Auto = Field(
        "auto",
        description="tokens of a sequence, of the decoder's where there are two; in generation the prompt and the new "
        "ones together; auto: what the model knows positions for, at most 1,024, and 128 behind an encoder",
    )
    source_length: PositiveInt | Auto = Field(
        "auto", description="tokens of a sequence of the encoder; auto: 512 where there is one"
    )
    batch_size: PositiveInt | Auto = Field(
        "auto", description="sequences per optimizer step; auto: as many as fit at once"
    )
    micro_batch_size: PositiveInt | Auto = Field("auto", description="sequences at once; auto: the fastest that fits")
    optimizer: Optimizer = Field("adamw", description="whose state is kept")
    precision: Precision | Auto = Field(
        "auto", description="what products are computed in; auto: the device's fastest by hardware of its own"
    )
    weights: Weights | Auto = Field(
        "auto", description="what weights are kept in; auto: fp32 to train them, else the precision"
    )
    activation_checkpointing: Literal["none", "whole"] | Auto = Field(
        "auto", description="what the backward pass computes again: nothing, or the blocks; auto: the fastest that fits"
    )
    attention: Kernel | Auto = Field("auto", description="the kernel; auto: the best that library and device have")
    lora: Lora = Field(default_factory=Lora, description="low-rank adapters in place of all weights")
    zero_stage: int = Field(
        0,
        ge=0,
        le=3,
        description="what DeepSpeed's ZeRO shares out: 1 the optimizer's state, 2 gradients too, 3 weights too",
    )
    offload: Offload = Field("none", description="what lies in the CPU's memory instead of the GPU's")
    devices: PositiveInt = Field(1, description="GPUs that share the work; what is planned is one of them")
    beams: PositiveInt = Field(1, description="hypotheses of a sequence in generation")
    tokens: PositiveFloat | None = Field(None, description="length of the training in tokens of the decoder")
    hours: PositiveFloat | None = Field(None, description="length of the training in hours")
    learning_rate: PositiveFloat | Auto = Field(
        "auto", description="what --emit writes; auto: 5e-5, as the Trainer has it, and 1e-3 with Adafactor"
    )


OTHERWISE = {  # what people call these elsewhere
    "batch": "batch_size",
    "block_size": "length",
    "gradient_checkpointing": "activation_checkpointing",
    "max_length": "length",
    "max_target_length": "length",
    "max_source_length": "source_length",
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "micro_batch_size",
    "optim": "optimizer",
    "num_beams": "beams",
    "rank": "lora.rank",
    "max_tokens": "tokens",
}

SWITCHES = {  # what is on or off elsewhere
    "gradient_checkpointing=true": "activation_checkpointing=whole",
    "gradient_checkpointing=false": "activation_checkpointing=none",
    "fp16=true": "precision=fp16",
    "bf16=true": "precision=bf16",
}


@cache
def keys() -> Mapping[str, Key]:
    """The keys by their names."""
    return {key.name: key for key in walk(Use)}


def read(settings: Sequence[str]) -> Use:
    """What ``["length=512", "optimizer=adafactor"]`` asks for.

    >>> read(["batch=8", "purpose=inference"]).batch_size
    8

    Raises:
        ConfigError, Several: a key that is none, or a value that its key does not take.
    """
    errors: list[GaneumError] = []
    tree: dict[str, object] = {}
    for written in settings:
        name, _, text = SWITCHES.get(written, written).partition("=")
        name = name.strip()
        name = OTHERWISE.get(name.removeprefix("train."), name.removeprefix("train."))
        place = Place(argument=written)
        if name not in keys():
            near = difflib.get_close_matches(name, [*keys(), *OTHERWISE], n=1, cutoff=0.6)
            better = OTHERWISE.get(near[0], near[0]) if near else None
            errors.append(
                ConfigError(
                    f"the plan of a model by its name has no key {name}",
                    where=str(place),
                    suggestion=f"{better}={text}" if better else "one of " + ", ".join(keys()),
                )
            )
            continue
        try:
            value = fit(keys()[name], typed(text, place))
        except ConfigError as error:
            errors.append(error)
            continue
        section, _, last = name.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[last] = value  # type: ignore[index]
    if len(errors) > 1:
        raise Several(errors)
    if errors:
        raise errors[0]
    return Use.model_validate(tree)
