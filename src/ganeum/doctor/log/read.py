"""What a training printed, in whatever form: how long which stretch of it took, how far it was, what it lost.

Known are nanoGPT's and llm.c's lines, Hugging Face's dictionaries, bars of progress (tqdm, a notebook's, Lightning's,
Keras's), tables of losses, epochs with their times, marks of steps with the time elapsed, lines with a step and the
time of day, and our own metrics.jsonl. Lines of other kinds are passed over.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

from ganeum.doctor.log import bars, stamps, tables
from ganeum.doctor.log.span import Span

__all__ = ["Form", "Log", "Span", "read"]

Form = Literal["metrics", "iterations", "marks", "progress", "stamps", "epochs", "runtime"]
# The surest first: times of steps themselves; of stretches between two marks; of epochs, whose steps are not said.
SUREST: tuple[Form, ...] = ("metrics", "iterations", "marks", "progress", "stamps", "runtime", "epochs")
SECONDS = {"ms": 1e-3, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0}
SECONDS |= {"minutes": 60.0, "h": 3600.0, "hours": 3600.0, "초": 1.0, "분": 60.0, "시간": 3600.0}
DECIMAL = r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?"
DURATION = rf"({DECIMAL})\s*(ms|sec(?:ond)?s?|s|min(?:utes)?|m|h(?:ours)?|초|분|시간)(?![\w/])"
EPOCH = re.compile(r"^\W*(?:epoch|에폭|에포크)\s*[:#]?\s*\[?(\d+)", re.IGNORECASE)
EPOCHS = ("epoch", "에폭", "에포크")
EPOCH_TIME = re.compile(rf"(?:epoch\s+)?(?:time|took|duration|시간)\b[^\d\n]{{0,14}}{DURATION}", re.IGNORECASE)
TOTAL_ELAPSED = re.compile(rf"total\s+(?:time\s+)?elapsed[^\d\n]{{0,6}}{DURATION}", re.IGNORECASE)
TOTAL = re.compile(rf"total (?:training )?time[^\d\n]{{0,6}}{DURATION}", re.IGNORECASE)
STEP = re.compile(r"\b(?:step|iter(?:ation)?)\s*[:#]?\s*(\d[\d,]*)(?:\s*/\s*(\d[\d,]*))?", re.IGNORECASE)
MEGATRON = re.compile(rf"elapsed time per iteration \((ms|s)\):\s*({DECIMAL})", re.IGNORECASE)
MILLISECONDS = re.compile(
    rf"\b(?:time|dt|step_time|iter time)\s*[:=]?\s*{DURATION}|\|\s*({DECIMAL})\s*ms\s*\|", re.IGNORECASE
)
TOKENS = re.compile(r"tokens(?: seen)?\s*[:=]\s*(\d[\d,]*)", re.IGNORECASE)
LOSS = re.compile(
    r"(?<!val )(?<!val_)(?<!eval_)\b(?:train_)?loss\"?'?\s*[:=]?\s*'?(nan|inf|\d+\.\d+(?:e[+-]?\d+)?)", re.IGNORECASE
)
NO_NUMBER = re.compile(r"(:\s*)(-?(?:nan|inf))(?=\s*[,}])")  # which Python prints, and does not read
NORM = re.compile(r"grad_?norm'?\"?\s*[:=]\s*'?(nan|inf|\d+\.\d+(?:e[+-]?\d+)?)", re.IGNORECASE)
TEXT_TOKENS = re.compile(r"(?:#|number|num) ?(?:of )?tokens\b[^\d\n:]{0,24}:\s*(\d[\d,]*)", re.IGNORECASE)
DEVICE = re.compile(r"\bdevice\s*[:=]\s*(?:torch\.device\()?['\"]?(cuda|cpu|mps)", re.IGNORECASE)


@dataclass(frozen=True)
class Log:
    """All that was read.

    Attributes:
        spans: by form, in order.
        losses, norms: step → the training's loss, the gradient's norm; a loss at the end of an epoch is not here.
        counted: that those steps were said; else it is only their order that is known.
        total_s: of the whole run, as it says itself.
        total_steps: as it says itself.
        text_tokens: tokens of the text, as it says itself.
        steps_per_epoch: where epochs and steps are marked with the same clock.
        parts: mean seconds of a step's parts, of our own runs.
        device: what it says to run on.
    """

    spans: Mapping[Form, tuple[Span, ...]] = field(default_factory=dict)
    losses: Mapping[int, float] = field(default_factory=dict)
    norms: Mapping[int, float] = field(default_factory=dict)
    counted: bool = True
    total_s: float | None = None
    total_steps: int | None = None
    text_tokens: int | None = None
    steps_per_epoch: int | None = None
    first_step_s: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    device: str | None = None

    def best(self, steps_per_epoch: int | None = None) -> tuple[Form, tuple[Span, ...]] | None:
        """The surest spans; epochs get their steps from ``steps_per_epoch``. None: no times were found."""
        for form in SUREST:
            if spans := self.spans.get(form):
                steps = self.steps_per_epoch or steps_per_epoch
                if form == "epochs" and steps:
                    spans = tuple(replace(span, steps=steps) for span in spans)
                return form, spans
        return None


def read(text: str) -> Log:
    """All that is known in ``text``; what is not is passed over."""
    lines = re.split(r"[\r\n]+", text)
    dicts = list(_dicts(lines))
    epochs, elapsed = _epochs(lines)
    marks = _marks(lines)
    spans: dict[Form, tuple[Span, ...]] = {
        "metrics": tuple(
            Span(entry["step"], entry["step_time_s"], 1)
            for entry in dicts
            if _number(entry.get("step_time_s")) and isinstance(entry.get("step"), int)
        ),
        "iterations": _iterations(lines),
        "marks": tuple(
            Span(b[0], b[1] - a[1], b[0] - a[0], None if a[2] is None or b[2] is None else b[2] - a[2])
            for a, b in pairwise(marks)
            if b[0] > a[0] and b[1] > a[1]
        ),
        "progress": bars.spans(text),
        "stamps": stamps.spans(lines),
        "epochs": epochs,
        "runtime": tuple(_runtimes(dicts)),
    }
    losses, norms, counted = _losses(lines, dicts)
    total = TOTAL.search(text)
    return Log(
        spans={form: found for form, found in spans.items() if found},
        losses=losses,
        norms=norms,
        counted=counted,
        total_s=_seconds(total[1], total[2]) if total else None,
        text_tokens=int(match[1].replace(",", "")) if (match := TEXT_TOKENS.search(text)) else None,
        steps_per_epoch=_steps_per_epoch(elapsed, marks),
        first_step_s=marks[0][1] if marks and marks[0][0] <= 1 else None,
        parts=_parts(dicts),
        device=match[1].lower() if (match := DEVICE.search(text)) else None,
    )


def _epochs(lines: Iterable[str]) -> tuple[tuple[Span, ...], list[tuple[int, float]]]:
    """Epochs with their times, and (epoch, seconds since the start) where that is said, too."""
    found: list[Span] = []
    elapsed: list[tuple[int, float]] = []
    epoch = None
    for line in lines:
        said = line.lower()
        if any(word in said for word in EPOCHS) and (match := EPOCH.match(line)):
            epoch = int(match[1])
        if epoch is None or not any(word in said for word in ("time", "took", "duration", "elapsed", "시간")):
            continue
        if match := TOTAL_ELAPSED.search(line):
            if not STEP.search(line):
                elapsed.append((epoch, _seconds(match[1], match[2])))
        elif (match := EPOCH_TIME.search(line)) and not TOTAL.search(line):
            seconds = _seconds(match[1], match[2])
            if seconds > 0 and not (found and found[-1].at == epoch):
                found.append(Span(epoch, seconds))
    return tuple(found), elapsed


def _marks(lines: Iterable[str]) -> list[tuple[int, float, int | None]]:
    """(step, seconds since the start, tokens since the start) wherever a line says the first two."""
    found = []
    for line in lines:
        if "elapsed" not in line.lower():
            continue
        step, elapsed = STEP.search(line), TOTAL_ELAPSED.search(line)
        if step and elapsed:
            tokens = TOKENS.search(line)
            count = int(tokens[1].replace(",", "")) if tokens else None
            found.append((int(step[1].replace(",", "")), _seconds(elapsed[1], elapsed[2]), count))
    return found


def _iterations(lines: Iterable[str]) -> tuple[Span, ...]:
    """Lines that give a step's own time: `iter 100: loss 2.3, time 23.45ms`, `step 4/19560 | … | 139.11 ms | …`."""
    found = []
    for line in lines:
        if (step := STEP.search(line)) is None:
            continue
        if match := MEGATRON.search(line):
            found.append(Span(int(step[1].replace(",", "")), _seconds(match[2], match[1]), 1))
            continue
        if "elapsed" in line.lower() or (match := MILLISECONDS.search(line)) is None:
            continue
        seconds = _seconds(match[1], match[2]) if match[1] else _seconds(match[3], "ms")
        if seconds > 0:
            found.append(Span(int(step[1].replace(",", "")), seconds, 1))
    return tuple(found)


