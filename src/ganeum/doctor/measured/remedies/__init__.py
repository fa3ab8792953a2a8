"""Which remedies a training gets, by what is known of it: the most promising first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ganeum.config import Config
from ganeum.doctor.finding import Finding
from ganeum.doctor.measured.remedies.keys import of_keys
from ganeum.doctor.measured.remedies.promise import Facts, pays_from
from ganeum.doctor.measured.remedies.surroundings import of_host, of_loader
from ganeum.doctor.measured.remedies.training import of_data, of_numbers, of_optimizer, of_work
from ganeum.doctor.measured.remedy import Remedy

__all__ = ["of_config", "of_training", "pays_from", "told"]


def of_training(facts: Facts) -> list[Remedy]:
    """For somebody's own training, the most promising first."""
    return _first([*of_host(facts), *of_data(facts), *of_numbers(facts), *of_work(facts), *of_optimizer(facts)])


def of_config(config: Config, facts: Facts) -> list[Remedy]:
    """For a run of ours: keys to change, and what its process and its surroundings do to it.

    Args:
        config: with every key resolved (``facts["decided"]``).
    """
    return _first([*of_host(facts), *of_loader(facts), *_recomputed(facts), *of_keys(config, facts)])


def _first(found: Iterable[Remedy]) -> list[Remedy]:
    """The most promising first; what changes the learning counts for half of what it promises."""
    return sorted(found, key=lambda one: round((one.promise - 1) * (1 if one.same_learning else 0.5), 2), reverse=True)


def _recomputed(facts: Facts) -> Iterator[Remedy]:
    """By something else than its key."""
    if facts["decided"]["train"]["activation_checkpointing"] == "none":
        yield from (one for one in of_work(facts) if one.act == "not_recomputed")


def told(facts: Facts, config: Config | None = None) -> list[Finding]:
    """What can be said without trying anything, exactly."""
    found = []
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
