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
        ("+1h30m", datetime(2026, 11, 21, 17, 30)),
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
        ("+2", "ConfigError: '+2' is no time\n  where  --at\n  try    22:30, +2h or 2026-11-22 08:00"),
        ("+99999999999d", "ConfigError: +99999999999d is more than a hundred years away\n  where  --at"),
        ("9999-12-31", "ConfigError: 9999-12-31 is more than a hundred years away\n  where  --at"),
        ("2026-11-20", "ConfigError: 2026-11-20 is over\n  where  --at\n  why    it is 2026-11-21 16:00 now"),
    ],
)
def test_what_is_no_time_is_explained(text: str, said: str) -> None:
    """A word, an hour that no day has, a length without its unit, a day that nobody lives to see or that is over."""
    with pytest.raises(GaneumError) as error:
        moment(text, NOW)
    assert said == str(error.value)


def test_lengths_of_time() -> None:
    """A bare number is hours; minutes and days have their letter; nonsense is told."""
    assert [8.0, 1.5, 48.0, 0.5] == [hours("8"), hours("90m"), hours("2d"), hours(".5h")]
    assert [1.5, 26.5] == [hours("1h30m"), hours("1d 2h 30min")]
    for text in ("", "0", "-1", "8 weeks", "1h 30", "1h and 30m"):
        with pytest.raises(GaneumError):
            hours(text)
    with pytest.raises(GaneumError) as error:
        hours("soon", "--timeout")
    assert "ConfigError: 'soon' is no length of time\n  where  --timeout\n  try    8, 90m or 2d" == str(error.value)
