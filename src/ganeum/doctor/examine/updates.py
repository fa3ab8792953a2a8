"""What becomes of gradients: summed up, averaged, cleared, used; and the weights that nothing moves."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from statistics import median
from typing import TYPE_CHECKING

import torch
from torch import nn

from ganeum.doctor.examine.rounded import HALF
from ganeum.doctor.examine.rows import config_of
from ganeum.doctor.examine.seen import IGNORED, Seen, Update
from ganeum.doctor.finding import Finding

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Training

NEAR = 0.1  # of what a sum of gradients would be, to be taken for it
UNEVEN = 2.0  # times as much as another, that a token counts
ENOUGH = 3  # updates: adapters and gates that begin at zero have gradients by then
SMALL = 0.01  # of the trained weights: fewer without a gradient are a leftover
FIXED = re.compile(r"pos|rotary|rope|freq|sinus", re.IGNORECASE)  # names of what is computed once and never learnt
ADAPTERS = re.compile(r"lora_|adapter|prompt_|ia3_|vera_", re.IGNORECASE)
OTHER = 0.03  # of what went backward: a part beside the comparison up to this size is a small addition to it


def look(seen: Seen, training: Training) -> Iterator[Finding]:
    """All that the updates say."""
    yield from _kept(seen, training.model)
    yield from _accumulation(seen)
    yield from _not_finite(seen)
    if seen.steps and not seen.passes and not seen.changed:
        yield Finding(
            cause="never_updated",
            title=f"nothing is learnt in {seen.steps} steps: there is no way back, and no weight changes",
            evidence=("neither backward() nor an optimizer was seen",),
            change="loss.backward() and optimizer.step(); requires_grad_(True) for what is to be learnt",
            severity="error",
            sure="measured",
        )
    if seen.error is None and seen.passes:
        if any(bool((loss.targets != IGNORED).any()) for one in seen.passes for loss in one.losses) or not any(
            one.losses for one in seen.passes
        ):  # where nothing is to be learnt, nothing moves
            yield from _moved(seen, training)
        yield from _modes(seen, training.model)
        yield from _notes(seen, training.model)


def _kept(seen: Seen, model: nn.Module) -> Iterator[Finding]:
    again = [one for one in seen.passes if one.kept]
    held = {key for update in seen.updates for key in update.held}
    if again and any(id(p) in held for p in model.parameters()):  # else it is told that the optimizer has others
        norms = [update.norm for update in seen.updates]
        grown = f": {norms[0]:.3g}, {', '.join(f'{n:.3g}' for n in norms[1:])}" if len(norms) > 1 else ""
        yield Finding(
            cause="gradients_kept",
            title="gradients are never cleared: every update also holds those of all before",
            evidence=(
                f"{len(again)} of {len(seen.passes)} backward passes were added to gradients that an update had used, "
                "and used with them",
                f"the gradient's norm, update by update{grown}",
            ),
            change="optimizer.zero_grad() once for each update",
            severity="error",
            sure="measured",
        )
    lost = sum(one.dropped for one in seen.passes)
    if lost and not seen.scaled:
        yield Finding(
            cause="accumulation",
            title="gradients are cleared before an update has used them",
            evidence=(f"those of {lost} of {len(seen.passes)} micro-batches are thrown away",),
            change="optimizer.zero_grad() after optimizer.step(), not after every micro-batch",
            severity="error",
            sure="measured",
            size=lost / len(seen.passes),
            unit="share of what is computed",
        )


def _accumulation(seen: Seen) -> Iterator[Finding]:
    """Of the mean over a whole batch the weights of all tokens add up to 1."""
    sums, parts = [], []
    for update in seen.updates:
        found = _sum(update)
        if found is not None and not any(one.kept for one in update.passes):
            sums.append(found)
            parts.append(len(update.passes))
    if not sums:
        return
    total, count = median(sums), round(median(parts))
    if abs(total / count - 1) < NEAR:
        yield Finding(
            cause="accumulation",
            title=f"gradients of {count} micro-batches are added up and not averaged",
            evidence=(
                f"what the tokens of an update count adds up to {total:.3g}; of a mean to 1",
                "AdamW hides a constant factor, but clipping then cuts every update, and another number of "
                "micro-batches is another learning rate",
            ),
            change=f"(loss / {count}).backward()",
            sure="measured",
            size=total,
            unit="times the gradient of the mean",
        )
    elif abs(total * count - 1) < NEAR:
        yield Finding(
            cause="accumulation",
            title=f"the loss is divided by the number of micro-batches twice ({count} of them)",
            evidence=(f"what the tokens of an update count adds up to {total:.3g}; of a mean to 1",),
            change="divide once: a Trainer, Accelerate and DeepSpeed do it themselves",
            sure="measured",
            size=total,
            unit="times the gradient of the mean",
        )
    uneven = [ratio for update in seen.updates if (ratio := _uneven(update)) is not None]
    if uneven and median(uneven) > UNEVEN:
        yield Finding(
            cause="accumulation",
            title=f"tokens of one micro-batch count {median(uneven):.2g} times as much as those of another",
            evidence=("each micro-batch's loss is its own mean, however few labels it has",),
            change="the sum of the losses divided by the labels of all micro-batches together (num_items_in_batch)",
            severity="note",
            sure="measured",
        )


def _sum(update: Update) -> float | None:
    """What all tokens of an update count, as its optimizer was handed it; None: it is not known, or its backward passes
    are no micro-batches of one loss."""
    if len(update.passes) < 2 or not _are_alike(update):
        return None
    counts = [_counts(one.losses[0].weights) for one in update.passes if len(one.losses) == 1]
    last = update.passes[-1].norm
    if len(counts) != len(update.passes) or None in counts or not last:
        return None
    whole = math.fsum(sum(some) for some in counts if some)
    return whole * update.norm / last


def _are_alike(update: Update) -> bool:
    """Whether its passes are other rows of one loss: one comparison each, with as many classes, which is all that went
    backward but for a little."""
    if any(len(one.losses) != 1 for one in update.passes):
        return False
    if len({one.losses[0].classes for one in update.passes}) > 1:
        return False
    for one in update.passes:
        loss = one.losses[0]
        if one.value is None or loss.nats is None or loss.weights is None:
            continue
        counted = loss.targets != IGNORED
        told = float((loss.weights * loss.nats)[counted].sum())
        if abs(one.value - told) > OTHER * abs(one.value):
            return False
    ids = [one.embedded[0].ids for one in update.passes if one.embedded]
    return not any(torch.equal(a, b) for a, b in combinations(ids, 2))


def _uneven(update: Update) -> float | None:
    if len(update.passes) < 2 or any(len(one.losses) != 1 for one in update.passes):
        return None
    counts = [_counts(one.losses[0].weights) for one in update.passes]
    typical = [median(some) for some in counts if some]
    return max(typical) / min(typical) if len(typical) == len(update.passes) and min(typical) > 0 else None


def _counts(weights: object) -> list[float] | None:
    found = None if weights is None else weights.tolist()  # type: ignore[attr-defined]
    return None if found is None else [one for one in found if one > 0]


def _not_finite(seen: Seen) -> Iterator[Finding]:
    bad = [name for name, said in seen.gradients.items() if said == "bad"]
    if bad and not seen.scaled:
        yield Finding(
            cause="loss_nan",
            title=f"gradients of {len(bad)} of {len(seen.gradients)} parameters are not finite",
            evidence=(f"the first of them: {bad[0]}",),
            change="look at that layer's input; a lower learning rate; bf16 instead of fp16",
            severity="error",
            sure="measured",
        )


def _moved(seen: Seen, training: Training) -> Iterator[Finding]:
    """Weights that no update moves, and why."""
    model = training.model
    named = {name: p for name, p in model.named_parameters() if p.numel()}  # in parts elsewhere, they are empty here
    learnt = {name: p for name, p in named.items() if p.requires_grad}
    if not learnt:
        return
    if not seen.updates:
        if seen.changed:  # by hand
            return
        yield Finding(
            cause="never_updated",
            title=f"no update in {seen.steps} steps",
            evidence=("no optimizer took a step while gradients were computed",),
            change="optimizer.step() in every step"
            if not seen.scaled
            else "the loss scale is still too high, or gradients are never finite: look at scaler.get_scale()",
            severity="note" if seen.scaled else "error",
            sure="measured",
        )
        return
    held: dict[int, tuple[float, float]] = {}
    for update in seen.updates:
        for key, (rate, decay) in update.held.items():
            held[key] = (max(rate, held.get(key, (0.0, 0.0))[0]), decay)
    size = sum(p.numel() for p in learnt.values())
    still = {name: p for name, p in learnt.items() if name not in seen.changed}
    outside = {n for n, p in still.items() if id(p) not in held and seen.gradients.get(n) != "none"}
    copies = {shape for update in seen.updates for shape in update.copies}
    outside = {n for n in outside if not (named[n].dtype in HALF and _is_copied(named[n], copies))}
    resting = {n for n, p in still.items() if id(p) in held and held[id(p)][0] == 0}
    strangers = len(set(held) - {id(p) for p in model.parameters()})
    if outside:
        why = f"it holds {strangers} that are none of this model's: it was made before these were"
        yield _never(
            f"the optimizer does not hold {len(outside)} of {len(learnt)} parameters", outside, named, size,
            why if strangers else "they have gradients, and nothing uses them",
            "torch.optim.AdamW(model.parameters()) behind everything that replaces a parameter",
        )  # fmt: skip
    if resting:
        whole = len(resting) == len(still) and not seen.changed
        yield _never(
            "the learning rate is 0" if whole else f"the learning rate of {len(resting)} parameters is 0",
            resting, named, size, f"in all {len(seen.updates)} updates",
            "look at the schedule: its warm-up, its number of steps, scheduler.step() called more often than it counts",
        )  # fmt: skip
    last = _last(learnt, seen)
    cut = {n for n in still if seen.gradients.get(n, "none") == "none" and _place(n, seen) in range(last)}
    shared = sum(named[n].numel() for n in cut)
    if cut and shared > SMALL * size:
        yield _never(
            f"no gradient reaches {len(cut)} of {len(learnt)} parameters that take part", cut, named, size,
            "their modules are computed with in every step, and the way back to them is cut",
            "look for detach(), no_grad(), .data or .item() behind them; with checkpointing use_reentrant=False, or "
            "model.enable_input_require_grads()",
        )  # fmt: skip
    empty = {n for n in learnt if seen.gradients.get(n) == "zero" and id(named[n]) in held}
    if len(seen.updates) >= ENOUGH and sum(named[n].numel() for n in empty) > SMALL * size:
        yield _never(
            f"the gradients of {len(empty)} of {len(learnt)} parameters are zero", empty, named, size,
            f"in all {len(seen.updates)} updates, exactly: something multiplies them by 0, or sets them so",
            "look for hooks on gradients, for gates that are shut, for what runs between backward() and step()",
        )  # fmt: skip
    idle = {n for n in still if seen.gradients.get(n, "none") == "none"} - cut
    if idle or (cut and shared <= SMALL * size):
        yield Finding(
            cause="never_updated",
            title=f"{len(idle | cut)} parameters take part in nothing here",
            evidence=(_listed(idle | cut), "experts that no token was sent to, heads whose output is not used"),
            severity="note",
            sure="measured",
        )
    yield from _frozen(named, learnt, training)


def _is_copied(p: nn.Parameter, copies: set[tuple[int, ...]]) -> bool:
    """Whether an optimizer may hold it in fp32: by itself, or in one long row with others."""
    return tuple(p.shape) in copies or any(len(one) == 1 and one[0] > p.numel() for one in copies)


def _frozen(named: dict[str, nn.Parameter], learnt: dict[str, nn.Parameter], training: Training) -> Iterator[Finding]:
    frozen = {n: p for n, p in named.items() if not p.requires_grad and p.is_floating_point() and not FIXED.search(n)}
    if not frozen or any(ADAPTERS.search(name) for name in learnt):
        return
    share = sum(p.numel() for p in frozen.values()) / sum(p.numel() for p in named.values())
    if training.fresh and share > SMALL:
        yield Finding(
            cause="never_updated",
            title=f"{len(frozen)} parameters with fresh weights are frozen: they stay as they were drawn",
            evidence=(f"{share:.0%} of the weights; {_listed(frozen)}",),
            change="requires_grad_(True), or trained weights for what is to be frozen",
            sure="measured",
            size=share,
            unit="share of the weights",
        )
    else:
        yield Finding(
            cause="never_updated",
            title=f"{len(frozen)} parameters are frozen",
            evidence=(f"{share:.0%} of the weights; {_listed(frozen)}",),
            severity="note",
            sure="measured",
        )


def _place(name: str, seen: Seen) -> int:
    """When the module of a parameter took part first; −1: never."""
    module = name.rpartition(".")[0]
    return list(seen.called).index(module) if module in seen.called else -1


def _last(learnt: Iterable[str], seen: Seen) -> int:
    """Of the modules with gradients the last: what comes behind it, a pooler say, is computed and not used."""
    return max((_place(n, seen) for n in learnt if seen.gradients.get(n, "none") != "none"), default=len(seen.called))


def _never(title: str, names: set[str], named: dict[str, nn.Parameter], size: int, why: str, change: str) -> Finding:
    share = sum(named[name].numel() for name in names) / size
    return Finding(
        cause="never_updated",
        title=title,
        evidence=(f"{share:.0%} of what is to be learnt; {_listed(names)}", why),
        change=change,
        severity="error",
        sure="measured",
        size=share,
        unit="share of the weights",
    )


def _listed(names: Iterable[str]) -> str:
    """The first of them, layers of one kind once."""
    kinds = list(dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name) for name in sorted(names)))
    return ", ".join(kinds[:4]) + (f" and {len(kinds) - 4} other kinds" if len(kinds) > 4 else "")


def _modes(seen: Seen, model: nn.Module) -> Iterator[Finding]:
    if any(one.in_training is False for one in seen.passes) and (rate := _dropout(model)):
        yield Finding(
            cause="eval_mode",
            title="the model is in evaluation mode while it trains: its dropout is off",
            evidence=(f"dropout of {rate:g} is configured; from_pretrained() returns a model in evaluation mode",),
            change="model.train() before the loop, and after every evaluation",
            sure="measured",
        )


def _dropout(model: nn.Module) -> float:
    rates = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    config = config_of(model)
    if config is not None and not rates:
        named = (v for k, v in vars(config).items() if k.endswith(("dropout", "_drop", "pdrop")))
        rates = [value for value in named if isinstance(value, float)]
    return max((float(rate) for rate in rates), default=0.0)


def _notes(seen: Seen, model: nn.Module) -> Iterator[Finding]:
    if any(one.autocast for one in seen.passes):
        yield Finding(
            cause="autocast_backward",
            title="the backward pass runs under autocast",
            evidence=("torch advises against it: what it casts there, it casts for nothing",),
            change="loss.backward() behind the `with torch.autocast(…)`",
            severity="note",
            sure="measured",
        )
    flat = {id(p) for p in model.parameters() if p.ndim < 2}
    decayed = {key for update in seen.updates for key, (_, decay) in update.held.items() if decay and key in flat}
    if decayed:
        yield Finding(
            cause="decay_on_norms",
            title=f"weight decay also draws {len(decayed)} norms and biases to zero",
            evidence=("norms are centred on 1; most recipes leave out whatever has one dimension",),
            change="two groups for the optimizer: weight_decay=0 for parameters with fewer than two dimensions",
            severity="note",
            sure="measured",
        )
