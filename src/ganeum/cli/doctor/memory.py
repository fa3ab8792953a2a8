"""`ganeum doctor memory`: where a training's memory goes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.doctor.finding import Report
    from ganeum.record import RunDirectory

CONTEXT_SETTINGS = {"ignore_unknown_options": True}


def command(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG|RUN|FILE.py:FUNCTION|SNAPSHOT.pickle [KEY=VALUE]...",
            help="a config or a run of ours, a function that gives a ganeum.doctor.Training (or build and step), or "
            "what torch.cuda.memory._dump_snapshot wrote",
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
    trace: Annotated[
        bool, typer.Option("--trace/--no-trace", help="trace the step, or answer at once by the closed form")
    ] = True,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="take so many steps here and watch what they leave behind; of a FILE.py:FUNCTION 60 unless said",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", min=1, help="these take at most")] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Explain every GiB at the peak, each with its levers; what grows, lies in pieces, or is there for nothing.

    A run is shown with planned beside measured. With --steps (and of FILE.py:FUNCTION unless --steps 0) steps are taken
    here: graphs that stay, tensors that pile up, memory that grows, parameters without a gradient or there twice.
    """
    from ganeum.cli.doctor.answer import amount, can_be_written, show
    from ganeum.config.arguments import split_arguments
    from ganeum.doctor import memory
    from ganeum.errors import ConfigError
    from ganeum.hardware.card import card
    from ganeum.hardware.machine import look

    alone, settings = split_arguments(words)
    if len(alone) != 1:
        raise ConfigError("one training is looked at at a time", where="ganeum doctor memory " + " ".join(words))
    (word,) = alone
    can_be_written(out, "--out")
    device = card(gpu) if gpu else None
    if settings and (".py:" in word or Path(word).suffix in (".py", ".pickle", ".pkl")):
        raise ConfigError(
            "keys are of a config of ours, and this is none", where="ganeum doctor memory " + " ".join(words)
        )
    if Path(word).suffix in (".pickle", ".pkl"):
        report = memory.of_snapshot(Path(word))
    elif ".py:" in word or word.endswith(".py"):
        report = memory.of_script(
            word, device or look(), trace=trace, steps=60 if steps is None else steps, seconds=seconds
        )
    else:
        report = _ours(word, settings, section, gpu, amount("--tokens", tokens), trace, steps or 0, seconds)
    show(report, as_json, out)


def _ours(
    word: str,
    settings: list[str],
    section: str | None,
    gpu: str | None,
    tokens: int | None,
    trace: bool,
    steps: int,
    seconds: float,
) -> Report:
    """A run by its directory or name, or a config.

    Raises:
        ConfigError: keys are set on a run that was trained already.
    """
    import sys

    from ganeum.cli.doctor.log import _device
    from ganeum.config import load, load_stored
    from ganeum.doctor import memory
    from ganeum.errors import ConfigError
    from ganeum.hardware.card import card
    from ganeum.hardware.machine import look

    if (run := _run(word)) is not None:
        if settings:
            raise ConfigError(
                "a run is explained as it was trained, and keys were set",
                where="the command line: " + " ".join(settings),
                suggestion=f"ganeum doctor memory {run.config_path} " + " ".join(settings),
            )
        config = load_stored(run.config_path)
        where = card(gpu) if gpu else _device(run) or look(config.device)
        return memory.of_run(run, config, where, tokens, trace=trace, steps=steps, seconds=seconds)
    config = load(word, settings, section=section, say=lambda text: print(text + "\n", file=sys.stderr))
    where = card(gpu) if gpu else look(config.device)
    return memory.of_config(config, where, tokens, trace=trace, steps=steps, seconds=seconds, subject=word)


def _run(word: str) -> RunDirectory | None:
    from ganeum.record import RunDirectory, results_dir

    for path in (Path(word), results_dir() / word):
        if (run := RunDirectory(path.resolve())).exists():
            return run
    return None
