"""What is wrong with a run, in plain words and worst first: each with its figure and with what to type.

A look is a function of the facts that yields what it sees; a sane run makes none of them speak.
"""

from ganeum.plan.critique import data, fit, learning, length, shape, speed
from ganeum.plan.critique.facts import Facts, Warning

LOOKS = (*data.LOOKS, *fit.LOOKS, *length.LOOKS, *learning.LOOKS, *speed.LOOKS, *shape.LOOKS)
GRAVEST_FIRST = ("error", "warning", "note")

__all__ = ["LOOKS", "Facts", "Warning", "of"]


def of(facts: Facts) -> list[Warning]:
    """All that is seen: the gravest first, and of equally grave ones what loses the larger share of the run."""
    found = [warning for look in LOOKS for warning in look(facts)]
    return sorted(found, key=lambda warning: (GRAVEST_FIRST.index(warning.severity), -warning.lost))
