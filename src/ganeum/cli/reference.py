"""Writes docs/commands.md, the help of every command, from the commands themselves: python -m ganeum.cli.reference."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.main import get_command

from ganeum.cli import COMMANDS, build

PAGE = Path(__file__).parents[3] / "docs" / "commands.md"


def reference() -> str:
    """The page: what `ganeum COMMAND --help` prints, 100 columns wide, one section a command."""
    group = get_command(build(markup=None))
    with typer.Context(group, info_name="ganeum", max_content_width=100, terminal_width=100) as top:
        sections = [
            "# Commands",
            "Written by `python -m ganeum.cli.reference`; `ganeum COMMAND --help` prints the same.",
        ]
        for name in COMMANDS:
            command = group.get_command(top, name)  # type: ignore[attr-defined]
            with typer.Context(command, info_name=name, parent=top) as context:
                sections += [f"## ganeum {name}", f"```text\n{command.get_help(context).rstrip()}\n```"]
                for inner in getattr(command, "commands", {}):
                    below = command.get_command(context, inner)
                    with typer.Context(below, info_name=inner, parent=context) as deeper:
                        text = below.get_help(deeper).rstrip()
                        sections += [f"### ganeum {name} {inner}", f"```text\n{text}\n```"]
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference(), encoding="utf-8")
