"""`ganeum doctor run`: a training measured as it is and with one cause taken away at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.config import Config
    from ganeum.doctor.finding import Report

CONTEXT_SETTINGS = {"ignore_unknown_options": True}
USUAL_MINUTES, QUICK_MINUTES = 6.0, 1.5  # quick: two minutes with the start of everything


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG] [KEY=VALUE]...", help="the run's config, and keys to set on it", show_default=False
        ),
    ] = None,
    script: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help="instead of CONFIG: your own training, FUNCTION() of FILE gives a ganeum.doctor.Training",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="two minutes at most, for small models")] = False,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", help="how long it may take; without it 6", min=0.1, show_default=False)
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="write the better config here: what helped and leaves the learning as it is"),
    ] = None,
    section: Annotated[
        str | None, typer.Option("--config-section", metavar="NAME", help="the one config of a file that holds several")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Measure what makes a training slow, by taking one cause away at a time.

    Short blocks of the run as it is and of the same run without one cause take turns, each in a process of its own. The
    run against itself says what is noise here. The answer is a waterfall from the present tokens per second to the best
    that was reached, and a finding only for what was shown twice. Nothing of it touches a run's directory.
    """
    import math
    import sys

    from ganeum.cli.doctor.answer import can_be_written, show
    from ganeum.doctor.measured.diagnosis import diagnose
    from ganeum.errors import ConfigError

    config = _config(words or [], section, script)
    if apply is not None and config is None:
        raise ConfigError(
            "--apply writes a config of ours, and --script has none",
            where=f"the command line: --apply {apply}",
            suggestion="each finding says what to change in your file",
        )
    if apply is not None and apply.exists():  # known before minutes of measuring, not behind them
        raise ConfigError(
            f"{apply} is there already",
            where=f"--apply {apply}",
            why="the config that was diagnosed stays as it is, and nothing else is overwritten",
            suggestion="another name",
        )
    can_be_written(apply, "--apply")
    can_be_written(out, "-o")
    if quick and minutes is not None:
        raise ConfigError("--quick and --minutes say two things", where="the command line", suggestion="one of them")
    if minutes is not None and not math.isfinite(minutes):
        raise ConfigError(f"--minutes must be a number of minutes, not {minutes}", where="the command line")
    lasting = minutes if minutes is not None else QUICK_MINUTES if quick else USUAL_MINUTES

    def say(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K  {text} …", end="", file=sys.stderr, flush=True)

    try:
        report = diagnose(config if config is not None else script or "", minutes=lasting, say=say)
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
    try:
        show(report, as_json, out)
    finally:  # each of the two is worth the minutes, whatever becomes of the other
        if apply is not None:
            _write(words or [], report, apply, section)


def _config(words: list[str], section: str | None, script: str | None) -> Config | None:
    """The config that is named; None where a script is."""
    import sys

    from ganeum.config import load
    from ganeum.config.arguments import split_arguments
    from ganeum.errors import ConfigError

    alone, settings = split_arguments(words)
    if (script is None) == (not alone) or len(alone) > 1 or (script is not None and settings):
        raise ConfigError(
            "one config is asked for, or --script, which takes no keys",
            where=" ".join(["ganeum doctor run", *words, *(("--script", script) if script is not None else ())]),
            suggestion="ganeum doctor run config.yaml, or ganeum doctor run --script train_mine.py:build",
        )
    if script is not None:
        return None
    return load(alone[0], settings, section=section, say=lambda text: print(text + "\n", file=sys.stderr))


def _write(words: list[str], report: Report, file: Path, section: str | None) -> None:
    """The better config: of the old one only those keys are changed that helped."""
    import sys

    from ganeum.config.arguments import split_arguments
    from ganeum.doctor.measured.apply import write

    keys = report.facts["apply"]
    if not keys:
        print(f"\n{file} is not written: no key of the config helped", file=sys.stderr)
        return
    (old,), overrides = split_arguments(words)
    write(Path(old), keys, file, overrides=overrides, section=section)
    print(f"\n{file}: " + ", ".join(f"{key}={value}" for key, value in keys.items()), file=sys.stderr)
