"""Where a run may start: on this device now, not yet, or never."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Placed:
    """`device`: as `Entry.device` keeps it; `environment`: what its process is given beside the manager's own;
    `arguments`: what `ganeum train` is told beside its config."""

    device: str
    environment: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    arguments: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wait:
    """It would fit here, but not beside what runs now; `why` is a line for the listing. `keeps`: the device that is
    given to none that comes later, since with those that run it is what this one waits for."""

    why: str
    keeps: str | None = None


@dataclass(frozen=True)
class Never:
    """It fits nowhere on this machine, whatever ends; `why` is a line for the listing."""

    why: str


Placement = Placed | Wait | Never
