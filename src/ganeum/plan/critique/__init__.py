"""What is wrong with a run, in plain words and worst first: each with its figure and with what to type.

A look is a function of the facts that yields what it sees; a sane run makes none of them speak.
"""

from collections.abc import Callable, Iterable, Iterator

from ganeum.plan.critique import data, fit, learning, length, shape, speed
from ganeum.plan.critique.facts import Facts, Step, Warning

OF_ANY_MODEL: tuple[Callable[[Step], Iterator[Warning]], ...] = (
    *fit.OF_ANY_MODEL,
    length.long,
    *speed.OF_ANY_MODEL,
)
LOOKS: tuple[Callable[[Facts], Iterator[Warning]], ...] = (
    *data.LOOKS,
    *fit.LOOKS,
    *length.LOOKS,
    *learning.LOOKS,
    *speed.LOOKS,
    *shape.LOOKS,
)
OF_EXAMPLES: tuple[Callable[[Facts], Iterator[Warning]], ...] = (
    *fit.LOOKS,
    *length.OF_EXAMPLES,
    *learning.OF_EXAMPLES,
    *speed.OF_ANY_MODEL,
)
GRAVEST_FIRST = ("error", "warning", "note")

__all__ = ["LOOKS", "Facts", "Step", "Warning", "of", "of_any_model"]


def of(facts: Facts) -> list[Warning]:
    """All that is seen: the gravest first, and of equally grave ones what loses the larger share of the run."""
    looks = LOOKS if facts.config.model.source is None else OF_EXAMPLES
    return _sorted(warning for look in looks for warning in look(facts))


def of_any_model(step: Step) -> list[Warning]:
    """The same of a model that is known by its name, whose text and learning nobody described."""
    return _sorted(warning for look in OF_ANY_MODEL for warning in look(step))


def _sorted(found: Iterable[Warning]) -> list[Warning]:
    return sorted(found, key=lambda warning: (GRAVEST_FIRST.index(warning.severity), -warning.lost))
