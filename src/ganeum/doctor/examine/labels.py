"""What the loss compares: padding that counts, an end that never does, targets that are moved too far or not at all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from ganeum.doctor.examine.rows import Known, Rows
from ganeum.doctor.examine.seen import IGNORED, Seen
from ganeum.doctor.finding import Finding

SOME = 0.01  # of what counts: padding below it is an end that is learnt, or a text that happens to end so
NOTHING = 0.2  # of the rows: a few that were cut in their question are usual
MOST = 0.9
SHOWN, MASKED = 0.5, 0.7  # of the labels, that are read in their place; of the others, that stand on one token
RESIZE = "model.resize_token_embeddings(len(tokenizer))"
FEW = 2  # rows that end within a batch, before anything is said about ends
ENDLESS, KINDS = 8, 4  # texts that end without an end, and different tokens that they end in: before it is an alarm
TEXT = 8  # labels of a row: fewer are an answer that nobody reads on behind


def look(rows: Sequence[Rows], seen: Seen, known: Known) -> Iterator[Finding]:
    """All that labels say."""
    yield from _beyond(seen)
    yield from _probabilities(seen)
    yield from _ends(rows, known)
    yield from _padding(rows)
    yield from _offset(rows)
    yield from _shown(rows)
    yield from _nothing(rows, seen)
    yield from _tokenizer(rows, known)


def _beyond(seen: Seen) -> Iterator[Finding]:
    for which, worst, count in dict.fromkeys(seen.beyond):
        title, change = {
            "logits": (f"a label is {worst:,}, and the model has {count:,} classes", f"{RESIZE}; -100 to ignore one"),
            "ids": (f"an id is {worst:,}, and its table has {count:,} rows", RESIZE),
            "places": (
                f"a row has {worst + 1:,} places, and the model has {count:,}",
                f"truncation=True with max_length={count} in the tokenizer, or more positions in the model",
            ),
        }[which]
        yield Finding(
            cause="vocabulary",
            title=title,
            evidence=("on a GPU this is `device-side assert triggered`, on a CPU an IndexError",),
            change=change,
            severity="error",
            sure="measured",
        )
        return  # one is enough: the others follow from it


def _probabilities(seen: Seen) -> Iterator[Finding]:
    losses = [loss for one in seen.passes for loss in one.losses]
    wrong = [loss for loss in losses if loss.probabilities]
    if not wrong:
        return
    classes = wrong[0].classes
    yield Finding(
        cause="learning",
        title="the loss is given probabilities: there is a softmax before its own",
        evidence=(
            f"in {len(wrong)} of {len(losses)} losses every row that cross_entropy is given adds up to 1, from 0 on",
            f"with {classes:,} classes it cannot fall below {math.log(classes + math.e - 1) - 1:.3g}, and begins at "
            f"ln {classes:,} = {math.log(classes):.3g}: there is little to learn from",
        ),
        change="cross_entropy on the logits themselves, without softmax()",
        severity="error",
        sure="measured",
    )


def _ends(rows: Sequence[Rows], known: Known) -> Iterator[Finding]:
    """Of texts that are shorter than their row: whether that they end is learnt."""
    ending = learnt = hidden = by_padding = 0
    lasts: set[int] = set()
    rows = [one for one in rows if one.offset == 1 or (one.offset is None and one.source is not None)]
    for one in rows:
        for ids, targets, counted, content in zip(one.ids, one.targets, one.counted, one.content, strict=True):
            places, here = counted.nonzero()[:, 0], content.nonzero()[:, 0]
            if not len(places) or not len(here) or bool(content.all()):
                continue
            last, end = int(targets[places[-1]]), int(ids[here[-1]])
            if end not in known.ends and end != one.pad and int(here[-1]) + 1 < len(ids):
                end = int(ids[here[-1] + 1])  # what follows it: padding, which may be the end at once
            ending += 1
            learnt += last in known.ends
            lasts.add(last)
            if last != end and (end in known.ends or (end == one.pad and int(ids[here[-1]]) == end)):
                hidden += 1
                by_padding += end == one.pad
    if ending < FEW or learnt or not (known.ends or hidden) or (len(lasts) == 1 and ending >= 2 * FEW):
        return  # texts that all end alike have an end of their own, <|im_end|> say
    if known.pad in known.ends or by_padding > MOST * ending:
        yield Finding(
            cause="pad_is_eos",
            title="the end of a text is never learnt: padding and end are one token, and it is masked",
            evidence=(
                f"of {ending} texts that are shorter than their row not one has an end of text as its last label",
                "such a model does not stop when it generates",
            ),
            change="a token of its own for padding, or labels masked by attention_mask and not by the token's id",
            severity="error",
            sure="measured",
        )
    elif hidden > MOST * ending:
        yield Finding(
            cause="end_not_learnt",
            title="the end of a text is in the batches and never learnt: its label is masked",
            evidence=(f"of {ending} texts that are shorter than their row not one has its end as its last label",),
            change="labels up to the end of text, and with it",
            severity="error",
            sure="measured",
        )
    else:
        kinds = _endless(rows, known)
        yield Finding(
            cause="end_not_learnt",
            title="texts end, and no end of text follows them",
            evidence=(
                f"of {ending} texts that are shorter than their row none has an end of text as its last label"
                + (f": they end in {kinds} different tokens" if kinds else ""),
                "a model that is to stop by itself has to have seen where texts end",
            ),
            change="the end-of-text token behind each text, before it is padded",
            severity="warning" if kinds else "note",
            sure="measured",
        )


def _endless(rows: Sequence[Rows], known: Known) -> int:
    """In how many different tokens texts end, where it is certain that none of them says so: there is an id for it that
    is no label anywhere, and no few others stand in its place; otherwise 0. Texts of the greatest length may be cut."""
    longest = max(int(one.content.sum(1).max()) for one in rows)
    lasts: list[int] = []
    for one in rows:
        ends = {end for end in known.ends if end < one.loss.classes}
        if not ends or ends & set(one.targets[one.counted].tolist()):
            return 0
        for targets, counted, content in zip(one.targets, one.counted, one.content, strict=True):
            labels = targets[counted]
            if int(content.sum()) < longest and not bool(content.all()) and len(labels) >= TEXT:
                lasts.append(int(labels[-1]))
    kinds = len(set(lasts))
    return kinds if len(lasts) >= ENDLESS and kinds >= KINDS else 0


def _padding(rows: Sequence[Rows]) -> Iterator[Finding]:
    """Places without text whose label is padding, too."""
    wrong = total = 0
    pads: set[int] = set()
    for one in rows:
        total += int(one.counted.sum())
        if not one.loss.told and one.loss.weights is None:
            continue
        empty = one.counted & ~one.content
        if one.pad is not None:
            empty &= one.targets == one.pad
            if one.source is None and one.mask is None:  # the first place behind a text may be its end
                empty[:, 1:] &= ~one.content[:, :-1]
            pads.add(one.pad)
        else:  # the last place before a text, where it is filled from the left, predicts its beginning
            empty[:, :-1] &= ~one.content[:, 1:]
        wrong += int(empty.sum())
    if total and wrong > SOME * total:
        filled = f", id {min(pads)}" if pads else ""
        yield Finding(
            cause="labels_on_padding",
            title="padding counts in the loss",
            evidence=(
                f"{wrong:,} of {total:,} labels that have an effect on the gradient stand on padding{filled}",
                "the loss looks lower than it is, and the model learns to write padding",
            ),
            change="-100 as label wherever attention_mask is 0",
            severity="error",
            sure="measured",
            size=wrong / total,
            unit="share of what is learnt",
        )


def _offset(rows: Sequence[Rows]) -> Iterator[Finding]:
    offsets = [one.offset for one in rows]
    if not offsets or len(set(offsets)) != 1 or offsets[0] in (None, 1):
        return
    offset = offsets[0]
    assert offset is not None
    told = {
        0: "labels are not shifted: each token is to be predicted where it is read",
        -1: "labels are shifted the wrong way: the token before is to be predicted",
        2: "labels are shifted twice: the token after the next is to be predicted",
    }.get(offset, f"labels are shifted by {offset} places instead of one")
    change = (
        "shift them once: logits[:, :-1] with ids[:, 1:]; a transformers model with labels=input_ids does so itself"
        if offset < 1
        else "labels=input_ids as they are: a transformers model shifts them itself"
    )
    yield Finding(
        cause="shifted_labels",
        title=told,
        evidence=(
            f"in all {len(rows)} micro-batches the label of place t is the id of place t{offset:+d}"
            if offset
            else f"in all {len(rows)} micro-batches the label of place t is the id of place t itself",
        ),
        change=change,
        severity="error",
        sure="measured",
    )


def _shown(rows: Sequence[Rows]) -> Iterator[Finding]:
    """Labels of masked text also where nothing is masked: there the answer is what is read. What differs is the mask,
    one token; where texts are mended, many."""
    same = total = 0
    others: Counter[int] = Counter()
    for one in rows:
        if one.offset is not None or one.source is not None:
            return
        counts = one.counted & one.content
        equal = counts & (one.ids == one.targets)
        same, total = same + int(equal.sum()), total + int(counts.sum())
        others.update(one.ids[counts & ~equal].tolist())
    [(_, most)] = others.most_common(1) or [(0, 0)]
    if same > SHOWN * total and most > MASKED * others.total():
        yield Finding(
            cause="shifted_labels",
            title=f"{same / total:.0%} of the labels are the very token that is read in their place",
            evidence=(
                f"{same:,} of {total:,}; {most:,} of the {others.total():,} others stand on one token, a mask: only "
                "these ask for something",
                "the loss looks lower than it is, and most of the gradient teaches to copy",
            ),
            change="-100 as label wherever the token was not chosen to be masked",
            sure="measured",
            size=same / total,
            unit="share of the labels",
        )


def _nothing(rows: Sequence[Rows], seen: Seen) -> Iterator[Finding]:
    empty = [one for step in seen.passes for one in step.losses if bool((one.targets == IGNORED).all())]
    if empty:
        yield Finding(
            cause="nothing_to_learn",
            title=f"{len(empty)} of {len(seen.passes)} micro-batches have no label at all",
            evidence=("the mean over nothing is nan",),
            change="leave out rows whose answer was cut off; look at what masks the labels",
            severity="error",
            sure="measured",
        )
        return
    total = sum(len(one.ids) for one in rows)
    cut_off = any(one.offset is not None or one.source is not None for one in rows)
    without = sum(int((~(one.targets != IGNORED).any(1)).sum()) for one in rows)
    if total >= 4 and without > NOTHING * total:
        yield Finding(
            cause="nothing_to_learn",
            title=f"{without} of {total} rows have nothing to learn",
            evidence=("all their labels are ignored: usually the answer was cut off behind a long question",)
            if cut_off
            else ("all their labels are ignored: rows so short that nothing of them was chosen",),
            change="longer rows, shorter questions, or without these rows" if cut_off else "longer rows",
            severity="warning" if cut_off else "note",
            sure="measured",
            size=without / total,
            unit="share of the rows",
        )


def _tokenizer(rows: Sequence[Rows], known: Known) -> Iterator[Finding]:
    """Ids that its tokenizer does not make, does not know, or put there twice."""
    text = sum(int(one.content.sum()) for one in rows)
    if not text:
        return
    if known.size is not None:
        beyond = max((int(one.ids[one.content].max()) for one in rows if bool(one.content.any())), default=0)
        if beyond >= known.size:
            yield Finding(
                cause="vocabulary",
                title=f"id {beyond:,} is none of the tokenizer's, which has {known.size:,}",
                evidence=("its embedding was never trained, and its text is unknown",),
                change="prepare the text again with the tokenizer of this model",
                sure="measured",
            )
    if known.unknown is not None and known.unknown not in known.ends | {known.pad, known.begin}:
        unknown = sum(int((one.ids[one.content] == known.unknown).sum()) for one in rows)
        if unknown > 0.05 * text:
            yield Finding(
                cause="vocabulary",
                title=f"{unknown / text:.0%} of the tokens are the one for what the tokenizer does not know",
                evidence=(f"{unknown:,} of {text:,} tokens are id {known.unknown}",),
                change="a tokenizer for this language, or one that knows bytes",
                sure="measured",
                size=unknown / text,
                unit="share of the tokens",
            )
    if known.begin is not None and known.begin != known.pad:
        count = sum(len(one.ids) for one in rows)
        twice = sum(int((one.ids[:, :2] == known.begin).all(1).sum()) for one in rows if one.ids.shape[1] > 1)
        if count >= FEW and twice > 0.5 * count:
            yield Finding(
                cause="doubled_start",
                title="texts begin with two start tokens",
                evidence=(f"{twice} of {count} rows: the template writes one and the tokenizer adds one",),
                change="add_special_tokens=False where the text comes from a chat template",
                sure="measured",
            )
