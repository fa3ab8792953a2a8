"""What the doctor says: findings, each with its evidence, its size and what to change; what was ruled out beside them.

Every check answers in these words, whether it read a text, computed or measured, so that one page and one
``doctor.json`` hold them all.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from shutil import get_terminal_size
from typing import Any, Literal

from ganeum.doctor.causes import Cause, cause
from ganeum.record.files import finite

Sure = Literal["measured", "computed", "read", "unconfirmed here"]
Severity = Literal["error", "warning", "note"]
GRAVEST_FIRST: tuple[Severity, ...] = ("error", "warning", "note")
MARKS = {"error": "✗", "warning": "!", "note": "·"}
WIDEST = 110  # columns


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        cause: its name in the catalogue (:mod:`ganeum.doctor.causes`).
        title: one sentence.
        evidence: what was seen, with its figures.
        change: what to do; empty where there is nothing to do.
        severity: ``error``: it is broken or teaches the wrong thing; ``warning``: it costs; ``note``: worth knowing,
            and no alarm.
        sure: ``measured`` on this machine; ``computed`` from known figures; ``read`` off a text, a config or a script;
            ``unconfirmed here``: what it needs to be confirmed is not here.
        size: how much it costs, in ``unit``; None: not known before it is measured.
        interval: the size lies between these.
        unit: of the size: ``share of the time``, ``times``, ``s``, ``GiB``, …
        where: a file with its line, a key, a GPU.
    """

    cause: str
    title: str
    evidence: tuple[str, ...] = ()
    change: str = ""
    severity: Severity = "warning"
    sure: Sure = "read"
    size: float | None = None
    interval: tuple[float, float] | None = None
    unit: str = ""
    where: str | None = None

    @property
    def known(self) -> Cause:
        """Its entry in the catalogue."""
        return cause(self.cause)

    @property
    def is_alarm(self) -> bool:
        """Whether it calls for something to be done."""
        return self.severity != "note"

    def at(self, where: str) -> Finding:
        """The same, somewhere."""
        return replace(self, where=where)

    def as_dict(self) -> dict[str, Any]:
        """As in doctor.json; what is not known is not there."""
        found: dict[str, Any] = {
            "cause": self.cause,
            "kind": self.known.kind,
            "severity": self.severity,
            "title": self.title,
            "evidence": list(self.evidence),
            "size": self.size,
            "interval": None if self.interval is None else list(self.interval),
            "unit": self.unit or None,
            "change": self.change or None,
            "sure": self.sure,
            "where": self.where,
            "confirmed_by": self.known.confirm,
            "published": self.known.published or None,
            "source": self.known.source or None,
        }
        return {key: value for key, value in found.items() if value is not None}

    def text(self) -> str:
        """Some lines for a terminal."""
        told = f"{MARKS[self.severity]} {self.title}" + (f"  [{self.where}]" if self.where else "")
        lines = [wrapped(told, "  ")]
        lines += [wrapped(line, "    ") for line in self.evidence]
        if self.size is not None or self.interval is not None or self.sure == "unconfirmed here":
            lines.append(wrapped(f"size   {self._size()} ({self.sure})", "    ", "           "))
        if self.size is None and self.sure in ("read", "unconfirmed here") and self.known.published:
            lines.append(wrapped(f"others {self.known.published}", "    ", "           "))
        if self.change:
            lines.append(wrapped(f"try    {self.change}", "    ", "           "))
        if self.sure == "unconfirmed here":
            lines.append(wrapped(f"check  {self.known.confirm}", "    ", "           "))
        return "\n".join(lines)

    def _size(self) -> str:
        if self.size is None and self.interval is not None:
            return f"between {_figure(self.interval[0])} and {_figure(self.interval[1])} {self.unit}".rstrip()
        if self.size is None:
            return "not known before it is measured"
        share = self.unit.startswith("share")
        shown = f"{self.size:.1%}" if share else _figure(self.size)
        unit = self.unit.removeprefix("share ") if share else self.unit
        if self.interval is not None:
            low, high = (f"{end:.1%}" if share else _figure(end) for end in self.interval)
            shown += f" ({low} to {high})"
        return f"{shown} {unit}".rstrip()


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that one look found.

    Attributes:
        subject: what was looked at.
        headline: the answer in a sentence or two.
        findings: gravest first.
        ruled_out: sentences: causes that the figures exclude, and readings that look bad and are not.
        without_effect: sentences: what is set, and changes nothing.
        drawn: a table or a picture for a terminal, between the answer and the findings; its figures are in ``facts``.
        facts: what was read, by name, for ``doctor.json``.
    """

    subject: str
    headline: str = ""
    findings: tuple[Finding, ...] = ()
    ruled_out: tuple[str, ...] = ()
    without_effect: tuple[str, ...] = ()
    drawn: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """Those that call for something to be done."""
        return tuple(finding for finding in self.findings if finding.is_alarm)

    def as_dict(self) -> dict[str, Any]:
        """As ``doctor.json`` holds it."""
        return {
            "subject": self.subject,
            "headline": self.headline,
            "findings": [finding.as_dict() for finding in self.findings],
            "ruled_out": list(self.ruled_out),
            "without_effect": list(self.without_effect),
            "facts": self.facts,
        }

    def json(self) -> str:
        """The text of ``doctor.json``; NaN and infinities, which JSON lacks, become null."""
        return json.dumps(finite(self.as_dict()), indent=2, ensure_ascii=False, allow_nan=False)

    def text(self) -> str:
        """A page for a terminal: the answer, what is drawn, findings, what was ruled out, what is without effect."""
        parts = [wrapped(f"{self.subject}: {self.headline}" if self.headline else self.subject, "")]
        parts += [self.drawn] if self.drawn else []
        parts += [finding.text() for finding in self.findings]
        for title, texts in (("Not the cause", self.ruled_out), ("Without effect", self.without_effect)):
            if texts:
                parts.append("\n".join([title, *(wrapped(f"- {text}", "  ", "    ") for text in texts)]))
        return "\n\n".join(parts)


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first; of equally grave ones the largest; a finding that is there twice, once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda one: (GRAVEST_FIRST.index(one.severity), -_rank(one))))


def _figure(number: float) -> str:
    """Three digits, and those before the decimal point: 0.151, 24.3, 1,262."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _rank(finding: Finding) -> float:
    """A size that can be compared: shares of the time; times as the share that they would save."""
    if finding.size is None:
        return 0.0
    return 1 - 1 / finding.size if finding.unit.startswith("times") and finding.size > 0 else finding.size


def wrapped(text: str, indent: str, rest: str | None = None) -> str:
    """A paragraph as wide as the terminal; ``rest``: of its further lines, two spaces more unless given."""
    return textwrap.fill(
        text,
        min(WIDEST, get_terminal_size((WIDEST, 24)).columns),
        initial_indent=indent,
        subsequent_indent=indent + "  " if rest is None else rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
