"""The waterfall: from the present tokens per second to the most that was reached, a bar for each remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ganeum.doctor.measured.answer import Course

BAR, NAME = 28, 28  # columns
FULL, PARTS = "█", " ▏▎▍▌▋▊▉"


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
    if course.limit is not None:
        rows.append(("limit of the device", course.limit[0], course.limit[1]))
    most = max(value for _, value, _ in rows)
    width = max(len(_rate(value)) for _, value, _ in rows)
    lines = ["  " + "tokens/s".rjust(NAME + BAR + 2 + width)]
    lines += [
        f"  {name[:NAME]:<{NAME}} {bar(value / most):<{BAR}} {_rate(value):>{width}}  {words}".rstrip()
        for name, value, words in rows
    ]
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
