"""Which remedies a training gets, by what is known of it: the most promising first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ganeum.config import Config
from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.remedies.keys import of_keys
from ganeum.doctor.measured.remedies.promise import Facts, pays_from
from ganeum.doctor.measured.remedies.seen import of_step
from ganeum.doctor.measured.remedies.surroundings import of_host, of_loader
from ganeum.doctor.measured.remedies.training import of_data, of_numbers, of_optimizer, of_work
from ganeum.doctor.measured.remedy import Remedy

__all__ = ["of_config", "of_training", "pays_from", "told", "untried"]

THROUGH_THE_MODEL = ("bf16", "fp16", "fp32", "compiled", "no_mask", "no_extra_forwards")  # acts
PADDED = 0.2  # of the places, padded to the longest there could be: from here on it is told without a measurement


def of_training(facts: Facts) -> list[Remedy]:
    """For somebody's own training, the most promising first; what is done to the model's own forward pass only where a
    step has one."""
    found = [*of_host(facts), *of_data(facts), *of_numbers(facts), *of_work(facts), *of_optimizer(facts)]
    return _first(found if facts.get("forwards", 1) else [one for one in found if one.act not in THROUGH_THE_MODEL])


def of_config(config: Config, facts: Facts) -> list[Remedy]:
    """For a run of ours: keys to change, and what its process and its surroundings do to it.

    Args:
        config: with every key resolved (``facts["decided"]``).
    """
    return _first([*of_host(facts), *of_loader(facts), *_recomputed(facts), *of_keys(config, facts)])


def _first(found: Iterable[Remedy]) -> list[Remedy]:
    """The most promising first. What changes the learning counts for half of what it promises, and so does each one of
    a group beside the one before it, since only one of them is taken."""
    scores: dict[int, float] = {}
    groups: dict[str, int] = {}
    found = sorted(found, key=lambda one: one.promise, reverse=True)
    for place, one in enumerate(found):
        before = groups.get(one.group, 0) if one.group else 0
        groups[one.group] = before + 1
        scores[place] = (one.promise - 1) * 0.5**before * (1 if one.same_learning else 0.5)
    return [found[place] for place in sorted(scores, key=lambda place: -scores[place])]


def _recomputed(facts: Facts) -> Iterator[Remedy]:
    """By something else than its key."""
    if facts["decided"]["train"]["activation_checkpointing"] == "none":
        yield from (one for one in of_work(facts) if one.act == "not_recomputed")


def untried(facts: Facts) -> list[str]:
    """Sentences: what cannot be tried of this training, and why."""
    if facts.get("forwards", 1):
        return []
    return [
        "bf16, compiling: not tried: a step calls parts of the model and never Training.model itself, so there is no "
        "forward pass to do it to"
    ]


def told(facts: Facts, config: Config | None = None) -> list[Finding]:
    """What can be said without trying anything, exactly."""
    found = [*of_step(facts)]
    if config is not None and config.data.batching == "fixed" and (padding := facts.get("padding", 0.0)) >= PADDED:
        found.append(
            Finding(
                cause="padding",
                title=f"{padding:.0%} of the places that are computed hold nothing",
                evidence=(
                    "every row is padded to the longest there could be; counted over steps from all over an epoch",
                    "at most so much of the time: what packed rows and buckets give is measured beside this",
                ),
                change="data.batching=auto",
                sure="computed",
                interval=(0.0, padding),
                unit="share of the time",
                where="data.batching",
            )
        )
    if config is not None and config.model.source is None and config.data.order == "epochs":
        length, stride = config.model.block_size, config.data.stride
        if isinstance(stride, int) and stride < length:
            found.append(
                Finding(
                    cause="overlapping_windows",
                    title=f"windows of {length:,} tokens start {stride:,} apart: an epoch has a token "
                    f"{length / stride:.3g} times",
                    evidence=(
                        "tokens per second stay the same without overlap; an epoch becomes as many times shorter",
                    ),
                    change="data.stride=auto, and as many epochs as the held-out loss wants",
                    sure="computed",
                    size=length / stride,
                    unit="times the steps of an epoch",
                    where="data.stride",
                )
            )
    return found
