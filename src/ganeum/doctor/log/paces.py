"""The pace of a run from its spans: its usual step, stretches that stand out, and whether it slows down."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isfinite
from math import log as log_of
from statistics import median

from ganeum import units
from ganeum.doctor.finding import Finding
from ganeum.doctor.log.read import Form, Log, Span

NEIGHBOURS = 4  # on each side
FAR, FAR_SHARE = 6.0, 0.05  # a stretch stands out beyond so many usual deviations, and so much of the usual pace
NORMAL = 1.4826  # a normal deviation, in medians of absolute ones
SLOWER = 0.10  # of the pace, from the second to the last quarter
MOST_NAMED = 5
FAR_FROM_START = 0.15  # of ln(V)
ZEROS = 3  # losses: one may be
SPIKE = 10.0  # times the running median of the gradient's norm


def usual(spans: Sequence[Span]) -> float:
    """Seconds of a usual step: the median, the first one left out, which compiles and warms up."""
    return median(span.pace for span in (spans[1:] or spans))


def spread(spans: Sequence[Span]) -> tuple[float, float]:
    """The middle half of the paces."""
    paces = sorted(span.pace for span in (spans[1:] or spans))
    return paces[len(paces) // 4], paces[(3 * len(paces)) // 4]


def standing_out(spans: Sequence[Span]) -> list[tuple[Span, float]]:
    """Stretches far slower than those around them, each with the pace of these.

    The pace of the neighbours is their median; how far they usually lie from it is the median of all such distances.
    Neither is moved by a single stretch, however slow, nor by a pace that changes slowly.
    """
    around = []
    for at, _ in enumerate(spans):
        near = [*spans[max(0, at - NEIGHBOURS) : at], *spans[at + 1 : at + 1 + NEIGHBOURS]]
        around.append(median(span.pace for span in near) if near else spans[at].pace)
    distances = [abs(span.pace - pace) for span, pace in zip(spans, around, strict=True)]
    usual_distance = NORMAL * median(distances) if distances else 0.0
    return [
        (span, pace)
        for at, (span, pace) in enumerate(zip(spans, around, strict=True))
        if at > 0 and span.pace - pace > max(FAR * usual_distance, FAR_SHARE * pace, _blur(span)) and len(spans) >= 5
    ]


def _blur(span: Span) -> float:
    """How far its pace and its neighbours' may lie apart by their clock alone."""
    return 2 * span.off_s / (span.steps or 1)


def look(form: Form, spans: Sequence[Span]) -> Iterator[Finding]:
    """What the spans of one form say: stretches that stand out, a pace that falls."""
    what = "epoch" if form == "epochs" else "step"
    stretch = "interval" if what == "step" and any((span.steps or 1) > 1 for span in spans) else what
    out = standing_out(spans)
    if out:
        extra = sum((span.pace - pace) * (span.steps or 1) for span, pace in out)
        total = sum(span.seconds for span in spans)
        whole = [span.seconds for span in spans] if form == "epochs" else None
        shown = [
            f"{_named(what, span)} took {_seconds(span.seconds if whole else span.pace)} where its neighbours took "
            f"{_seconds(pace * (span.steps or 1) if whole else pace)}"
            for span, pace in sorted(out, key=lambda pair: pair[0].pace - pair[1], reverse=True)[:MOST_NAMED]
        ]
        if len(out) > MOST_NAMED:
            shown.append(f"and {len(out) - MOST_NAMED:,} more")
        every = _rhythm([span.at for span, _ in out])
        if every:
            shown.append(f"they come every {every:,} steps: evaluations, checkpoints or samples")
        yield Finding(
            cause="too_often" if every else "pauses",
            title=f"{units.things(len(out), stretch)} took far longer than the others",
            evidence=tuple(shown),
            change="fewer of them, or smaller ones" if every else "look what else the machine did then",
            severity="warning" if extra / total > SLOWER / 2 else "note",
            sure="computed",
            size=extra / total,
            unit="share of the time",
        )
    quarter = len(spans) // 4
    if quarter >= 3:
        early = median(span.pace for span in spans[quarter : 2 * quarter])
        late = median(span.pace for span in spans[-quarter:])
        if late > (1 + SLOWER) * early:
            yield Finding(
                cause="slows_down",
                title="it slows down as it goes on",
                evidence=(
                    f"a step took {units.duration(early)} in its second quarter, {units.duration(late)} in its last",
                ),
                change="look whether memory grows (a loss kept with its graph), the GPU gets hot, rows come by length",
                sure="computed",
                size=late / early,
                unit="times",
            )


