"""How a training begins: its first loss, and whether what is computed while it trains is what should be."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import torch
from torch import nn

from ganeum.doctor.examine.seen import IGNORED, Loss, Pass, Seen
from ganeum.doctor.finding import Finding

ALIKE = 1.25  # times the deviation that a weight's own class draws it with
LARGEST = 1_000_000_000  # parameters: of a larger model no second one is drawn
ABOVE, BELOW = 0.2, 0.1  # of ln V, of a fresh model's first loss
NATS_ABOVE, NATS_BELOW = 1.0, 0.4  # and of it in nats: a small vocabulary's ln is small


def look(seen: Seen, fresh: bool, model: nn.Module, told: bool) -> Iterator[Finding]:
    """All that the first micro-batches say; ``told``: it is known already that the model is told what is to come."""
    if seen.error is not None and "nan values" in str(seen.error):  # anomaly detection was on, and stopped it
        yield Finding(
            cause="loss_nan",
            title="the way back makes values that are no numbers",
            evidence=(str(seen.error).splitlines()[0][:200],),
            change="a sqrt, log, norm or division of nothing; 0 · inf; an epsilon inside it",
            severity="error",
            sure="measured",
        )
        return
    first = next((_main(one.losses) for one in seen.passes if one.losses), None)
    if fresh and first is not None and math.isfinite(first.mean):
        yield from _first(first, model, told)
    for number, one in enumerate(seen.passes, start=1):
        if one.losses and bool((_main(one.losses).targets == IGNORED).all()):
            continue
        whole = 0.0 if one.value is None or seen.scaled else one.value  # multiplied by a scale it may be too large
        if math.isfinite(whole) and not (one.losses and not math.isfinite(_main(one.losses).mean)):
            continue
        yield Finding(
            cause="loss_nan",
            title="the loss is no number" + (f" from micro-batch {number} on" if number > 1 else ""),
            evidence=(f"micro-batch {number} of {len(seen.passes)}" + _began(seen.passes[0]),),
            change="a lower learning rate, or a warm-up; look at the batch itself where it is the first",
            severity="error",
            sure="measured",
        )
        return


def _began(first: Pass) -> str:
    number = _main(first.losses).mean if first.losses else first.value
    return "" if number is None else f"; the first was {number:.3g}"


def _main(losses: list[Loss]) -> Loss:
    return max(losses, key=lambda one: len(one.targets))


def _first(loss: Loss, model: nn.Module, told: bool) -> Iterator[Finding]:
    if _among_rows(loss):
        return
    usual = math.log(loss.classes)
    above, below = loss.mean - usual, usual - loss.mean
    if above > max(NATS_ABOVE, ABOVE * usual):
        evidence = [f"{loss.mean:.2f} nats, and a model that knows nothing has ln {loss.classes:,} = {usual:.2f}"]
        if loss.spread is not None:
            evidence.append(
                f"the logits of a place are {loss.spread:.3g} apart (standard deviation), which alone makes about "
                f"{loss.spread**2 / 2:.3g} nats"
            )
        usual_here = _drawn_by_its_class(model)
        if usual_here is not None:
            evidence.append(f"{usual_here} draws them so: they are as large in a second one of it")
        yield Finding(
            cause="first_loss",
            title="the first loss of fresh weights is far too high: they are drawn too large"
            if usual_here is None
            else "the first loss of fresh weights is far above ln(vocabulary), as this model draws them",
            evidence=tuple(evidence),
            change="weights drawn with a deviation of 0.02, and those that write into the residual stream smaller "
            "(divided by √(2 layers)); a norm before the output layer"
            if usual_here is None
            else "an output layer drawn smaller, or tied to the embedding: the first steps then unlearn nothing",
            severity="warning" if usual_here is None else "note",
            sure="measured",
            size=above,
            unit="nats",
        )
    elif not told and below > max(NATS_BELOW, BELOW * usual):
        yield Finding(
            cause="first_loss",
            title="the first loss of fresh weights is too low: something tells it what is to come",
            evidence=(f"{loss.mean:.2f} nats, and a model that knows nothing has ln {loss.classes:,} = {usual:.2f}",),
            change="labels that are not shifted, attention that is not causal; or the weights are not fresh",
            sure="measured",
            size=below,
            unit="nats",
        )


def _among_rows(loss: Loss) -> bool:
    """Whether its classes are the batch's own rows, of which each has its own to find: their likeness is no logit of a
    vocabulary, and begins wherever it begins. The targets are then the rows' numbers, or all the same."""
    targets = loss.targets[loss.targets != IGNORED]
    steps = targets[1:] - targets[:-1]
    return len(steps) > 0 and bool((steps == steps[0]).all())


def _drawn_by_its_class(model: nn.Module) -> str | None:
    """The class of a model of transformers, where a second one of its shape, drawn by the class's own measure, has
    weights that are as large: T5's head that is not tied, say, starts with a deviation of 1. Otherwise None."""
    theirs = next((one for one in model.modules() if hasattr(one, "_init_weights") and hasattr(one, "config")), None)
    if theirs is None or sum(p.numel() for p in theirs.parameters()) > LARGEST:
        return None
    try:
        config = copy.deepcopy(theirs.config)
        for name, value in vars(type(config)()).items():
            if name.startswith("init"):  # initializer_range, init_std: somebody may have set them too large
                setattr(config, name, value)
        with torch.random.fork_rng(devices=()):
            again = type(theirs)(config)
    except Exception:  # somebody's class may want more than its config
        return None
    other = dict(again.named_parameters())
    for name, parameter in theirs.named_parameters():
        if parameter.dim() < 2:
            continue
        if name not in other or other[name].shape != parameter.shape:
            return None
        here, there = (float(p.detach().float().std()) for p in (parameter, other[name]))
        if not there / ALIKE <= here <= there * ALIKE:
            return None
    return type(theirs).__name__
