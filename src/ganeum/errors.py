"""Every error a user can meet: what is wrong, where, why, and what to try."""

from __future__ import annotations

from collections.abc import Sequence


class GaneumError(Exception):
    """An error that a user can act on; printed to standard error with exit status 2 and no traceback.

    Args:
        what: one sentence that names the thing and the value that is wrong.
        where: a file with its line, a key, a directory.
        why: the rule that was broken, or the reason it cannot work.
        suggestion: what to type or change instead (printed as ``try``).
    """

    def __init__(
        self, what: str, *, where: str | None = None, why: str | None = None, suggestion: str | None = None
    ) -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.suggestion = what, where, why, suggestion

    def __str__(self) -> str:
        lines = [f"{type(self).__name__}: {self.what}"]
        for label, text in (("where", self.where), ("why", self.why), ("try", self.suggestion)):
            if text:
                lines.append(f"  {label:<6} " + text.replace("\n", "\n         "))
        return "\n".join(lines)


class ConfigError(GaneumError):
    """A config that cannot be a run: an unknown key, a wrong type or value, keys that contradict each other."""


class DataError(GaneumError):
    """Text or tokens that cannot be used: missing, empty, too short, damaged, or not what they claim to be."""


class CheckpointError(GaneumError):
    """A checkpoint that cannot be read, is damaged, or belongs to another shape."""


class RunError(GaneumError):
    """A run directory that is in the way, in use, missing, or ended in a way that forbids going on."""


class QueueError(GaneumError):
    """The queue's list that cannot be read or written now, or a wish that an entry of it cannot have.

    Attributes:
        kind: of a list: `damaged`, `locked` or `full`; `other` else. What is locked or full now may not be in a minute.
    """

    kind = "other"


class DeviceError(GaneumError):
    """A device that is absent, or that this build of torch cannot use."""


class TraceError(GaneumError):
    """A step that cannot be traced: it needs numbers where there are only shapes, or fails by itself."""


class MissingExtra(GaneumError):
    """An optional package that a chosen feature needs; the suggestion is the pip line."""


class Several(GaneumError):
    """Several errors found in one go, shown one after the other (all at once, not the first)."""

    def __init__(self, errors: Sequence[GaneumError]) -> None:
        super().__init__(f"{len(errors)} errors")
        self.errors = tuple(errors)

    def __str__(self) -> str:
        return "\n\n".join(str(error) for error in self.errors)
