"""What the model sees: padding that it was not told of, tokens that it is to predict, ids by its own behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ganeum.doctor.examine.again import again, only
from ganeum.doctor.examine.rows import Known, Rows
from ganeum.doctor.examine.seen import Seen
from ganeum.doctor.finding import Finding

NOISE = 20  # times what the same row computed alone differs by
EXACT, ROUNDED = 2e-3, 5e-2  # of the logits' own deviation: more than rounding makes, in fp32 and in 16 bits
STRONG = 0.05  # of it: no rounding, and no small matter
WHOLE = 0.8  # of a row's places
DROPPED = 0.75  # a rate of dropout, from here on looked at
CHANCE = 0.8  # of the logits' variance: what dropout may make of it
NOT_READ = (TypeError, ValueError, RuntimeError, IndexError, KeyError, AttributeError, AssertionError)


def look(rows: Sequence[Rows], seen: Seen, known: Known, model: nn.Module) -> Iterator[Finding]:
    """All that the model's own answers say."""
    if seen.error is not None:
        return
    mask = list(_mask(rows, known))
    yield from mask
    yield from _dropout(rows, seen)
    for test in (_leak, _mixed, *([] if mask else [_padding])):
        for one in rows if test is _padding else rows[:1]:
            try:
                found = test(one, model)
            except NOT_READ:  # this model cannot be asked so
                continue
            if found is not None:
                yield found
                break


def _mask(rows: Sequence[Rows], known: Known) -> Iterator[Finding]:
    """A mask that hides the text, or all of it."""
    for one in rows:
        for ids, mask in ((one.ids, one.mask), (one.source, one.source_mask)):
            if ids is None or mask is None or bool(mask.all()):
                continue
            text = ids != known.pad if known.pad is not None else None
            nothing = not bool(mask.any())
            if nothing or (text is not None and bool((mask != text).float().mean() > 0.9) and bool((~text).any())):
                yield Finding(
                    cause="wrong_mask",
                    title="the attention mask hides everything" if nothing else "the attention mask is turned around",
                    evidence=("it is 0 in every place",)
                    if nothing
                    else ("it is 1 on padding and 0 on the text: 1 is what transformers call a place that is seen",),
                    change="1 for text and 0 for padding; True means the opposite in torch's key_padding_mask",
                    severity="error",
                    sure="measured",
                )
                return


def _dropout(rows: Sequence[Rows], seen: Seen) -> Iterator[Finding]:
    """What the model says of the same tokens twice, as it trains: hardly the same."""
    if seen.dropped < DROPPED or not rows or rows[0].call is None:
        return
    one, call = rows[0], rows[0].call
    shape = (one.ids.shape[0], one.ids.shape[1])
    try:
        first, other = (again(call, shape, drawn=seed) for seed in (1, 2))
    except NOT_READ:  # this model cannot be asked so
        return
    if first is None or other is None:
        return
    first, other = (said[one.content[:, : said.shape[1]]] for said in (first, other))
    chance = float((first - other).square().mean() / 2 / first.var())
    if not chance > CHANCE:
        return
    yield Finding(
        cause="learning",
        title=f"dropout of {seen.dropped:g} leaves next to nothing of the text",
        evidence=(
            f"the same tokens twice, as it trains: {chance:.0%} of the variance of its logits is chance",
            f"torch's number is what is dropped; elsewhere, as keep_prob, {seen.dropped:g} is what is kept",
        ),
        change=f"dropout of {1 - seen.dropped:.2g}, or less: 0 to 0.1 is usual where no text is learnt often",
        sure="measured",
        size=chance,
        unit="of the logits' variance",
    )


