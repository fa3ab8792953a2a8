"""`ganeum doctor config`: what a config will cost needlessly, before it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.config import Config

CONTEXT_SETTINGS = {"ignore_unknown_options": True}


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG [KEY=VALUE]...",
            help="a config of ours, or YAML for Hugging Face's Trainer, Axolotl, LLaMA-Factory, torchtune or litgpt",
            show_default=False,
        ),
    ],
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="a card of the catalogue (ganeum gpus) instead of this machine's device"),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="N", help="tokens of its text, where that is not prepared here (130520, 1.5B)")
    ] = None,
    section: Annotated[
        str | None, typer.Option("--config-section", metavar="NAME", help="the one config of a file that holds several")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Say what in a config costs time or memory, or teaches the wrong thing, worst first.

    Nothing is run: the sizes are differences of two plans, of the config as it is and with one key changed.
    """
    from ganeum.cli.doctor.answer import amount, show, text_of
    from ganeum.config.arguments import split_arguments
    from ganeum.doctor import audit
    from ganeum.doctor.audit import config as ours
    from ganeum.doctor.audit import foreign
    from ganeum.errors import ConfigError
    from ganeum.hardware.card import card
    from ganeum.hardware.machine import look

    alone, settings = split_arguments(words)
    if len(alone) != 1:
        raise ConfigError("one config is audited at a time", where="ganeum doctor config " + " ".join(words))
    device = card(gpu) if gpu else None
    text = text_of(alone[0])
    found = _config(alone[0], settings, section, text)
    if found is None:
        show(audit.report(foreign.read(foreign.settings(text, alone[0], device)), alone[0], device), as_json, out)
        return
    device = device or look(found.device)
    subject = f"{alone[0]} on {device.name}"
    show(audit.report(ours.read(found, device, amount("--tokens", tokens)), subject, device), as_json, out)


def _config(path: str, settings: list[str], section: str | None, text: str) -> Config | None:
    """It, or None where it is a file for Hugging Face's Trainer that is none of ours."""
    import sys

    from ganeum.config import load
    from ganeum.doctor.audit import foreign
    from ganeum.errors import ConfigError, GaneumError

    try:
        return load(path, settings, section=section, say=lambda text: print(text + "\n", file=sys.stderr))
    except GaneumError:
        if settings or section:
            raise
        try:
            foreign.settings(text, path)
        except ConfigError:
            pass
        else:
            return None
        raise
