"""A vocabulary of the text's size: rows of embedding and output layer whose ids never occur are taken away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ganeum.doctor.measured import tensors
from ganeum.doctor.measured.acts.applicable import NotApplicable
from ganeum.doctor.measured.acts.attention import configs
from ganeum.doctor.measured.acts.data import Changed, copied, nothing_dropped
from ganeum.doctor.measured.ours import Ours
from ganeum.doctor.measured.training import Training
from ganeum.doctor.measured.untouched import outcome, updaters

FEWEST_ROWS = 1_024  # of an output layer that is worth trimming
SPARE = 2.0  # times as many rows as ids that occur, before it is looked at any closer
FIRST = 8  # ids that are kept in any case: programs name padding and ends by their numbers
PROBED, LOOK_S = 4, 1.5  # batches; seconds in which an epoch is looked through
ONCE = 0.01  # of the ids seen in a part of an epoch: if no more of them occurred once only, the rest holds no others
WRITTEN = ("decoder_input_ids",)


@dataclass(frozen=True)
class Occurring:
    """``ids`` (K,), ascending, of ``rows`` that the output layer has."""

    rows: int
    ids: Tensor


def rows_of(model: nn.Module) -> int | None:
    """Of the output layer: as many as a table has that ids are looked up in."""
    tables = {module.num_embeddings for module in model.modules() if isinstance(module, nn.Embedding)}
    heads = {module.out_features for module in model.modules() if isinstance(module, nn.Linear)}
    return max(tables & heads, default=None)


def occurring(training: Training) -> Occurring | None:
    """The ids that a text has, where they are far fewer than the model has rows for.

    None also where not all of them are known: an epoch takes too long to look through, and of the ids in what was seen
    too many occurred once only, so that the rest of it will hold others (Good 1953, Biometrika 40: the share of what
    was not seen yet is that of what was seen once).
    """
    rows = rows_of(training.model)
    if rows is None or rows < FEWEST_ROWS or isinstance(training, Ours):
        return None
    counts, ended = torch.zeros(rows, dtype=torch.int64), time.monotonic() + LOOK_S
    whole = True
    for place, batch in enumerate(training.batches):
        found = [tensor.flatten() for _, tensor in _ids(batch)]
        if not found:
            return None
        seen = torch.cat(found).cpu()
        if len(seen) and int(seen.max()) >= rows:
            return None
        counts += torch.bincount(seen[seen >= 0], minlength=rows)
        if place + 1 >= PROBED and SPARE * int((counts > 0).sum()) > rows:
            return None
        if time.monotonic() > ended:
            whole = False
            break
    ids = counts.nonzero().flatten()
    known = whole or int((counts == 1).sum()) <= ONCE * len(ids)
    return Occurring(rows, ids) if known and len(ids) and SPARE * len(ids) <= rows else None


def _ids(batch: Any) -> Iterator[tuple[str, Tensor]]:
    """What in a batch is a token's number."""
    known = [one for one in (tensors.ids(batch), tensors.labels(batch)) if one is not None]
    for name, tensor in tensors.each(batch):
        if (name in WRITTEN or any(tensor is one for one in known)) and not tensor.is_floating_point():
            yield name, tensor


def trimmed_vocabulary(training: Training) -> Training:
    """Embedding and output layer have rows for the ids that occur, which are numbered anew in batches and config.

    Cross-entropy becomes a little lower, since the terms of the other rows are gone from its sum: never higher. That is
    looked at on the first batch.

    Raises:
        NotApplicable: most rows are used, or others have as many; or the loss is no longer what it should be.
    """
    if (found := occurring(training)) is None:
        raise NotApplicable("most ids of its vocabulary occur, or not all that occur are known")
    model, rows = training.model, found.rows
    optimizers = updaters(training)
    if any(one.state for one in optimizers):
        raise NotApplicable("the optimizer has begun already")
    named = torch.tensor([*range(min(FIRST, rows)), *(value for _, _, value in _specials(training, rows))])
    kept = torch.unique(torch.cat([found.ids, named]))
    place = torch.zeros(rows, dtype=torch.int64)
    place[kept] = torch.arange(len(kept))

    first = next(iter(training.batches))
    at = next(model.parameters()).device

    def renumbered(batch: Any) -> Any:
        changed = [tensor for _, tensor in _ids(batch)]

        def anew(_name: str, tensor: Tensor) -> Tensor:
            if not any(tensor is one for one in changed):
                return tensor
            new = place.to(tensor.device)[tensor.clamp_min(0).long()].to(tensor.dtype)
            return torch.where(tensor >= 0, new, tensor)

        return tensors.mapped(batch, anew)

    if training.tokens is not None and int(training.tokens(first)) != int(training.tokens(renumbered(first))):
        raise NotApplicable("how many tokens count depends on their numbers")
    with nothing_dropped(training):
        before = outcome(training, copied(first))
        smaller = _trim(model, rows, kept.to(at))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["params"] = [smaller.get(id(parameter), parameter) for parameter in group["params"]]
        for owner, name, value in _specials(training, rows):
            setattr(owner, name, int(place[value]))
        after = outcome(training, renumbered(first))
    if before.loss is not None and not (after.loss is not None and 0 <= after.loss <= before.loss * 1.001):
        raise NotApplicable(f"it is not the same loss: {before.loss} becomes {after.loss}")
    return replace(training, batches=Changed(training.batches, renumbered))


def _specials(training: Training, rows: int) -> list[tuple[Any, str, int]]:
    """Ids that a config or a table knows by their number: owner, attribute, id."""
    owners = [*configs(training.model), *(m for m in training.model.modules() if isinstance(m, nn.Embedding))]
    return [
        (owner, name, value)
        for owner in owners
        for name, value in vars(owner).items()
        if (name.endswith("_token_id") or name == "padding_idx")
        and isinstance(value, int)
        and 0 <= value < rows
        and (name != "padding_idx" or owner.num_embeddings == rows)
    ]


def _trim(model: nn.Module, rows: int, kept: Tensor) -> dict[int, nn.Parameter]:
    """Only the rows ``kept`` (K,) of every table and output layer of ``rows`` → for each parameter that was there, by
    its id(), the one in its place; what was one parameter in two places still is.

    Raises:
        NotApplicable: something else has as many.
    """
    made: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if rows not in tensor.shape:
                continue
            known = isinstance(module, (nn.Embedding, nn.Linear)) and tensor.size(0) == rows
            if not (known or name.endswith("bias")) or list(tensor.shape).count(rows) > 1:
                raise NotApplicable(f"{type(module).__name__}.{name} has {rows} rows or columns, too")
            smaller = tensor.detach().index_select(list(tensor.shape).index(rows), kept)
            if isinstance(tensor, nn.Parameter):
                smaller = made.setdefault(id(tensor), nn.Parameter(smaller, tensor.requires_grad))
            setattr(module, name, smaller)
        for name in ("num_embeddings", "out_features", "vocab_size"):
            if vars(module).get(name) == rows:
                setattr(module, name, len(kept))
    for config in configs(model):
        if getattr(config, "vocab_size", None) == rows:
            config.vocab_size = len(kept)
    return made