def _leak(one: Rows, model: nn.Module) -> Finding | None:
    """Other tokens from some place on: what is predicted before it must stay the same."""
    if one.offset != 1 or one.call is None:
        return None
    row = int(one.counted.sum(1).argmax())
    places = one.counted[row].nonzero()[:, 0]
    if len(places) < 2:
        return None
    before = places[: min(8, len(places) // 2)]
    ids = one.ids.clone()
    after = int(before[-1]) + 1
    others = ids[row, after:] + 1 + torch.arange(ids.shape[1] - after) % 3
    ids[row, after:] = others % min(one.decoder.rows, int(ids.max()) + 2)
    shape = (ids.shape[0], ids.shape[1])
    first, other = again(one.call, shape), again(one.call, shape, place=one.decoder.place, ids=ids)
    if first is None or other is None:
        return None
    size = float(first[row].std())
    # The last of them has the next token behind it, which is what it is to predict.
    differs = float((first[row, before] - other[row, before]).abs().mean(-1).max())
    if not differs > (EXACT if _is_fp32(model) else ROUNDED) * size > 0:  # also where any of them is nan
        return None
    same = again(one.call, shape)  # a model that keeps something from call to call says something else each time
    if same is None or differs < NOISE * float((first[row, before] - same[row, before]).abs().mean(-1).max()):
        return None
    return Finding(
        cause="causal_leak",
        title="the model sees the tokens that it is to predict",
        evidence=(
            f"other tokens from place {after} on change what it says before it, by {differs / size:.0%} of the logits' "
            "own deviation; by nothing, if attention were causal",
            "its loss falls to almost nothing, and it cannot write",
        ),
        change="is_causal=True, or a mask that hides every later token",
        severity="error",
        sure="measured",
    )


def _mixed(one: Rows, model: nn.Module) -> Finding | None:
    """Other tokens in the first row: what is predicted in the others must stay the same."""
    if one.offset != 1 or one.call is None or len(one.ids) < 2:
        return None
    ids = one.ids.clone()
    ids[0] = torch.where(one.content[0], (ids[0] + 1) % min(one.decoder.rows, int(ids.max()) + 1), ids[0])
    shape = (ids.shape[0], ids.shape[1])
    first, other = again(one.call, shape), again(one.call, shape, place=one.decoder.place, ids=ids)
    same = again(one.call, shape)  # a model that keeps something from call to call says something else each time
    if first is None or other is None or same is None:
        return None
    places = one.content[0, : first.shape[1]]
    size = float(first.std())
    differs, noise = ((first[1:] - said[1:]).abs().mean(-1) for said in (other, same))
    more = (EXACT if _is_fp32(model) else ROUNDED) * size
    changed = ((differs > more) & (differs > NOISE * noise))[:, places].float().mean(1)
    if not float(changed.max()) > WHOLE:  # experts with a limit may leave out other tokens, some of them
        return None
    rows = int((changed > WHOLE).sum())
    return Finding(
        cause="causal_leak",
        title="what the model says of a text depends on the other texts of its batch",
        evidence=(
            f"other tokens in the first row change the logits of {rows} of {len(ids) - 1} other rows, by up to "
            f"{float(differs.max()) / size:.0%} of their own deviation",
            "rows and places are taken for each other: it attends, or goes on, from row to row",
        ),
        change="batch_first=True in nn.LSTM, nn.MultiheadAttention, nn.Transformer…, which take (T, B, C) without it; "
        "look at each transpose() and view()",
        severity="error",
        sure="measured",
    )


def _padding(one: Rows, model: nn.Module) -> Finding | None:
    """A row alone without its padding: the model must say the same of its text."""
    encoded = one.source is not None
    ids, content = (one.source, one.source_content) if encoded else (one.ids, one.content)
    if ids is None or content is None or one.call is None or bool(content.all()):
        return None
    empty = (~content).sum(1)
    empty[content.sum(1) < 2] = 0
    row = int(empty.argmax())
    if not empty[row]:
        return None
    b, t = ids.shape
    keep = content[row]
    if encoded and t == one.ids.shape[1] and one.call.args:
        return None  # which arguments are the encoder's cannot be told
    names = _of_encoder if encoded else _any
    out = (1, one.ids.shape[1])
    whole = again(one.call, (b, one.ids.shape[1]))
    alone = again(one.call, out, cut=only(row, b, t, None, names))
    bare = again(one.call, (1, out[1] if encoded else int(keep.sum())), cut=only(row, b, t, keep, names))
    if whole is None or alone is None or bare is None:
        return None
    counts = one.counted[row][: alone.shape[1]] if encoded else keep[: alone.shape[1]]
    if not bool(counts.any()):
        return None
    mine = bare[0] if not encoded else bare[0][counts]
    text, reference = alone[0][counts], whole[row][counts]
    mine = mine[: len(text)]
    size, noise = float(reference.std()), float((text - reference).abs().mean())
    differs = float((text - mine).abs().mean())
    if not differs > max(NOISE * noise, (EXACT if _is_fp32(model) else ROUNDED) * size) > 0:
        return None
    left = not bool(keep[0])
    mask = one.source_mask if encoded else one.mask
    untold = mask is None or bool(mask.all())
    if untold:
        told = "its attention mask is 1 everywhere" if mask is not None else "no attention mask was given"
    else:
        told = "its mask hides padding, but " + ("its positions count it" if left else "not all of it")
    return Finding(
        cause="padding_side" if left else "wrong_mask",
        title="padding on the left changes what the model computes of a text"
        if left
        else "padding changes what the model computes of a text",
        evidence=(
            f"a row of {int(keep.sum())} tokens and {int(empty[row])} places of padding: without these the logits of "
            f"the same tokens differ by {differs / size:.0%} of their own deviation",
            told,
        ),
        change='tokenizer.padding_side = "right" for training, or position_ids that begin where the text does'
        if left
        else "attention_mask of the collator handed to the model",
        severity="error" if differs > STRONG * size else "warning",
        sure="measured",
    )


def _any(name: str) -> bool:
    return True


def _of_encoder(name: str) -> bool:
    return not name.startswith(("decoder_", "target_", "labels"))


def _is_fp32(model: nn.Module) -> bool:
    first: Tensor | None = next(iter(model.parameters()), None)
    return first is None or first.dtype in (torch.float32, torch.float64)
