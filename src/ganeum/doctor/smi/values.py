"""Figures as nvidia-smi prints them, and as they look after a person, a page or a spreadsheet had them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ganeum.hardware import sensors

NUMBER = r"-?\d+(?:[.,]\d+)?"
SIZES = {"KiB": 1 / 1024, "MiB": 1.0, "GiB": 1024.0, "MB": 1.0, "GB": 1024.0}
TIMES = {"us": 1e-6, "ms": 1e-3, "ns": 1e-9, "s": 1.0}
FORMS = ("%a %b %d %H:%M:%S %Y", "%Y/%m/%d %H:%M:%S.%f", "%Y/%m/%d %H:%M:%S", "%Y-%m-%d %H:%M:%S")


def number(text: str) -> float:
    """``39,32`` and ``39.32`` are one number; nvidia-smi writes no separators of thousands."""
    return float(text.replace(",", "."))


def _unit(units: str, default: str = "", form: str = NUMBER) -> Callable[[str, str], float | None]:
    pattern = re.compile(rf"\s*({form})\s*({units})(?![A-Za-z])")
    bare = re.compile(rf"\s*({form})\s*$")

    def parse(text: str, unit: str) -> float | None:
        if match := pattern.match(text):
            return number(match[1]) * (SIZES.get(match[2]) or TIMES.get(match[2]) or 1.0)
        # Without a unit it may be half of a number: it counts only where a heading has said the unit.
        if unit and re.fullmatch(units, unit) and (match := bare.match(text)):
            return number(match[1]) * (SIZES.get(unit) or TIMES.get(unit) or 1.0)
        if unit == "any" and (match := bare.match(text)):
            return number(match[1]) * (SIZES.get(default) or TIMES.get(default) or 1.0)
        return None

    return parse


def _word(pattern: str) -> Callable[[str, str], str | None]:
    compiled = re.compile(rf"\s*({pattern})(?![A-Za-z0-9])")

    def parse(text: str, unit: str) -> str | None:
        match = compiled.match(text)
        return match[1].strip() if match else None

    return parse


def _flag(yes: str, no: str) -> Callable[[str, str], bool | None]:
    compiled = re.compile(rf"\s*(?:({no})|({yes}))(?![A-Za-z])\s*([?？]?)")

    def parse(text: str, unit: str) -> bool | None:
        match = compiled.match(text)
        return None if match is None or match[3] else match[2] is not None  # `Active?` is somebody's question

    return parse


def _whole(text: str, unit: str) -> float | None:
    match = re.match(r"\s*(\d+)(?:x|X)?(?![\w.,])", text)
    return float(match[1]) if match else None


def _time(text: str, unit: str) -> float | None:
    for form in FORMS:
        for end in (len(text), 24, 23, 19):
            try:
                return datetime.strptime(text.strip()[:end].strip(), form).timestamp()
            except ValueError:
                continue
    return None


def _bits(text: str, unit: str) -> dict[str, bool] | None:
    """NVML's reasons by their bits: ``0x0000000000000044`` → each, and whether it is active."""
    match = re.match(r"\s*(0x[0-9A-Fa-f]{16})(?![0-9A-Za-z])", text)
    if match is None:
        return None
    active = sensors.names(int(match[1], 16))
    return {name: name in active for name in sensors.REASONS.values()}


def _name(text: str, unit: str) -> str | None:
    found = re.split(r"\s{2,}|\s#|<-|\[Deprecated", text.strip())[0].strip()
    return None if not found or found.startswith(("[", "N/A")) else found[:80]


# Kind of a figure → what reads it: (text, the unit that a heading gave) → the value, or None where there is none.
PARSERS: dict[str, Callable[[str, str], Any]] = {
    "W": _unit("W", form=r"\d+[.,]\d\d"),  # always with two decimals: 3932 W was 39.32 W once
    "MHz": _unit("MHz"),
    "%": _unit("%"),
    "C": _unit("°?C"),
    "degrees": lambda text, unit: PARSERS["C"](text, unit or "any"),  # a column of its own, where it has no unit
    "s": _unit("us|ms|ns", "us"),
    "MiB": _unit("KiB|MiB|GiB|MB|GB", "MiB"),
    "whole": _whole,
    "state": _word(r"P\d{1,2}"),
    "active": _flag("Active", "Not Active"),
    "bits": _bits,
    "yes": _flag("Yes", "No"),
    "model": _word("WDDM|TCC|MCDM"),
    "name": _name,
    "time": _time,
}


def value(kind: str, text: str, unit: str = "") -> Any:
    """What ``text`` begins with, as that kind of figure: watts, MHz, percent, °C, seconds, MiB; None if it does not."""
    return PARSERS[kind](text, unit)
