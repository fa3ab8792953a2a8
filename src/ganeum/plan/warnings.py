"""What a person should know before pressing Enter: each warning with its figure and something to try."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from ganeum import units
from ganeum.config.schema import Config
from ganeum.data.windows import Windows
from ganeum.hardware.device import Device
from ganeum.plan.flops import Flops
from ganeum.plan.flops import count as count_flops
from ganeum.plan.lengths import Lengths
from ganeum.plan.levers import by_estimate, needs, table, that_fit
from ganeum.plan.micro_batch import SHARE, needed
from ganeum.plan.parameters import Parameters

GOOD_REPEATS, USELESS_REPEATS = 4, 16
CHINCHILLA = 20  # tokens a parameter
LONG_HOURS = 4  # at the device's full peak, which nothing reaches
USUAL_MFU = 0.4
ADAMW_BYTES = 28  # a parameter and step: reads weight, gradient, two moments, writes three of them, in fp32


@dataclass(frozen=True)
class Warning:
    """``error``: the run cannot start or cannot fit; ``warning``: it will disappoint; ``note``: worth knowing."""

    severity: Literal["error", "warning", "note"]
    what: str
    figure: str
    try_: str

    def as_dict(self) -> dict[str, str]:
        """As in plan.json: severity, what, figure, try."""
        return {key.rstrip("_"): value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class Facts:
    """What the warnings look at. ``config`` has its vocabulary and micro-batch as numbers."""

    config: Config
    device: Device
    parameters: Parameters
    flops: Flops
    lengths: Lengths
    precision: str
    vocab_known: bool
    total_flops: int | None


def of(facts: Facts) -> list[Warning]:
    """All that apply, the gravest first."""
    found = [warning for look in LOOKS for warning in look(facts)]
    return sorted(found, key=lambda warning: ("error", "warning", "note").index(warning.severity))


def _missing_data(facts: Facts) -> Iterator[Warning]:
    if facts.lengths.tokens is not None:
        return
    directory = facts.config.data.directory
    script = Path(directory) / "prepare.py"
    advice = f"python {script}" if script.exists() else f"ganeum prepare PATH… --out {directory}"
    if not facts.vocab_known and not script.exists():
        advice += " --tokenizer gpt2"  # the vocabulary assumed here
    yield Warning(
        "error",
        f"there is no data in {directory} yet",
        "windows, steps per epoch and repeats are not known"
        + ("" if facts.vocab_known else f"; the vocabulary is taken to be GPT-2's {facts.config.model.vocab_size:,}"),
        f"prepare it ({advice}), or give its size: --tokens N",
    )


def _too_little_data(facts: Facts) -> Iterator[Warning]:
    length, train = facts.lengths, facts.config.train
    if length.tokens is None or length.windows is None:
        return
    if length.windows == 0:
        yield Warning(
            "error",
            "the text is shorter than one window",
            f"{length.tokens:,} tokens; a window needs model.block_size + 1 = {facts.config.model.block_size + 1:,}",
            f"more text, or model.block_size={max(1, length.tokens - 1)} at most",
        )
    elif length.steps_per_epoch == 0 and facts.config.data.order == "epochs":
        yield Warning(
            "error",
            "an epoch is shorter than one batch",
            f"{length.windows:,} windows, and train.batch_size is {train.batch_size:,}",
            f"train.batch_size={length.windows} at most, or data.order=random",
        )


def _does_not_fit(facts: Facts) -> Iterator[Warning]:
    size, device = facts.config.train.micro_batch_size, facts.device
    assert isinstance(size, int)
    memory, usable = needed(facts.config, device, size), device.usable_gib * units.GIB
    if memory.total <= usable:
        return
    yield Warning(
        "warning",
        f"it may not fit into the memory of {device.name}",
        f"about {units.gib(memory.total)} with {size} of {facts.config.train.batch_size} sequences at once "
        f"({needs(memory)}); {units.gib(usable)} are usable",
        "train.micro_batch_size=auto"
        if size > 1
        else table(that_fit(facts.config, device, by_estimate(SHARE * usable))) or "a far smaller model",
    )


def _overlap(facts: Facts) -> Iterator[Warning]:
    data, block, length = facts.config.data, facts.config.model.block_size, facts.lengths
    if data.order != "epochs" or data.stride == "auto" or data.stride >= block:
        return
    times = block / data.stride
    figure = (
        f"windows of {block:,} tokens start {data.stride:,} apart: each token is trained on {times:g} times an epoch"
    )
    advice = f"data.stride=auto: the same text in 1/{times:g} of the steps"
    if length.tokens is not None and length.steps_per_epoch:
        apart = Windows(length.tokens, block, block)
        advice = (
            f"data.stride=auto: {apart.count:,} windows, {apart.steps_per_epoch(facts.config.train.batch_size):,} "
            f"steps an epoch instead of {length.steps_per_epoch:,}"
        )
    yield Warning("warning", "the windows overlap, so an epoch is several", figure, advice)


def _repeats(facts: Facts) -> Iterator[Warning]:
    length = facts.lengths
    if length.repeats_per_token is None or length.repeats_per_token <= GOOD_REPEATS or length.tokens is None:
        return
    steps = max(1, GOOD_REPEATS * length.tokens // length.tokens_per_step)
    assert length.tokens_seen is not None
    yield Warning(
        "warning" if length.repeats_per_token > USELESS_REPEATS else "note",
        "the same text is repeated more often than it teaches",
        f"each token is seen {length.repeats_per_token:,.4g} times; up to about 4 are as good as new text, and after "
        "16 little is gained (Muennighoff et al. 2023, arXiv 2305.16264)",
        f"train.max_iters={steps} (4 times), {units.count(length.tokens_seen / GOOD_REPEATS)} tokens of text for this "
        "length, or train.patience=3, which stops when the held-out loss no longer falls",
    )


def _tokens_per_parameter(facts: Facts) -> Iterator[Warning]:
    length, total = facts.lengths, facts.parameters.total
    if length.tokens is None or length.tokens_seen is None or not length.tokens_seen:
        return
    if length.tokens < total:
        yield Warning(
            "warning",
            "the model has room to learn the text by heart",
            f"{units.count(total)} parameters for {units.count(length.tokens)} tokens of text, "
            f"{length.tokens / total:.2g} tokens a parameter; about {CHINCHILLA} are usual "
            "(Hoffmann et al. 2022, arXiv 2203.15556)",
            f"a smaller model (n_layer, n_embd), dropout, or more text: {units.count(CHINCHILLA * total)} tokens for "
            "this one",
        )
    elif length.tokens_seen < CHINCHILLA / 4 * total:
        best = math.sqrt(3 * facts.flops.forward_per_token * length.tokens_seen / (6 * CHINCHILLA))
        yield Warning(
            "note",
            "the model is large for so short a training",
            f"{length.tokens_seen / total:.2g} tokens a parameter; about {CHINCHILLA} give the lowest loss for the "
            "same arithmetic (Hoffmann et al. 2022, arXiv 2203.15556)",
            f"about {units.count(best)} parameters, or {units.count(CHINCHILLA * total)} tokens of training",
        )


def _short_context(facts: Facts) -> Iterator[Warning]:
    model = facts.config.model
    if model.block_size >= 128:
        return
    longer = model.model_copy(update={"block_size": 256})
    more = count_flops(longer, facts.parameters).per_token / facts.flops.per_token - 1
    yield Warning(
        "note",
        "the context is short",
        f"a token is predicted from the {model.block_size} before it at most, a sentence or two",
        f"model.block_size=256: {more:.1%} more arithmetic a token",
    )


def _long(facts: Facts) -> Iterator[Warning]:
    peak = facts.device.peak(facts.precision)
    if facts.total_flops is None or not peak:
        return
    seconds = facts.total_flops / peak
    if seconds < LONG_HOURS * 3600:
        return
    yield Warning(
        "warning",
        "it will take long",
        f"{units.flops(facts.total_flops)} at this device's {units.flops(peak)}/s are {units.duration(seconds)} at the "
        f"very least, and about {units.duration(seconds / USUAL_MFU)} at the {USUAL_MFU:.0%} of it that is usual",
        "fewer steps, a smaller model, or a GPU",
    )


def _optimizer_traffic(facts: Facts) -> Iterator[Warning]:
    peak, bandwidth = facts.device.peak(facts.precision), facts.device.memory_bandwidth_gb_s
    if not peak or not bandwidth:
        return
    traffic = ADAMW_BYTES * facts.parameters.total
    update_s = traffic / (bandwidth * 1e9)
    compute_s = facts.flops.per_token * facts.lengths.tokens_per_step / (USUAL_MFU * peak)
    share = update_s / (update_s + compute_s)
    if share < 0.15:
        return
    yield Warning(
        "note",
        "the batch is small for the model: much of each step goes into the update of the weights",
        f"{units.size(traffic)} of weights, gradients and moments move for {facts.lengths.tokens_per_step:,} tokens: "
        f"about {share:.0%} of the step",
        f"train.batch_size={2 * facts.config.train.batch_size} with half the steps",
    )


def _slow_precision(facts: Facts) -> Iterator[Warning]:
    fast = facts.device.fast_precision
    now, then = facts.device.peak(facts.precision), facts.device.peak(fast)
    if facts.precision not in ("fp32", "tf32") or not now or not then or then < 1.5 * now:
        return
    yield Warning(
        "warning",
        f"{facts.precision} leaves most of this device unused",
        f"it multiplies {fast} {then / now:.2g} times as fast: {units.flops(then)}/s instead of {units.flops(now)}/s",
        "train.precision=auto",
    )


def _vocabulary(facts: Facts) -> Iterator[Warning]:
    parts, total = facts.parameters.by_component, facts.parameters.total
    tables = parts["token_embedding"] + parts["head"]
    head = 2 * parts["token_embedding"] / facts.flops.forward_per_token
    if tables < 0.4 * total:
        return
    advice = "a smaller vocabulary (ganeum prepare --vocab-size)"
    if not facts.config.model.tie_embeddings:
        advice = f"model.tie_embeddings=true: {units.count(parts['head'])} parameters less, or {advice}"
    yield Warning(
        "note",
        "much of the model is vocabulary",
        f"{units.count(tables)} of {units.count(total)} parameters and {head:.0%} of the arithmetic",
        advice,
    )


def _unknown_peak(facts: Facts) -> Iterator[Warning]:
    if facts.device.kind == "cpu" or facts.device.peak(facts.precision):
        return
    yield Warning(
        "note",
        "MFU will not be shown",
        f"{facts.device.name} has no {facts.precision} peak in the catalogue of GPUs",
        "tokens per second, which is measured all the same",
    )


LOOKS = (
    _missing_data,
    _too_little_data,
    _does_not_fit,
    _overlap,
    _repeats,
    _tokens_per_parameter,
    _long,
    _slow_precision,
    _short_context,
    _optimizer_traffic,
    _vocabulary,
    _unknown_peak,
)
