"""Lines with the time of day and a step, as Python's logging and most frameworks write them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from ganeum.doctor.log.span import Span

# `2025-01-01 10:00:00,123`, `2025/01/01 10:00:00`, `2025-01-01T10:00:00`, `01/02/2025 10:00:00`; `10:00:00` alone
STAMP = re.compile(
    r"(?:(?P<date>\d{4}[-/]\d\d[-/]\d\d|\d\d/\d\d/\d{4})[ T])?"
    r"(?<![\d:.])(?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d(?:[.,]\d{1,6})?)(?![\d:])"
)
# `step: 10`, `iteration 100/ 500000`, `num_updates=300`; none of an evaluation's
STEP = re.compile(r"(?:\b(?:step|iter(?:ation)?|global_step)|num_updates)\s*[:#=]?\s*(\d[\d,]*)", re.IGNORECASE)
EVALUATION = re.compile(r"\b(?:eval|valid|val_|validation)", re.IGNORECASE)
LEAST_S = 5  # between two looks at a clock of whole seconds: below it, a difference is a tenth off and more


def spans(lines: Iterable[str]) -> tuple[Span, ...]:
    """The differences between lines; a step that falls begins another run, or another epoch's count."""
    found: list[Span] = []
    since: tuple[int, datetime] | None = None
    for line in lines:
        stamp, step = STAMP.search(line), STEP.search(line)
        if not stamp or not step or EVALUATION.search(line):
            continue
        at, now = _time(stamp), int(step[1].replace(",", ""))
        if at is None:
            continue
        if since is not None and not stamp["date"] and at < since[1]:  # past midnight
            at += timedelta(days=1)
        if since is None or now < since[0] or at < since[1]:
            since = now, at
        elif now > since[0] and (at - since[1]).total_seconds() >= LEAST_S:
            off = 0.0 if at.microsecond or since[1].microsecond else 1.0
            found.append(Span(now, (at - since[1]).total_seconds(), now - since[0], off_s=off))
            since = now, at
    return tuple(found)


def _time(stamp: re.Match[str]) -> datetime | None:
    day, seconds = stamp["date"] or "1970-01-01", float(stamp["s"].replace(",", "."))
    form = "%m/%d/%Y" if day[2] == "/" else "%Y-%m-%d"
    try:
        date = datetime.strptime(day if day[2] == "/" else day.replace("/", "-"), form)
        return date + timedelta(hours=int(stamp["h"]), minutes=int(stamp["m"]), seconds=seconds)
    except ValueError:
        return None