def _runtimes(dicts: Iterable[Mapping[str, Any]]) -> Iterable[Span]:
    """Hugging Face's last word: `train_runtime` and steps a second."""
    for entry in dicts:
        seconds, rate = _number(entry.get("train_runtime")), _number(entry.get("train_steps_per_second"))
        if seconds and rate:
            yield Span(0, seconds, max(1, round(seconds * rate)))


def _dicts(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Objects that a line is, or ends with: JSON's and Python's."""
    for line in lines:
        start = line.find("{")
        text = line[start:].strip()
        if start < 0 or not text.endswith("}") or len(text) > 20_000:
            continue
        try:
            entry = json.loads(text)
        except ValueError:
            try:
                entry = ast.literal_eval(NO_NUMBER.sub(r"\1'\2'", text))
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
        if isinstance(entry, dict):
            yield entry


def _losses(
    lines: Iterable[str], dicts: Iterable[Mapping[str, Any]]
) -> tuple[dict[int, float], dict[int, float], bool]:
    """Losses and norms by step; of lines without a step, in their order, which the last value says. Epochs' averages
    are left out."""
    losses: dict[int, float] = {}
    norms: dict[int, float] = {}
    entries = [entry for entry in dicts if "loss" in entry]
    if entries:
        for at, entry in enumerate(entries):
            step = entry["step"] if isinstance(entry.get("step"), int) else at
            for name, target in (("loss", losses), ("grad_norm", norms)):
                if (number := _number(entry.get(name), finite=False)) is not None:
                    target[step] = number
        return losses, norms, all(isinstance(entry.get("step"), int) for entry in entries)
    for line in lines:
        if "epoch" in line.lower() and not STEP.search(line):
            continue
        step = STEP.search(line)
        if step is None:
            continue
        for pattern, target in ((LOSS, losses), (NORM, norms)):
            if match := pattern.search(line):
                target.setdefault(int(step[1].replace(",", "")), float(match[1]))
    if not losses:  # what stands behind a bar, and in a notebook's table
        for line in lines:
            if (shown := bars.step_of(line)) is not None and (match := LOSS.search(line)):
                losses.setdefault(shown, float(match[1]))
    return {**losses, **tables.losses(lines)}, norms, True


def _parts(dicts: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean seconds of data, forward, backward, optimizer, other in a step, from our metrics; without the first line."""
    names = ("data_s", "forward_s", "backward_s", "optimizer_s", "other_s")
    rows = [entry for entry in dicts if _number(entry.get("step_time_s"))]
    rows = rows[1:] or rows
    found = {}
    for name in names:
        numbers = [number for row in rows if (number := _number(row.get(name))) is not None]
        if numbers:
            found[name.removesuffix("_s")] = math.fsum(numbers) / len(numbers)
    return found


def _steps_per_epoch(elapsed: list[tuple[int, float]], marks: list[tuple[int, float, int | None]]) -> int | None:
    """Steps of an epoch, where ends of epochs and steps are on one clock: a mark at a known share of an epoch."""
    found = []
    for (before, start), (after, end) in pairwise(elapsed):
        if after != before + 1 or end <= start:
            continue
        for step, at, _ in marks:
            if start <= at <= end:
                found.append(step / (before + (at - start) / (end - start)))
    return round(found[-1]) if found else None  # the last: the further on, the less the place within an epoch matters


def _seconds(number: str, unit: str) -> float:
    return float(number.replace(",", "")) * SECONDS[unit.lower()]


def _number(value: Any, finite: bool = True) -> float | None:
    """Of newer versions of transformers the figures are text."""
    try:
        number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    except ValueError:
        return None
    return number if number is None or not finite or math.isfinite(number) else None
