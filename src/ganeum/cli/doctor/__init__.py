"""`ganeum doctor`: why a run is slow, or takes so much memory; its commands, one file each."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Literal

import typer

from ganeum.cli.terminal import paragraphs

COMMANDS = ("run", "gpu", "log", "compare", "memory", "config", "script", "message")
HELP = """Why it is slow, or takes so much memory.

Every answer is a finding: what was seen, how much it costs, what to
change, and how sure that is; beside it stands what was ruled out.

With --json the same as JSON; -o writes that to a file.
"""


def build(markup: Literal["rich"] | None = "rich", words: Sequence[str] | None = None) -> typer.Typer:
    """The group. `words`: the command line behind `ganeum doctor`: of a command that is called, only that one is
    built."""
    app = typer.Typer(
        help=paragraphs(HELP),
        no_args_is_help=True,
        rich_markup_mode=markup,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for name in [word for word in (words or ())[:1] if word in COMMANDS] or COMMANDS:
        module = import_module(f"ganeum.cli.doctor.{name}")
        settings, told = getattr(module, "CONTEXT_SETTINGS", None), paragraphs(module.command.__doc__)
        app.command(name, context_settings=settings, help=told)(module.command)
    return app
