"""The catalogue of causes: what makes a training slow, large or wrong, how each is confirmed, and who says so.

Every finding names one of them. They lie in ``causes.toml``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Literal

Kind = Literal["time", "gpu memory", "memory", "quality", "health"]


@dataclass(frozen=True)
class Cause:
    """One cause.

    Attributes:
        name: what findings call it.
        kind: what it costs first.
        what: in a few words.
        confirm: the measurement, or the look, that confirms it.
        published: sizes that others published, with their hardware; they are not this machine's.
        source: of what is published, or of the rule.
    """

    name: str
    kind: Kind
    what: str
    confirm: str
    published: str = ""
    source: str = ""


@cache
def causes() -> Mapping[str, Cause]:
    """All of them, by name."""
    from importlib.resources import files

    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    rows = tomllib.loads((files("ganeum.doctor") / "causes.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: Cause(name, **row) for name, row in rows.items()})


def cause(name: str) -> Cause:
    """One of them; a name that is not there is a mistake of ours."""
    return causes()[name]
