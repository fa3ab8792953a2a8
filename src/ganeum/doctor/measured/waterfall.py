"""The waterfall: from the present tokens (or rows) per second to the most that was reached, a bar for each remedy."""

from __future__ import annotations

import textwrap
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from ganeum.doctor.finding import WIDEST

if TYPE_CHECKING:
    from ganeum.doctor.measured.answer import Course

BAR, LEAST_BAR, NAME, LEAST_WORDS = 28, 8, 28, 20  # columns
BEYOND = 4.0  # times what was reached: what lies further off is cut, or it would leave no bar to the others
FULL, PARTS, CUT = "█", " ▏▎▍▌▋▊▉", "…"


def drawn(course: Course) -> str:
    """Some lines for a terminal; empty where nothing was measured."""
    if course.itself is None:
        return ""
    rows: list[tuple[str, float, str]] = [("as it is", course.rate, _parts(course))]
    rate = course.rate
    for stair in course.stairs:
        rate *= stair.ratio.median
        sign = "≤ " if stair.remedy.bound else "+ "
        rows.append(
            (
                sign + stair.remedy.name,
                rate,
                f"× {stair.ratio.median:.2f}  ({stair.ratio.low:.2f} to {stair.ratio.high:.2f})",
            )
        )
    if course.together is not None and len(course.stairs) > 1:
        together = course.together
        rows.append(
            (
                "together",
                course.rate * together.median,
                f"× {together.median:.2f}  ({together.low:.2f} to {together.high:.2f}) of the run as it is",
            )
        )
    most = max(value for _, value, _ in rows)
    if course.limit is not None:
        at_best, source = course.limit
        left = at_best / (course.rate * course.gain)
        rows.append(("limit of the device", at_best, f"× {left:,.{2 if left < 100 else 0}f} is left; {source}"))
        most = min(max(most, at_best), BEYOND * most)
    return _table(rows, most, course.counted + "/s", min(WIDEST, get_terminal_size((WIDEST, 24)).columns))


def _table(rows: list[tuple[str, float, str]], most: float, unit: str, columns: int) -> str:
    """A line for each row, with a bar as long as there is room for; words that have none go on below."""
    width = max(len(_rate(value)) for _, value, _ in rows)
    names = NAME if columns >= WIDEST else max(len(name[:NAME]) for name, _, _ in rows)
    names = max(8, min(names, columns - 6 - width - LEAST_BAR))
    before = 2 + names + 1 + 1 + width + 2  # beside bar and words
    bars = max(LEAST_BAR, min(BAR, columns - before - min(max(len(words) for *_, words in rows), columns // 3)))
    lines = ["  " + unit.rjust(names + bars + 2 + width)]
    for name, value, words in rows:
        drawn = bar(value / most, bars) if value <= most else FULL * (bars - 1) + CUT
        start = f"  {name[:names]:<{names}} {drawn:<{bars}} {_rate(value):>{width}}  "
        room = columns - len(start)
        if room < LEAST_WORDS:
            lines += [start.rstrip(), *textwrap.wrap(words, columns, initial_indent="    ", subsequent_indent="    ")]
            continue
        beside, *below = textwrap.wrap(words, room, break_on_hyphens=False) or [""]
        lines += [(start + beside).rstrip(), *(" " * len(start) + more for more in below)]
    return "\n".join(lines)


def bar(share: float, columns: int = BAR) -> str:
    """A bar to eighths of a column; something of it is always seen.

    >>> bar(0.5, 4)
    '██'
    """
    eighths = max(1, min(8 * columns, round(8 * columns * share)))
    return (FULL * (eighths // 8) + PARTS[eighths % 8]).rstrip()


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3g}"


def _parts(course: Course) -> str:
    """Where a step's time goes, the large parts."""
    large = sorted(course.phases.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {share:.0%}" for name, share in large if share >= 0.05)
