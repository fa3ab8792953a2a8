"""`ganeum queue`: its commands, one file each; `ganeum queue LIST`, which is `python run_manager.py`, runs a list."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import typer
from typer.core import TyperGroup

from ganeum.cli.terminal import paragraphs
from ganeum.errors import ConfigError

# Name → its file; some files hold several commands that are one idea.
COMMANDS = {
    "add": "add",
    "list": "listing",
    "show": "show",
    "summary": "summary",
    "log": "log",
    "run": "run",
    "wait": "wait",
    "watch": "watch",
    "pause": "control",
    "resume": "control",
    "kill": "control",
    "retry": "control",
    "edit": "edit",
    "move": "move",
    "remove": "remove",
    "clean": "remove",
    "experiments": "experiments",
    "install": "install",
    "rebuild": "rebuild",
}
HELP = """The experiment queue: add runs, walk away, lose nothing.

`add` puts runs on the list, `run` works through it, `list` shows how it stands.

`ganeum queue [LIST]`, the same as `python run_manager.py`, is short for
`ganeum queue experiments [LIST]`: it runs what experiment_list.conf names (a
file that is called like a command is ./run).
"""


class Group(TyperGroup):
    """What is none of its commands is the list of experiments to run."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or not (args[0] in COMMANDS or args[0] in ("-h", "--help")):
            if args and (near := _meant(args[0])):
                raise ConfigError(
                    f"there is no command {args[0]}", where="ganeum queue", suggestion=f"ganeum queue {near}"
                )
            args = ["experiments", *args]
        return super().parse_args(ctx, args)


def _meant(word: str) -> str | None:
    """The command that a word misspells; None where it may be a file."""
    if word.startswith("-") or not word.isalpha() or Path(word).exists():
        return None
    return next(iter(difflib.get_close_matches(word, COMMANDS, n=1, cutoff=0.6)), None)


def build(markup: Literal["rich"] | None = "rich", words: Sequence[str] | None = None) -> typer.Typer:
    """The group. `words`: the command line behind `ganeum queue`: of a command that is called, only that one is built,
    since the options of all of them take a while to work out."""
    app = typer.Typer(
        cls=Group,
        help=paragraphs(HELP),
        rich_markup_mode=markup,
        add_completion=False,
        pretty_exceptions_enable=False,
        subcommand_metavar="[COMMAND | LIST] [ARGS]...",
    )
    everything = words is None or words[:1] in (["-h"], ["--help"])
    called = COMMANDS if everything else [words[0] if words and words[0] in COMMANDS else "experiments"]
    for name in called:
        module = import_module(f"ganeum.cli.queue.{COMMANDS[name]}")
        settings, function = getattr(module, "CONTEXT_SETTINGS", None), getattr(module, name, None) or module.command
        app.command(name, context_settings=settings, help=paragraphs(function.__doc__))(function)
    return app