def losses(log: Log, vocab_size: int | None, fresh: bool) -> Iterator[Finding]:
    """Losses and gradients that are wrong, however fast they come.

    Args:
        log: what was read.
        vocab_size: of the model, where it is known.
        fresh: that the model starts with random weights, so that its first loss is known beforehand.
    """
    wrong = [step for step, loss in log.losses.items() if not isfinite(loss)]
    if wrong:
        yield Finding(
            cause="loss_nan",
            title=f"the loss is no number from {'step' if log.counted else 'line'} {wrong[0] + (not log.counted):,} on",
            evidence=(f"{len(wrong):,} of {len(log.losses):,} losses",),
            change="bf16 instead of fp16; a lower learning rate; gradient clipping",
            severity="error",
        )
    ended = list(log.losses.items())[-ZEROS:]
    if len(ended) == ZEROS and not any(loss for _, loss in ended):
        yield Finding(
            cause="loss_nan",
            title="the loss is exactly 0 at its end",
            evidence=(f"the last {ZEROS} losses",),
            change="look at one batch: no label may be left in it; in fp16 the numbers overflowed: bf16 instead",
            severity="error",
        )
    first = min(log.losses, default=None)
    if fresh and log.counted and vocab_size and first is not None and first <= 1 and isfinite(log.losses[first]):
        loss, chance = log.losses[first], log_of(vocab_size)
        if abs(loss - chance) > FAR_FROM_START * chance:
            low = loss < chance
            yield Finding(
                cause="first_loss",
                title=f"the first loss is {loss:.2f}, where chance is ln({vocab_size:,}) = {chance:.2f}",
                evidence=("far below: the answer is visible to the model, or the labels are not shifted",)
                if low
                else ("far above: the weights start too large, or the labels do not belong to the inputs",),
                change="look at one batch: inputs and labels side by side, and the initial weights",
                severity="error",
                sure="computed",
                size=loss / chance,
                unit="times ln(vocabulary)",
            )
    norms = [norm for norm in log.norms.values() if isfinite(norm)]
    if len(norms) >= 20:
        middle = median(norms[len(norms) // 10 :])
        spikes = [step for step, norm in list(log.norms.items())[len(norms) // 10 :] if norm > SPIKE * middle > 0]
        if spikes:
            yield Finding(
                cause="gradient_norm",
                title=f"the gradient's norm jumps {units.things(len(spikes), 'time')}",
                evidence=(f"above {SPIKE:.0f} times its median of {middle:.3g}, first at step {spikes[0]:,}",),
                change="gradient clipping (1.0), a longer warm-up; look at the rows of those steps",
                severity="note",
                sure="computed",
            )


def _named(what: str, span: Span) -> str:
    """A step, an epoch, or a stretch of steps, of which each took so long."""
    if what == "step" and (span.steps or 1) > 1:
        return f"each of the {span.steps:,} steps up to {span.at:,}"
    return f"{what} {span.at:,}"


def _seconds(seconds: float) -> str:
    return f"{seconds:,.1f} s" if seconds >= 10 else units.duration(seconds)


def _rhythm(steps: Sequence[int]) -> int | None:
    """The distance of steps that stand equally far apart, three of them at least."""
    gaps = [b - a for a, b in pairwise(steps)]
    if len(gaps) < 2:
        return None
    usual_gap = median(gaps)
    even = sum(abs(gap - usual_gap) <= 0.1 * usual_gap for gap in gaps)
    return round(usual_gap) if usual_gap > 1 and even >= 0.8 * len(gaps) else None
