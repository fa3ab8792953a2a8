"""Moments and lengths of time as people type and read them: `22:30`, `+2h`, `2026-11-22 08:00`; `8`, `90m`, `1.5h`."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from ganeum.errors import ConfigError

UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


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
    words = text.strip()
    if words.startswith("+") and (length := _seconds(words[1:])) is not None:
        return now + length
    here = datetime.fromtimestamp(now)
    if found := re.fullmatch(r"(\d{1,2}):(\d{2})", words):
        hour, minute = int(found[1]), int(found[2])
        if hour < 24 and minute < 60:
            today = here.replace(hour=hour, minute=minute, second=0, microsecond=0)
            return (today if today.timestamp() > now else today + timedelta(days=1)).timestamp()
    else:
        try:
            then = datetime.fromisoformat(words).timestamp()
        except (ValueError, OverflowError):
            then = None
        if then is not None:
            if then < now:
                raise ConfigError(f"{words} is over", where="--at", why=f"it is {here:%Y-%m-%d %H:%M} now")
            return then
    raise ConfigError(
        f"{text!r} is no time", where="--at", suggestion=f"22:30, +2h or {here + timedelta(days=1):%Y-%m-%d} 08:00"
    )


def hours(text: str) -> float:
    """A length of time in hours; a bare number is hours already.

    Raises:
        ConfigError: it is no length of time above zero.

    >>> hours("8"), hours("90m"), hours("1.5h"), hours("2d")
    (8.0, 1.5, 1.5, 48.0)
    """
    seconds = _seconds(text if text.strip()[-1:].isalpha() else f"{text}h")
    if not seconds:
        raise ConfigError(f"{text!r} is no length of time", where="--max-hours", suggestion="8, 90m or 2d")
    return seconds / 3600


def clock(moment: float, now: float) -> str:
    """`22:30` of today, else `11-22 08:00`."""
    there = datetime.fromtimestamp(moment)
    return there.strftime("%H:%M" if there.date() == datetime.fromtimestamp(now).date() else "%m-%d %H:%M")


def _seconds(text: str) -> float | None:
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]+)\s*", text.lower())
    return float(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else None
