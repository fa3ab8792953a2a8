"""Settings by the names of Hugging Face's Trainer, wherever they stand: TrainingArguments in a script, keys of a YAML
file, other tools' keys that mean the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ganeum.doctor.audit.source import Unknown
from ganeum.doctor.finding import Finding, Severity
from ganeum.hardware.device import Device

AMPERE = (8, 0)
FEW, MANY_WORKERS = 4, 16  # rows at once, loader processes


@dataclass(frozen=True)
class Nothing:
    """Something that was set and changes nothing, in a sentence."""

    text: str


Said = Finding | Nothing


@dataclass(frozen=True)
class Settings:
    """Names → values, as far as they are known.

    Attributes:
        values: an ``Unknown`` value was given and cannot be seen.
        places: name → file and line.
        device: it is to run on, where that is known.
        complete: that what is not there has its default: of a call, but not of somebody's YAML file.
        text: what else is known of the model, in whose name ``t5`` may stand.
        names: what another tool calls a name of Trainer's: told is its own.
    """

    values: Mapping[str, Any]
    places: Mapping[str, str]
    device: Device | None = None
    complete: bool = True
    text: str = ""
    names: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str, default: Any = None) -> Any:
        """The value; ``default`` where it is not set; None where it cannot be seen."""
        value = self.values.get(name, default)
        return None if isinstance(value, Unknown) else value

    def is_set(self, *names: str) -> bool:
        """Whether any of them is there, seen or unseen."""
        return any(name in self.values for name in names)

    def number(self, name: str) -> float | None:
        """The value where it is a number."""
        value = self.get(name)
        try:
            return float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
        except ValueError:
            return None

    def where(self, *names: str) -> str | None:
        """The place of the first of them that is set."""
        return next((self.places[name] for name in names if name in self.places), self.places.get(""))

    def on(self, name: str) -> bool:
        """Whether it is switched on."""
        return self.get(name) is True

    def called(self, text: str) -> str:
        """With the names that its own tool has."""
        for name, theirs in self.names.items():
            text = re.sub(rf"\b{name}\b", theirs, text)
        return text

    def found(
        self,
        cause: str,
        title: str,
        *names: str,
        evidence: tuple[str, ...] = (),
        change: str = "",
        severity: Severity = "warning",
        **size: Any,
    ) -> Finding:
        """A finding at the place of the first of ``names``, whose value is evidence."""
        said = tuple(f"{name}={self.values[name]}" for name in names if name in self.values)
        said = said or tuple(f"{name} is not set" for name in names[:1])
        return Finding(
            cause=cause,
            title=self.called(title),
            evidence=tuple(map(self.called, (*said, *evidence))),
            change=self.called(change),
            severity=severity,
            where=self.where(*names),
            **size,
        )


def capability(device: Device | None) -> tuple[int, int] | None:
    """Of an NVIDIA card; None where it is not known."""
    return device.capability if device is not None and device.kind == "cuda" else None
