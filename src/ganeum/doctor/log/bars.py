"""Bars of progress: tqdm's, Lightning's, the one of a notebook's Trainer, Keras's; the time that steps took by them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ganeum.doctor.log.span import Span

SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
NUMBER = r"\d+(?:\.\d+)?"
# `50/100 [00:25<00:25, 2.00it/s, loss=2.1]`, tqdm; `[ 50/100 00:25 < 00:25, 2.00 it/s, Epoch 1/3]`, a notebook's
CLOCK = re.compile(r"(\d+)/(\d+)\s*\[?\s*(?:(\d+):)?(\d+):(\d+)\s*(?:<[^\]]*)?(?:,\s*Epoch[^\]]*)?\]")
# `Epoch 0/9 ━━━━━ 50/100 0:00:25 • 0:00:25 2.00it/s`, rich's
RICH = re.compile(r"(\d+)/(\d+)\s+(\d+):(\d+):(\d+)\s*•")
# `100/100 [=====] - 25s 250ms/step - loss: 2.1`, and with ━ since Keras 3
KERAS = re.compile(
    rf"(\d+)/(\d+)\s+(?:\[[=>. ]*\]|[━╸╺ ]+)\s*(?:-\s*)?(?:\d+:)*\d+s\s+({NUMBER})(us|ms|s)/(?:step|epoch)"
)
LEAST_S = 5  # between two looks at a clock of whole seconds: below it, a difference is a tenth off and more


def spans(text: str) -> tuple[Span, ...]:
    """The differences between what a bar showed; of Keras's bars each whole epoch."""
    return tuple(_keras(text)) or _clocks(text)


def step_of(line: str) -> int | None:
    """How many steps the bar in a line shows."""
    match = CLOCK.search(line) or RICH.search(line)
    return int(match[1]) if match else None


def _keras(text: str) -> Iterator[Span]:
    ended = [match for match in KERAS.finditer(text) if match[1] == match[2]]
    training = max((int(match[2]) for match in ended), default=0)  # an evaluation's bar is shorter
    for epoch, match in enumerate((match for match in ended if int(match[2]) == training), start=1):
        steps = int(match[1])
        yield Span(epoch * steps, steps * float(match[3]) * SECONDS[match[4]], steps)


def _clocks(text: str) -> tuple[Span, ...]:
    """A bar of another length is another bar, an evaluation's say; the longest in time is the training's."""
    bars: dict[int, list[tuple[int, float]]] = {}
    for done, total, hours, minutes, seconds in (*CLOCK.findall(text), *RICH.findall(text)):
        at = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
        bars.setdefault(int(total), []).append((int(done), float(at)))
    if not bars:
        return ()
    shown = max(bars.values(), key=lambda bar: max(at for _, at in bar))
    found = []
    since = shown[0]
    for now in shown[1:]:
        if now[0] < since[0] or now[1] < since[1]:  # a new one of the same length
            since = now
        elif now[0] > since[0] and now[1] - since[1] >= LEAST_S:
            found.append(Span(now[0], now[1] - since[1], now[0] - since[0], off_s=1.0))
            since = now
    if not found:
        last, whole = max(shown)
        found = [Span(last, whole, last)] if last and whole else []
    return tuple(found)
