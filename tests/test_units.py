"""Quantities as people read them."""

import doctest

import pytest

from ganeum import units


def test_every_example_in_a_docstring_is_true() -> None:
    """The examples of `units` print what they say."""
    failed, tried = doctest.testmod(units)
    assert (0, True) == (failed, tried >= 5)


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("1.0k", 1_000), ("999.9k", 999_949), ("1.0M", 999_951), ("4000.0T", 4e15), ("124.4M", 124_439_808)],
)
def test_a_count_changes_its_letter_where_rounding_does(text: str, number: float) -> None:
    """999,951 is 1.0M and never 1000.0k."""
    assert text == units.count(number)


@pytest.mark.parametrize(
    ("text", "s"),
    [
        ("0 ms", 0.0),
        ("59 s", 59.4),
        ("1 min 0 s", 59.6),
        ("1 h 0 min", 3599.6),
        ("9 h 34 min", 34_414.43),
        ("1 d 0 h", 86_399),
    ],
)
def test_a_duration_never_shows_sixty_of_a_unit(text: str, s: float) -> None:
    """59.6 s is 1 min 0 s and never 60 s."""
    assert text == units.duration(s)
