"""What a micro-batch was, as rows: ids, what is to follow each, which of that counts, and where a text ends in its row.

Shapes: B = rows, T = places in each, S = places of an encoder's rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ganeum.doctor.examine.seen import IGNORED, Call, Embedded, Loss, Pass

if TYPE_CHECKING:
    from ganeum.doctor.measured.training import Training

FEW_ROWS = 8  # a table of fewer is no vocabulary
RUN = 3  # places in a row with one id, before it is taken for padding that nobody named
OFFSETS = (1, 0, 2, -1, 3)


@dataclass(frozen=True)
class Known:
    """Ids that mean something, as far as the tokenizer or the model's config says; ``size``: the tokenizer's ids.
    ``named``: whether the tokenizer itself says which id is padding."""

    pad: int | None = None
    ends: frozenset[int] = frozenset()
    begin: int | None = None
    unknown: int | None = None
    size: int | None = None
    named: bool = False
    encoder_decoder: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """A micro-batch.

    Attributes:
        ids: (B, T) that the model, or its decoder, was given.
        targets: (B, T) what each place is compared with, ``IGNORED`` where it is not.
        counted: (B, T) bool, the places whose comparison has an effect on the gradient.
        loss: the comparison itself.
        decoder: which call of an embedding looked ``ids`` up.
        mask: (B, T) bool, what the model was told of padding; None: nothing.
        content: (B, T) bool, places that hold text, as far as that can be known.
        pad: the id that fills the others; None: none is known.
        source, source_mask, source_content: (B, S) the same of an encoder.
        offset: ``targets`` are ``ids`` so many places on; None: they are something else.
    """

    ids: Tensor
    targets: Tensor
    counted: Tensor
    loss: Loss
    decoder: Embedded
    mask: Tensor | None
    content: Tensor
    pad: int | None
    source: Tensor | None = None
    source_mask: Tensor | None = None
    source_content: Tensor | None = None
    offset: int | None = None
    call: Call | None = None


def known_ids(training: Training) -> Known:
    """From the tokenizer, and where it is silent from the model's config."""
    tokenizer, config = training.tokenizer, config_of(training.model)
    ends = [_ids(getattr(place, "eos_token_id", None)) for place in (tokenizer, config)]
    own_pad = _id(getattr(tokenizer, "pad_token_id", None))
    pad = own_pad if own_pad is not None else _id(getattr(config, "pad_token_id", None))
    try:
        size = len(tokenizer) if tokenizer is not None else None
    except TypeError:
        size = None
    return Known(
        pad=pad,
        ends=frozenset(ends[0] or ends[1]),
        begin=_id(getattr(tokenizer, "bos_token_id", None)),
        unknown=_id(getattr(tokenizer, "unk_token_id", None)),
        size=size,
        named=own_pad is not None,
        encoder_decoder=bool(getattr(config, "is_encoder_decoder", False)),
    )


def config_of(model: nn.Module) -> Any:
    """transformers' config of a model, also of a wrapped one; None of others."""
    for _ in range(4):
        config = getattr(model, "config", None)
        if config is not None and hasattr(config, "eos_token_id"):
            return config
        inside = [getattr(model, name, None) for name in ("_orig_mod", "module", "model")]
        inner = next((one for one in inside if isinstance(one, nn.Module)), None)
        if inner is None:
            return None
        model = inner
    return None


def rows_of(seen: Pass, known: Known) -> Rows | None:
    """A micro-batch as rows; None where what was compared cannot be laid beside what was given."""
    first = None
    for loss in sorted(seen.losses, key=lambda one: -len(one.targets)):
        for decoder in _decoders(seen, loss):
            laid = _laid(loss, decoder.ids)
            if laid is None:
                continue
            rows = _rows(seen, known, loss, decoder, *laid)
            if rows.offset == 1:  # where several tokens ahead are predicted, by a loss each, the next one is the text's
                return rows
            first = first or rows
            break
    return first


def _rows(seen: Pass, known: Known, loss: Loss, decoder: Embedded, targets: Tensor, counted: Tensor) -> Rows:
    ids, given = decoder.ids, seen.call.kwargs if seen.call is not None else {}
    before = [e for e in _tables(seen) if e.place < decoder.place and e.ids.ndim == 2 and len(e.ids) == len(ids)]
    source = before[0].ids if before and (known.encoder_decoder or "source_tokens" in given) else None
    own = "decoder_attention_mask" if source is not None else "attention_mask"
    mask = _mask(given, (own, *(("segments",) if source is None else ("target_segments",))), ids)
    pad = _padding(ids, mask, known)
    content = _content(ids, mask, pad, leading=source is None)
    source_mask = source_content = None
    if source is not None:
        source_mask = _mask(given, ("attention_mask", "source_mask", "source_segments"), source)
        source_content = _content(source, source_mask, _padding(source, source_mask, known), leading=True)
    offset = _offset(ids, targets, counted & (targets != (IGNORED if pad is None else pad)))
    return Rows(
        ids, targets, counted, loss, decoder, mask, content, pad, source, source_mask, source_content, offset, seen.call
    )  # fmt: skip


