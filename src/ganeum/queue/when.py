"""Moments and lengths of time as people type and read them: `22:30`, `+2h`, `2026-11-22 08:00`; `8`, `90m`, `1.5h`."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import datetime, timedelta

from ganeum.errors import ConfigError

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
LATEST_S = 100 * 366 * 86400.0  # a slip of the keyboard, beyond that
_PART = r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)"


def moment(text: str, now: float) -> float:
    """The moment that `text` names, in seconds since 1970, by this machine's clock and time zone.

    Args:
        text: a time of day (the next one that comes), a date with or without one, or `+` and a length of time.
        now: seconds since 1970.

    Raises:
        ConfigError: it is none of them, or lies in the past.

    >>> moment("+2h", 0.0), moment("+90m", 0.0)
    (7200.0, 5400.0)
    """
    words, here = text.strip(), datetime.fromtimestamp(now)
    then: float | None = None
    if words.startswith("+"):
        if (length := _seconds(words[1:])) is not None:
            then = now + length
    elif found := re.fullmatch(r"(\d{1,2}):(\d{2})", words):
        hour, minute = int(found[1]), int(found[2])
        if hour < 24 and minute < 60:
            today = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
            then = (today if today.timestamp() > now else today + timedelta(days=1)).timestamp()
    else:
        with suppress(ValueError, OverflowError):
            then = datetime.fromisoformat(words).timestamp()
    if then is None:
        tomorrow = here + timedelta(days=1)
        raise ConfigError(f"{text!r} is no time", where="--at", suggestion=f"22:30, +2h or {tomorrow:%Y-%m-%d} 08:00")
    if then < now:
        raise ConfigError(f"{words} is over", where="--at", why=f"it is {here:%Y-%m-%d %H:%M} now")
    if then - now > LATEST_S:
        raise ConfigError(f"{words} is more than a hundred years away", where="--at")
    return then


def hours(text: str, where: str = "--max-hours") -> float:
    """A length of time in hours; a bare number is hours already. `where`: the option that it was given to.

    Raises:
        ConfigError: it is no length of time above zero.

    >>> hours("8"), hours("90m"), hours("1h30m"), hours("2d")
    (8.0, 1.5, 1.5, 48.0)
    """
    seconds = _seconds(text if any(map(str.isalpha, text)) else f"{text}h")
    if not seconds:
        raise ConfigError(f"{text!r} is no length of time", where=where, suggestion="8, 90m or 2d")
    return seconds / 3600


def clock(moment: float, now: float) -> str:
    """`22:30` of today, else `11-22 08:00`."""
    there = datetime.fromtimestamp(moment)
    return there.strftime("%H:%M" if there.date() == datetime.fromtimestamp(now).date() else "%m-%d %H:%M")


def _seconds(text: str) -> float | None:
    parts = re.findall(_PART, text.lower())
    if not parts or re.sub(_PART, "", text.lower()).strip() or any(unit not in UNITS for _, unit in parts):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in parts)
