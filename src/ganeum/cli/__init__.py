"""The commands: one file each. They import a room only when they are called, so that `ganeum --help` is instant."""

from __future__ import annotations

import sys

import typer

from ganeum.errors import GaneumError

COMMANDS = ("demo", "prepare", "plan", "train", "sample", "export", "runs")


def build() -> typer.Typer:
    """The application with every command whose file is here."""
    from importlib import import_module

    app = typer.Typer(
        help="ganeum: what fits and how long it takes, then the training itself, from one YAML file.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for name in COMMANDS:
        app.command(name)(import_module(f"ganeum.cli.{name}").command)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 an error the user can act on (printed, no traceback), 130 interrupted."""
    try:
        build()(args=arguments, prog_name="ganeum")
    except GaneumError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