def _tables(seen: Pass) -> list[Embedded]:
    """Those that are asked for ids of a vocabulary: not for places, which follow each other, nor for a few kinds."""
    return [e for e in seen.embedded if e.rows >= FEW_ROWS and e.ids.ndim == 2 and not _places(e.ids)]


def _places(ids: Tensor) -> bool:
    """Whether they count up, and stand still on padding."""
    steps = ids[:, 1:] - ids[:, :-1]
    follow, stay = ((steps == by).float().mean() if steps.numel() else 0.0 for by in (1, 0))
    return bool(follow > 0.3 and follow + stay > 0.95)


def _decoders(seen: Pass, loss: Loss) -> Iterator[Embedded]:
    """Tables whose ids can be what the targets belong to: the vocabulary's first, and the last of several."""
    fits = [e for e in _tables(seen) if _laid(loss, e.ids) is not None]
    yield from sorted(fits, key=lambda e: (e.rows != loss.classes, -e.place))


def _laid(loss: Loss, ids: Tensor) -> tuple[Tensor, Tensor] | None:
    """Targets and what counts of them, (B, T) both, where there are as many as ids, or one fewer in each row."""
    b, t = ids.shape
    targets = loss.targets
    counted = targets != IGNORED
    if loss.weights is not None:
        counted &= loss.weights.abs() > 0
    if targets.numel() == b * t:
        return targets.view(b, t), counted.view(b, t)
    if t > 1 and targets.numel() == b * (t - 1):
        last = torch.full((b, 1), IGNORED)
        return torch.cat((targets.view(b, t - 1), last), 1), torch.cat((counted.view(b, t - 1), last > 0), 1)
    return None


def _offset(ids: Tensor, targets: Tensor, counted: Tensor) -> int | None:
    """How many places on the targets' ids stand."""
    t = ids.shape[1]
    best: tuple[float, int | None] = (0.0, None)
    for offset in OFFSETS:
        if abs(offset) >= t:
            continue
        here = slice(max(0, -offset), t - max(0, offset))
        there = slice(max(0, offset), t + min(0, offset))
        counts = counted[:, here]
        if int(counts.sum()) == 0:
            continue
        share = float((targets[:, here] == ids[:, there])[counts].float().mean())
        if share > best[0] + 0.3:  # the first is the usual one: texts that repeat themselves fit to several
            best = share, offset
    return best[1] if best[0] >= 0.9 else None


def _mask(given: Mapping[str, Any], names: tuple[str, ...], ids: Tensor) -> Tensor | None:
    for name in names:
        mask = given.get(name)
        if isinstance(mask, Tensor) and mask.shape == ids.shape:
            return mask.detach().cpu() > 0
    return None


def _padding(ids: Tensor, mask: Tensor | None, known: Known) -> int | None:
    """The id that fills rows: the one under the mask, the one that is named, or one that several rows end in."""
    if (filled := _filled(ids, mask)) is not None:
        return filled
    if known.pad is not None:
        return known.pad
    runs: dict[int, list[int]] = {}
    for row in ids:
        length = _run(row, int(row[-1]))
        if RUN <= length < len(row):
            runs.setdefault(int(row[-1]), []).append(length)
    for fill, lengths in runs.items():
        if len(lengths) >= max(2, len(ids) // 3) and len(set(lengths)) > 1:
            return fill
    return None


def _filled(ids: Tensor, mask: Tensor | None) -> int | None:
    """The one id that stands wherever the mask has nothing; None: there are several, or no such places."""
    if mask is None or bool(mask.all()) or not bool(mask.any()):
        return None
    [(most, count)] = Counter(ids[~mask].tolist()).most_common(1)
    return int(most) if count > 0.9 * int((~mask).sum()) else None


def _content(ids: Tensor, mask: Tensor | None, pad: int | None, *, leading: bool) -> Tensor:
    """By the mask; else without what fills the row's end, and where rows may be filled from the left its beginning."""
    if mask is not None and _filled(ids, mask) is not None:
        return mask
    content = torch.ones_like(ids, dtype=torch.bool)
    if pad is None:
        return content
    for row, holds in zip(ids, content, strict=True):
        behind = _run(row, pad)
        if behind:
            holds[len(row) - behind :] = False
        elif leading and (before := _run(row.flip(0), pad)) > 1:
            holds[:before] = False
    return content


def _run(row: Tensor, value: int) -> int:
    """Places at the end that hold it."""
    other = (row != value).nonzero()
    return len(row) if not len(other) else len(row) - 1 - int(other[-1])


def _ids(value: Any) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(one for one in value if isinstance(one, int))
    return (value,) if isinstance(value, int) else ()


def _id(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
