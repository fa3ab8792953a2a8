"""Times as people type them."""

from __future__ import annotations

from datetime import datetime

import pytest

from ganeum.errors import GaneumError
from ganeum.queue.when import hours, moment

NOW = datetime(2026, 11, 21, 16, 0).timestamp()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("22:30", datetime(2026, 11, 21, 22, 30)),
        ("08:00", datetime(2026, 11, 22, 8, 0)),  # over for today: tomorrow's
        ("+2h", datetime(2026, 11, 21, 18, 0)),
        ("+90m", datetime(2026, 11, 21, 17, 30)),
        ("2026-11-23 07:15", datetime(2026, 11, 23, 7, 15)),
        ("2026-11-23", datetime(2026, 11, 23)),
    ],
)
def test_a_moment_is_the_next_one_that_is_so(text: str, expected: datetime) -> None:
    """A time of day is the next that comes; a date is that date."""
    assert expected.timestamp() == moment(text, NOW)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tonight", "ConfigError: 'tonight' is no time\n  where  --at\n  try    22:30, +2h or 2026-11-22 08:00"),
        ("25:00", "ConfigError: '25:00' is no time\n  where  --at\n  try    22:30, +2h or 2026-11-22 08:00"),
        ("2026-11-20", "ConfigError: 2026-11-20 is over\n  where  --at\n  why    it is 2026-11-21 16:00 now"),
    ],
)
def test_what_is_no_time_is_explained(text: str, said: str) -> None:
    """A word, an hour that no day has, a day that is over."""
    with pytest.raises(GaneumError) as error:
        moment(text, NOW)
    assert said == str(error.value)


def test_lengths_of_time() -> None:
    """A bare number is hours; minutes and days have their letter; nonsense is told."""
    assert [8.0, 1.5, 48.0, 0.5] == [hours("8"), hours("90m"), hours("2d"), hours(".5h")]
    for text in ("", "0", "-1", "8 weeks"):
        with pytest.raises(GaneumError):
            hours(text)
