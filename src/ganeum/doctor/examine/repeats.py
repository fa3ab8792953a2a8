"""The same text twice: rows that come again, windows that overlap, held-out rows that are learnt; and sorted rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganeum.doctor.examine.rows import Rows
from ganeum.doctor.examine.watch import Seen
from ganeum.doctor.finding import Finding

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Training

Text = tuple[int, ...]
SHORT = 8  # tokens of a row: shorter ones may be equal by chance
TWICE = 0.25  # of the rows: fewer are alike where rows are drawn from a small set
PIECE = 32  # tokens that two texts have in common at least: fewer may be a phrase
VARIED = 4  # of them different ones, at least: else the text repeats itself
PAIRS = 8  # overlaps, before their distances say anything: by chance all are even once in 256
GROWN, LONGER = 6, 1.5  # batches longer than the one before, by chance once in 5,040; the last beside the first
HELD_OUT = 16  # batches that are compared


def look(
    rows: Sequence[Rows], seen: Seen, training: Training, validation: Iterable[Any] | None = None
) -> Iterator[Finding]:
    """All that the texts of these batches say beside each other."""
    texts = [text for one in rows for text in _texts(one)]
    yield from _twice(texts)
    read = [text for batch in seen.batches for text in _of(batch)]
    yield from _overlaps(read if len(read) > len(texts) else texts)
    yield from _sorted(seen)
    if validation is not None:
        yield from _held_out([_of(batch) for batch in seen.batches], [_of(b) for b in islice(validation, HELD_OUT)])


def _texts(one: Rows) -> Iterator[Text]:
    for row in range(len(one.ids)):
        own = tuple(one.ids[row][one.content[row]].tolist())
        if one.source is not None and one.source_content is not None:
            yield (*one.source[row][one.source_content[row]].tolist(), -1, *own)
        else:
            yield own


def _twice(texts: Sequence[Text]) -> Iterator[Finding]:
    long = [text for text in texts if len(text) >= SHORT]
    again = len(long) - len(set(long))
    if len(long) >= 4 and again >= TWICE * len(long):
        yield Finding(
            cause="repeated_text",
            title=f"{again} of {len(long)} rows are there already",
            evidence=(f"{len(set(long))} different rows in these batches, token by token",),
            change="look at the sampler, at a dataset that is repeated or joined with itself, at a loader that is "
            "made anew and shuffled alike",
            sure="measured",
            size=again / len(long),
            unit="share of the rows",
        )


def _overlaps(texts: Sequence[Text]) -> Iterator[Finding]:
    """Windows that begin within others: next to each other, or at distances that are multiples of a stride."""
    distinct = list(dict.fromkeys(text for text in texts if len(text) >= SHORT))
    if len(distinct) < 4:
        return
    length = max(map(len, distinct))
    anchor = min(PIECE, length // 2)
    begins: dict[Text, list[int]] = {}
    for number, text in enumerate(distinct):
        if len(set(text[:anchor])) >= min(VARIED, anchor):
            begins.setdefault(text[:anchor], []).append(number)
    pairs: dict[tuple[int, int], int] = {}
    for number, text in enumerate(distinct):
        for place in range(1, len(text) - anchor + 1):
            for other in begins.get(text[place : place + anchor], ()):
                if other != number and text[place:] == distinct[other][: len(text) - place]:
                    pairs.setdefault((min(number, other), max(number, other)), place)
    following = sum((number, number + 1) in pairs for number in range(len(distinct) - 1))
    stride = math.gcd(*pairs.values()) if pairs else 0
    in_order = following >= 0.5 * (len(distinct) - 1)
    if stride >= length or not (in_order or (len(pairs) >= PAIRS and stride > 1)):
        return
    yield Finding(
        cause="overlapping_windows",
        title=f"windows of {length} tokens start {stride} apart: an epoch has a token {length / stride:.3g} times",
        evidence=(
            f"{len(pairs)} pairs of the {len(distinct)} rows overlap, all at multiples of {stride}"
            + (", and neighbours in a batch do" if in_order else ""),
        ),
        change="windows that begin where the one before ends, or at random places",
        sure="measured",
        size=length / stride,
        unit="times the steps of an epoch",
    )


def _sorted(seen: Seen) -> Iterator[Finding]:
    """Every batch has longer rows than the one before, or shorter ones."""
    usual = []
    for batch in seen.batches:
        lengths = [len(text) for text in _of(batch)]
        if not lengths:
            return
        usual.append(median(lengths))
    for way, word in ((usual, "longer"), (usual[::-1], "shorter")):
        grown = sum(a < b for a, b in pairwise(way))
        if grown >= GROWN and all(a <= b for a, b in pairwise(way)) and way[-1] >= LONGER * way[0]:
            yield Finding(
                cause="sorted_data",
                title="rows come in the order of their lengths",
                evidence=(
                    f"{len(usual)} batches in a row, none {'shorter' if word == 'longer' else 'longer'} than the one "
                    f"before: {usual[0]:.0f} to {usual[-1]:.0f} tokens a row",
                ),
                change="shuffle; batches of like lengths are fine where the batches themselves come in any order",
                sure="measured",
            )
            return


def _held_out(trained: Sequence[list[Text]], held: Sequence[list[Text]]) -> Iterator[Finding]:
    learnt = {text for batch in trained for text in batch if len(text) >= SHORT}
    kept = [text for batch in held for text in batch if len(text) >= SHORT]
    inside = sum(text in learnt for text in kept)
    pieces = {text[at : at + PIECE] for text in learnt for at in range(0, len(text) - PIECE + 1, PIECE)}
    partly = sum(
        text not in learnt and any(text[at : at + PIECE] in pieces for at in range(len(text) - PIECE + 1))
        for text in kept
    )
    if inside + partly:
        yield Finding(
            cause="validation_overlap",
            title=f"{inside + partly} of {len(kept)} held-out rows are trained on",
            evidence=(
                f"{inside} wholly, {partly} in a piece of {PIECE} tokens, as far as "
                f"{len(trained)} batches of training show",
            ),
            change="split texts, not windows or rows of them; take out what is there twice before it is split",
            severity="error" if inside > 0.1 * len(kept) else "warning",
            sure="measured",
            size=(inside + partly) / len(kept),
            unit="share of the held-out rows",
        )


def _of(batch: Any) -> list[Text]:
    """Rows of a batch that nobody looked at while it was learnt from: its ids, without what its mask leaves out."""
    if hasattr(batch, "micro_batches"):  # ours
        return [text for part in batch.micro_batches(len(batch)) for text in _of(dict(part.inputs))]
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        names = ("input_ids", "tokens", "source_tokens", "inputs", "x", "ids")
        ids = next((batch[name] for name in names if name in batch and isinstance(batch[name], Tensor)), None)
        mask = next((batch[name] for name in ("attention_mask", "segments", "source_mask") if name in batch), None)
        labels = batch["labels"] if "labels" in batch and isinstance(batch["labels"], Tensor) else None
    else:
        tensors = [one for one in (batch if isinstance(batch, (tuple, list)) else [batch]) if isinstance(one, Tensor)]
        ids, mask, labels = next((one for one in tensors if _are_ids(one)), None), None, None
    if ids is None or not _are_ids(ids):
        return []
    ids = ids.detach().cpu()
    keep = torch.ones_like(ids, dtype=torch.bool)
    if isinstance(mask, Tensor) and mask.shape == ids.shape:
        keep = mask.detach().cpu() > 0
    elif labels is not None and labels.shape == ids.shape and bool((labels[:, -1] < 0).any()):
        keep = labels.detach().cpu() >= 0
    else:
        last = ids[:, -1:]
        behind = ((ids == last).flip(1).cumprod(1).sum(1, keepdim=True)) > 2  # filled up with one id
        places = torch.arange(ids.shape[1]) >= ids.shape[1] - (ids == last).flip(1).cumprod(1).sum(1, keepdim=True)
        keep = ~(behind & places)
    return [tuple(row[held].tolist()) for row, held in zip(ids, keep, strict=True)]


def _are_ids(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_floating_point() and tensor.dtype is not torch.bool
