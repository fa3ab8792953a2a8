"""`ganeum doctor log`: a training's log beside what its config should take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.config import Config
    from ganeum.hardware.device import Device
    from ganeum.record import RunDirectory

CONTEXT_SETTINGS = {"ignore_unknown_options": True}


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|-|RUN [CONFIG] [KEY=VALUE]...",
            help="the log, or a run of ours; the config that it ran, and keys to set on it",
            show_default=False,
        ),
    ],
    gpu: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="the card that it ran on (ganeum gpus); unknown, the answer is a range"),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="N", help="tokens of its text, where neither data nor log says (130520, 1.5B)")
    ] = None,
    section: Annotated[
        str | None, typer.Option("--config-section", metavar="NAME", help="the one config of a file that holds several")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Hold a training's log against what its work should take.

    It reads epochs with their times, nanoGPT's lines, Hugging Face's, tqdm's and our own metrics.jsonl, names what
    physics rules out, points at stretches that stand out, and reads nvidia-smi's output that was pasted with it.
    """
    from ganeum.cli.doctor.answer import amount, show, text_of
    from ganeum.config.arguments import split_arguments
    from ganeum.doctor import log
    from ganeum.errors import ConfigError
    from ganeum.hardware.card import card
    from ganeum.record import RunDirectory

    alone, settings = split_arguments(words)
    if not alone or len(alone) > 2:
        raise ConfigError(
            "a log and at most one config are asked for",
            where="ganeum doctor log " + " ".join(words),
            suggestion="ganeum doctor log train.log config.yaml",
        )
    name, run = alone[0], RunDirectory(Path(alone[0]))
    of_a_run = run.exists()
    if of_a_run:
        text = text_of(str(run.metrics_path))
    else:
        text = text_of(str(Path(name) / "metrics.jsonl") if (Path(name) / "metrics.jsonl").is_file() else name)
    device = card(gpu) if gpu else _device(run) if of_a_run else None
    if len(alone) < 2 and not of_a_run and (settings or gpu or tokens or section):
        raise ConfigError(
            "what a step should take is worked out from a config, and none is named",
            where="ganeum doctor log " + " ".join(words),
            suggestion=f"ganeum doctor log {name} config.yaml …, or the log alone",
        )
    if len(alone) < 2 and of_a_run and (settings or section):
        raise ConfigError(
            "a run is held against the config that it ran, and keys or a section were named",
            where="ganeum doctor log " + " ".join(words),
            suggestion=" ".join(["ganeum doctor log", name, str(run.config_path), *settings]),
        )
    config = _config(alone[1] if len(alone) > 1 else None, settings, section, run if of_a_run else None)
    known = amount("--tokens", tokens)
    show(log.report(text, config, device=device, tokens=known, subject=Path(name).name), as_json, out)


def _device(run: RunDirectory) -> Device | None:
    """What a run of ours was planned for, as its plan.json says; None where that card is not known here."""
    from ganeum.errors import GaneumError
    from ganeum.hardware.card import card
    from ganeum.hardware.machine import look
    from ganeum.record.files import read_json

    try:
        device = read_json(run.plan_path)["device"]
        return look("cpu") if device["kind"] == "cpu" else card(device["name"])
    except (GaneumError, OSError, ValueError, KeyError, TypeError):
        return None


def _config(path: str | None, settings: list[str], section: str | None, run: RunDirectory | None) -> Config | None:
    """The config that is named, or the run's own."""
    import sys

    from ganeum.config import load, load_stored

    if path is not None:
        return load(path, settings, section=section, say=lambda text: print(text + "\n", file=sys.stderr))
    return load_stored(run.config_path) if run is not None else None
