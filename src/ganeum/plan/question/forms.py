"""Answers of the planner in the forms that they are asked for: a page, the same with its derivation, a model found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Group, RenderableType
from rich.text import Text

from ganeum.plan.page.render import Page
from ganeum.plan.page.table import Column, Table

if TYPE_CHECKING:
    from ganeum.plan import backwards


class Answer(Protocol):
    """Something to print, in any of the forms."""

    def text(self) -> RenderableType:
        """For a terminal."""
        ...

    def markdown(self) -> str:
        """For a page."""
        ...

    def json(self) -> str:
        """For a program."""
        ...

    def csv(self) -> str:
        """For a spreadsheet."""
        ...


@dataclass(frozen=True)
class Explained(Page):
    """A plan with the derivation of its figures behind it."""

    derivation: str

    def text(self) -> RenderableType:
        """The page, then the derivation, whose lines are as long as they are."""
        return Group(super().text(), Text("\n" + self.derivation, no_wrap=True, overflow="ignore"))

    def markdown(self) -> str:
        """The derivation as it stands, in a block of code."""
        return f"{super().markdown()}\n\n```text\n{self.derivation}\n```"


@dataclass(frozen=True)
class Found:
    """The model that a search found."""

    found: backwards.Answer

    def text(self) -> RenderableType:
        """Why this one, and its neighbours."""
        from ganeum.plan import backwards

        return backwards.show(self.found)

    def markdown(self) -> str:
        """Its config, with its reasons as comments."""
        return f"```yaml\n{self.found.yaml().rstrip()}\n```"

    def json(self) -> str:
        """The question, the config, its figures."""
        return json.dumps(self.found.as_dict(), indent=2, ensure_ascii=False)

    def csv(self) -> str:
        """A line for the model and its neighbours each."""
        told = self.found.as_dict()
        rows = [{"model": name, **told[name]} for name in ("smaller", "best", "larger") if name in told]
        return Table(tuple(Column(key, key) for key in rows[0] if key != "loss"), rows).csv()
