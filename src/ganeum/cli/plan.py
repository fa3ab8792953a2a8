"""`ganeum plan`: what a run needs, what fits, how long it takes, worked out before it starts and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from ganeum.plan.trace.exact import Prober

# `--max_iters 10` and its like are keys of the config: not options of ours, and not errors.
CONTEXT_SETTINGS = {"ignore_unknown_options": True}

Purpose = Literal["training", "evaluation", "inference", "generation"]


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...",
            help="a YAML file and keys to set on it; or a model of Hugging Face's (a name, a directory, a config.json) "
            "and how it is to be run: length=512 batch_size=16 optimizer=adafactor …",
            show_default=False,
        ),
    ] = None,
    section: Annotated[
        str | None,
        typer.Option("--config-section", metavar="NAME", help="the one config to take of a file that holds several"),
    ] = None,
    gpu: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="a card of the catalogue (ganeum gpus) instead of this machine's device; twice: side by side; here: "
            "this machine's",
        ),
    ] = None,
    which_gpu: Annotated[
        bool, typer.Option("--which-gpu", help="the cards that it fits on, the smallest first")
    ] = False,
    hours: Annotated[
        float | None, typer.Option(metavar="H", help="how long it may train; without CONFIG: the model to train then")
    ] = None,
    parameters: Annotated[
        str | None, typer.Option(metavar="N", help="without CONFIG: how large the model is to be")
    ] = None,
    tokens: Annotated[
        str | None,
        typer.Option(
            "--tokens",
            metavar="N",
            help="tokens in the data, where it is not prepared yet; without CONFIG: how many are to be seen (2B)",
        ),
    ] = None,
    tokens_available: Annotated[
        str | None,
        typer.Option(metavar="N", help="tokens of text that there are (1B); with CONFIG the same as --tokens"),
    ] = None,
    models: Annotated[
        str | None, typer.Option(metavar="NAMES", help="a table: models, separated by commas, on the cards of --gpus")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="NAMES", help="several cards, separated by commas: as --gpu several times")
    ] = None,
    purpose: Annotated[Purpose | None, typer.Option(help="what for; without it training")] = None,
    may_shorten: Annotated[
        bool, typer.Option("--may-shorten", help="the context may be cut where nothing else makes it fit")
    ] = False,
    price_per_hour: Annotated[float | None, typer.Option(metavar="X", help="rent of the GPU, in any money")] = None,
    price_per_kwh: Annotated[float | None, typer.Option(metavar="X", help="price of a kilowatt-hour")] = None,
    emit: Annotated[
        Literal["ganeum", "hf", "deepspeed"] | None,
        typer.Option(help="write it as a config for ganeum train, TrainingArguments in YAML, or DeepSpeed's JSON"),
    ] = None,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact",
            help="trace the run's own step for its memory: seconds, and no GPU; with --explain, its levers too",
        ),
    ] = False,
    probe: Annotated[
        bool, typer.Option("--probe", help="as --exact, and beside it two real steps taken on this machine, and kept")
    ] = False,
    script: Annotated[
        str | None,
        typer.Option(
            metavar="FILE:FUNCTION",
            help="instead of CONFIG: the traced memory of your own step, FUNCTION() of FILE gives build and step",
        ),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="derive every figure, with the numbers put in")] = False,
    form: Annotated[
        Literal["text", "markdown", "json", "csv"], typer.Option("--format", help="how it is printed")
    ] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="the same as --format json: as in plan.json")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="also write JSON, or what is emitted, here")] = None,
) -> None:
    """Say what a run needs, before it starts.

    Memory part by part, how long it takes, what fits and why, and what to mind; without a CONFIG, the model that is
    worth training on a card in some hours. Nothing is trained and nothing is written (but with -o). It needs no GPU,
    and no data either: where that is not prepared, say how large it will be with --tokens.
    """
    from rich.console import Console

    from ganeum.config.arguments import split_arguments
    from ganeum.plan.question.ask import Question, answer, emitted
    from ganeum.plan.question.compare import Prices

    alone, settings = split_arguments(words or [])
    asked = Question(
        words=alone,
        settings=settings,
        section=section,
        models=_several("--models", models),
        gpus=[*(gpu or ()), *_several("--gpus", gpus)],
        which_gpu=which_gpu,
        hours=hours,
        parameters=parameters,
        tokens=tokens,
        tokens_available=tokens_available,
        purpose=purpose,
        may_shorten=may_shorten,
        prices=Prices(price_per_hour, price_per_kwh),
        explain=explain,
        exact=exact or probe,
        script=script,
        probe=_prober() if probe else None,
    )
    if emit is not None:
        _alone(
            "--emit",
            {
                "--models": bool(models),
                "--exact": exact or probe,
                "--script": script is not None,
                "--which-gpu": which_gpu,
                "--explain": explain,
                "--format": form != "text" or as_json,
                "--price-per-hour": price_per_hour is not None,
                "--price-per-kwh": price_per_kwh is not None,
            },
            why="what is emitted is one run's file, in a form of its own",
        )
        text = emitted(asked, emit)
        _write(out, text)
        print(text, end="")
        return
    if as_json:
        _alone("--json", {f"--format {form}": form in ("markdown", "csv")}, why="an answer is printed in one form")
        form = "json"
    if explain:
        _alone("--explain", {f"--format {form}": form in ("json", "csv")}, why="a derivation is text, or Markdown")
    found = answer(asked)
    _write(out, found.json() + "\n")
    if form == "text":
        Console(highlight=False).print(found.text(), crop=False)  # a derivation's lines are as long as they are
    else:
        print(getattr(found, form)())


def _prober() -> Prober:
    """Loads torch; the plan itself does without."""
    from ganeum.train.probe import probe

    return probe


def _several(option: str, names: str | None) -> list[str]:
    """Names between commas; a card with its own figures (``NAME: 24GB, bandwidth …``) is one."""
    if names is None:
        return []
    found = [names] if ":" in names else [name.strip() for name in names.split(",") if name.strip()]
    if not found:
        from ganeum.errors import ConfigError

        raise ConfigError(f"{option} names nothing", where=f"the command line: {option} {names!r}")
    return found


def _alone(option: str, others: Mapping[str, bool], why: str) -> None:
    """Refuses options that would not be heeded beside this one."""
    from ganeum.errors import ConfigError

    if given := [other for other, is_given in others.items() if is_given]:
        raise ConfigError(
            f"{option} and {given[0]} cannot be asked together",
            where="ganeum plan",
            why=why,
        )


def _write(path: Path | None, text: str) -> None:
    if path is None:
        return
    from ganeum.errors import ConfigError
    from ganeum.record.files import write_atomic

    try:
        if path.exists() and (path.is_symlink() or not path.is_file()):
            path.write_text(text, encoding="utf-8")  # a link, a pipe, /dev/stdout: written to, never replaced
        else:
            write_atomic(path, text)
    except OSError as error:
        raise ConfigError(f"the plan cannot be written: {error.strerror}", where=str(path)) from None
