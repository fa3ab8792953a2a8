"""The same text twice: rows that come again, windows that overlap, held-out rows that are learnt; and sorted rows."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ganeum.doctor.examine.rows import Rows
from ganeum.doctor.examine.seen import Seen
from ganeum.doctor.examine.watch import READ_S
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
HELD_OUT, HELD_ROWS = 16, 512  # batches that are compared, and rows of each
READ_TOKENS = 2_000_000  # that they are compared with
PHRASES = 0.1  # of the held-out rows: so many have a passage in common with others, a licence say, without any leak
TEMPLATE = 3  # rows that hold a piece: what more of them have is what their template says


def look(
    rows: Sequence[Rows], seen: Seen, training: Training, validation: Iterable[Any] | None = None
) -> Iterator[Finding]:
    """All that the texts of these batches say beside each other."""
    texts = [text for one in rows for text in _texts(one)]
    yield from _twice(texts)
    read = [text for batch in seen.batches for text in _of(batch)]
    yield from _overlaps(read if len(read) > len(texts) else texts)
    yield from _sorted(seen)
    if seen.error is None:
        yield from _held_out(seen, training, [] if validation is None else validation)


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


def _held_out(seen: Seen, training: Training, validation: Iterable[Any]) -> Iterator[Finding]:
    """Rows of these, and pieces of them, among all that can be read of the training's in a few seconds."""
    given = list(islice(validation, HELD_OUT))
    kept = [text for batch in given for text in _of(batch, HELD_ROWS) if len(text) >= SHORT]
    if not given:
        yield Finding(
            cause="no_validation",
            title="nothing is held out: learning by heart would look like learning",
            evidence=("no batches are known here that are not trained on",),
            change="a part of the text that is never trained on; of your own, Training(validation=its batches)",
            severity="note",
            sure="read",
        )
    if not kept:
        return
    learnt, read = _learnt(seen, training)
    whole = [text in learnt for text in kept]
    common: Counter[Text] = Counter()
    for text in learnt:
        common.update({text[at : at + PIECE] for at in range(0, len(text) - PIECE + 1, PIECE)})
    most = max(TEMPLATE, len(learnt) // 50)
    pieces = {piece for piece, count in common.items() if count <= most and len(set(piece)) >= VARIED}
    partly = sum(
        not found and any(text[at : at + PIECE] in pieces for at in range(len(text) - PIECE + 1))
        for text, found in zip(kept, whole, strict=True)
    )
    inside = sum(whole)
    if inside + partly:
        shared = not inside and partly <= PHRASES * len(kept)
        yield Finding(
            cause="validation_overlap",
            title=f"{inside + partly} of {len(kept)} held-out rows are trained on"
            if not shared
            else f"{partly} of {len(kept)} held-out rows have a passage that is trained on",
            evidence=(
                f"{inside} wholly, {partly} in a piece of {PIECE} tokens, as far as {read} batches of training show",
            ),
            change=""
            if shared
            else "split texts, not windows or rows of them; take out what is there twice before it is split",
            severity="note" if shared else "error" if inside > 0.1 * len(kept) else "warning",
            sure="measured",
            size=(inside + partly) / len(kept),
            unit="share of the held-out rows",
        )


def _learnt(seen: Seen, training: Training) -> tuple[set[Text], int]:
    """Different rows that are trained on, and how many batches were read: more than were stepped on, where they can
    be iterated anew."""
    learnt = {text for batch in seen.batches for text in _of(batch) if len(text) >= SHORT}
    read, until = len(seen.batches), time.monotonic() + READ_S
    if iter(training.batches) is training.batches:
        return learnt, read
    tokens = 0
    for number, batch in enumerate(training.batches, start=1):
        if number <= len(seen.batches):
            continue
        new = [text for text in _of(batch) if len(text) >= SHORT]
        learnt.update(new)
        read, tokens = number, tokens + sum(map(len, new))
        if tokens > READ_TOKENS or time.monotonic() > until:
            break
    return learnt, read


def _of(batch: Any, most: int | None = None) -> list[Text]:
    """Texts of a batch that nobody looked at while it was learnt from: its ids, without what fills its rows, and those
    of packed rows apart; of ``most`` rows."""
    if hasattr(batch, "micro_batches"):  # ours
        whole = batch if most is None else batch.first(most)
        parts = list(whole.micro_batches(len(whole)))
        return [text for part in parts for text in _of({**part.inputs, "labels": part.targets})]
    mask = labels = numbers = None
    if isinstance(batch, Mapping) or hasattr(batch, "keys"):
        ids = _named(batch, "input_ids", "tokens", "source_tokens", "inputs", "x", "ids")
        mask = _named(batch, "attention_mask", "segments", "source_segments", "source_mask")
        labels, numbers = _named(batch, "labels"), _named(batch, "segments", "source_segments")
    else:
        tensors = [one for one in (batch if isinstance(batch, (tuple, list)) else [batch]) if isinstance(one, Tensor)]
        ids = next((one for one in tensors if _are_ids(one)), None)
    if ids is None or not _are_ids(ids):
        return []
    ids = ids[:most].detach().cpu()
    if mask is not None and mask[:most].shape == ids.shape:
        keep = mask[:most].detach().cpu() > 0
    elif labels is not None and labels[:most].shape == ids.shape and bool((labels[:most, -1] < 0).any()):
        ignored = labels[:most].detach().cpu() < 0
        keep = ~ignored.flip(1).cumprod(1).bool().flip(1)  # up to the last that counts
    else:
        filled = (ids == ids[:, -1:]).flip(1).cumprod(1).flip(1)  # the end of a row, as long as it is one id
        keep = ~(filled.bool() & (filled.sum(1, keepdim=True) > 2))
    if numbers is not None and numbers[:most].shape == ids.shape:
        numbers = numbers[:most].detach().cpu()
        return [
            tuple(row[held & (number == one)].tolist())
            for row, held, number in zip(ids, keep, numbers, strict=True)
            for one in number[held].unique().tolist()
        ]
    return [tuple(row[held].tolist()) for row, held in zip(ids, keep, strict=True)]


def _named(batch: Any, *names: str) -> Tensor | None:
    return next((batch[name] for name in names if name in batch and isinstance(batch[name], Tensor)), None)


def _are_ids(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_floating_point() and tensor.dtype is not torch.bool
