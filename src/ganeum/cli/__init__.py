"""The commands: one file each. They import a room only when they are called, so that `ganeum --help` is instant."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal

import typer

from ganeum.cli.terminal import hold_everything, paragraphs
from ganeum.errors import GaneumError

COMMANDS = (
    *("demo", "prepare", "plan", "train", "sample", "generate", "score"),
    *("export", "runs", "queue", "doctor", "gpus"),
)


def build(
    markup: Literal["rich"] | None = "rich", commands: Sequence[str] = COMMANDS, words: Sequence[str] | None = None
) -> typer.Typer:
    """The application with these commands; without ``markup`` its help is plain text, as docs/commands.md has it.

    Args:
        words: the command line behind the one command that is called, for one that has commands of its own: only the
            one that it names is built; None for all of them.
    """
    app = typer.Typer(
        help="From one YAML file: what a run needs, the run itself, and what was planned beside what was measured.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=markup,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_options,
    )
    for name in commands:
        module = import_module(f"ganeum.cli.{name}")
        if hasattr(module, "build"):
            app.add_typer(module.build(markup, words), name=name)
            continue
        settings, told = getattr(module, "CONTEXT_SETTINGS", None), paragraphs(module.command.__doc__)
        app.command(name, context_settings=settings, help=told)(module.command)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        from ganeum import __version__

        print(f"ganeum {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="print the version and exit")
    ] = False,
) -> None:
    """What `ganeum` itself takes, before a command."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit: 0 done, 2 an error the user can act on (printed, no traceback), 130 interrupted."""
    words = sys.argv[1:] if arguments is None else arguments
    # Before torch is loaded: a thread that waits for another sleeps instead of spinning. Beside other work on the same
    # cores training is then 3 to 5 times as fast (docs/log.md); alone it makes no difference. Somebody's own training
    # is measured as it runs without us.
    if not any(word.startswith("--script") for word in words):
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    hold_everything()
    try:
        # The options of a command that is not called would only be worked out: a tenth of a second for all of them.
        called = [name for name in COMMANDS if words[:1] == [name]]
        build(commands=called or COMMANDS, words=words[1:] if called else ())(args=words, prog_name="ganeum")
    except GaneumError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            told = GaneumError("no space is left to write to", where=error.filename or "standard output")
        elif _stands_nowhere():
            told = GaneumError("the directory that you stand in was deleted", suggestion="`cd` to where it is now")
        else:
            raise
        print(told, file=sys.stderr)
        sys.exit(2)
    except BaseException as error:  # a library in Rust ends with an exception that is no Exception
        from ganeum.hardware import limits

        if (no_thread := limits.no_thread(error)) is None:
            raise
        print(no_thread, file=sys.stderr)
        sys.exit(2)


def _stands_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
