"""`ganeum doctor script`: what a training script costs needlessly; it is read and never run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE.py|FILE.ipynb|-", help="a training script or a notebook", show_default=False),
    ],
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="the card that it is to run on (ganeum gpus), where it matters")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Say what in a training script or a notebook costs time or memory, or teaches the wrong thing, worst first.

    It is read and never run: TrainingArguments, loaders, tokenizers, loops by hand, switches. Values are followed
    through constants, argparse's defaults, dataclasses and dictionaries; what cannot be seen convicts nobody.
    """
    from ganeum.cli.doctor.answer import show, text_of
    from ganeum.doctor import audit
    from ganeum.hardware.card import card

    show(audit.of_script(text_of(file), file, card(gpu) if gpu else None), as_json, out)
