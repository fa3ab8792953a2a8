"""`ganeum train`: one run, gone on with when it was interrupted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ganeum.errors import ConfigError

# `--max_iters 10` and its like are keys of the config: not options of ours, and not errors.
CONTEXT_SETTINGS = {"ignore_unknown_options": True}


def command(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="CONFIG [KEY=VALUE]...", help="a YAML file and keys to set on it", show_default=False),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="the YAML file, where it does not come first")] = None,
    section: Annotated[
        str | None,
        typer.Option("--config-section", metavar="NAME", help="the one config to take of a file that holds several"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="throw away a run of that name first")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="start it although the plan says that it cannot fit into memory")
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option("--trust-remote-code", "--trust_remote_code", help="run code that came with the model"),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="print the summary as JSON, the rest on standard error")
    ] = False,
) -> None:
    """Train one run.

    The same command again goes on with a run that was interrupted, by whatever, from its last checkpoint, and ends
    with the same weights as one that was not; it says so where the run is finished. A larger length extends it.
    Keys are set as `max_iters=100`, `--max_iters=100` or `--max_iters 100`. Hugging Face's names are understood
    (docs/huggingface.md).

    The plan is made and kept before the first step. What cannot fit into memory by it is refused, with what would make
    it fit; --force tries it all the same.

    Ctrl-C finishes the step and writes a checkpoint (exit status 130; 143 for SIGTERM); a second one stops at once.
    """
    from ganeum.config import load
    from ganeum.config.arguments import split_arguments
    from ganeum.config.trust import trusting
    from ganeum.record.files import finite
    from ganeum.train.interrupt import Interrupted
    from ganeum.train.run import train

    alone, overrides = split_arguments(words or [])
    files = ([str(config)] if config else []) + alone
    if len(files) != 1:
        raise ConfigError(
            "no config is named" if not files else f"one config is trained at a time, but {len(files)} are named",
            where=" ".join(["ganeum train", *files]),
            suggestion="ganeum train configs/demo.yaml, or `ganeum queue add` for several",
        )
    stream = sys.stderr if as_json else sys.stdout
    asked = load(files[0], overrides, section=section, say=lambda text: print(text + "\n", file=stream))
    try:
        with trusting(trust_remote_code):
            summary = train(asked, overwrite=overwrite, force=force, stream=stream)
    except Interrupted as stop:
        raise typer.Exit(stop.exit_status) from None
    if as_json:
        print(json.dumps(finite(summary), indent=2))
