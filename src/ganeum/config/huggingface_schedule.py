"""What Hugging Face's learning-rate schedules come to: lr_scheduler_type with its lr_scheduler_kwargs."""

from __future__ import annotations

from typing import Any

from ganeum.config.huggingface_rules import Given, Meaning, Setting, mapping, number, refusal, word


def schedule(given: Given) -> Meaning:
    """The shape after the warm-up, with what lr_scheduler_kwargs says of it; without that, it ends at 0 there."""
    kind, options = word(given, "lr_scheduler_type"), mapping(given, "lr_scheduler_kwargs")
    note, settings = "", []
    match kind:
        case None:
            pass
        case "linear":
            settings = [Setting("train.schedule", "wsd"), Setting("train.decay_share", 1.0, implied=True)]
            settings.append(_lowest(given, {}))
        case "cosine" | "cosine_with_min_lr":
            settings = [Setting("train.schedule", "cosine"), _lowest(given, options)]
        case "constant":
            settings = [Setting("train.schedule", "constant"), Setting("train.warmup_iters", 0, implied=True)]
        case "constant_with_warmup":
            settings = [Setting("train.schedule", "constant")]
        case "warmup_stable_decay":
            settings = [Setting("train.schedule", "wsd"), *_decay(given, options), _lowest(given, options)]
            note = "it decays along a straight line" if options.pop("decay_type", "cosine") != "linear" else ""
        case _:
            raise refusal(
                given,
                "lr_scheduler_type",
                why="the schedules are cosine, wsd (constant, then linear decay) and constant",
                suggestion="lr_scheduler_type: linear or cosine",
            )
    if options:
        raise refusal(
            given,
            "lr_scheduler_kwargs",
            what=f"lr_scheduler_kwargs: {', '.join(options)} has no meaning here"
            + (f" with {kind}" if kind else " without lr_scheduler_type"),
            why="min_lr, min_lr_rate, min_lr_ratio and num_decay_steps are understood, where the schedule has them",
            suggestion="train.schedule, train.min_learning_rate and train.decay_share",
        )
    return Meaning(tuple(settings), note)


def _lowest(given: Given, options: dict[str, Any]) -> Setting:
    """Where the schedule ends: 0, or as the options say. What it understands of them is taken out."""
    value, *shares = (_option(given, options, name) or 0.0 for name in ("min_lr", "min_lr_rate", "min_lr_ratio"))
    share = max(shares)
    if share:
        if (peak := number(given, "learning_rate")) is None:
            raise refusal(
                given,
                "lr_scheduler_kwargs",
                what="lr_scheduler_kwargs: a share of learning_rate says nothing without learning_rate beside it",
                why="",
                suggestion="train.min_learning_rate",
            )
        value = float(f"{peak * share:.6g}")
    return Setting("train.min_learning_rate", value, implied=True)


def _decay(given: Given, options: dict[str, Any]) -> list[Setting]:
    """num_decay_steps as a share of max_steps."""
    if (decay := _option(given, options, "num_decay_steps")) is None:
        return []
    steps = number(given, "max_steps")
    if not steps or steps <= 0:
        raise refusal(
            given,
            "lr_scheduler_kwargs",
            what="lr_scheduler_kwargs: num_decay_steps says nothing without max_steps beside it",
            why="the decay is a share of all steps here",
            suggestion="train.decay_share",
        )
    return [Setting("train.decay_share", decay / steps)]


def _option(given: Given, options: dict[str, Any], name: str) -> float | None:
    """A number out of lr_scheduler_kwargs, taken out of it; None if it is not there."""
    value = options.pop(name, None)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        what = f"lr_scheduler_kwargs: {name} must be a number, but it is {value!r}"
        raise refusal(given, "lr_scheduler_kwargs", what=what, why="")
    return value
