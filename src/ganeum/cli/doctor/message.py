"""`ganeum doctor message`: the last words of a training that died."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="the message, or the end of the log with it", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Explain an out-of-memory message, `Killed`, and `unable to create new native thread`.

    Every wording of torch's since 0.4 is read: how much was asked for, what was free, what lay in pieces, what other
    programs held; and where in a step it happened, if the traceback is there.
    """
    from ganeum.cli.doctor.answer import show, text_of
    from ganeum.doctor import messages

    show(messages.report(text_of(file), subject=Path(file).name if file != "-" else "the message"), as_json, out)
