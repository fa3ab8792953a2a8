"""A finding about what is done every so many steps, which knows the keys that would mend it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ganeum.doctor.finding import Finding


@dataclass(frozen=True, kw_only=True)
class Periodic(Finding):
    """A finding that knows which keys would mend it: pairs of a key and its value."""

    keys: tuple[tuple[str, Any], ...] = ()
