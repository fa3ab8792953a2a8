"""`ganeum plan`: what a run needs, worked out before it starts and without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# `--max_iters 10` and its like are keys of the config: not options of ours, and not errors.
CONTEXT_SETTINGS = {"ignore_unknown_options": True}


def command(
    words: Annotated[
        list[str],
        typer.Argument(metavar="CONFIG [KEY=VALUE]...", help="a YAML file and keys to set on it", show_default=False),
    ],
    section: Annotated[
        str | None,
        typer.Option("--config-section", metavar="NAME", help="the one config to take of a file that holds several"),
    ] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="tokens in the data, where it is not prepared yet")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="derive every figure, with the numbers put in")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print the plan as JSON, as in plan.json")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="also write the JSON to this file")] = None,
) -> None:
    """Say what a run needs, before it starts.

    Parameters part by part, tokens, windows, steps, how often each token is seen, FLOPs, the micro-batch and why, and
    what to mind. Nothing is trained and nothing is written (but with -o). It needs no GPU, and no data either: where
    that is not prepared, say how large it will be with --tokens.
    """
    import json
    import sys

    from ganeum.config import load
    from ganeum.config.arguments import split_arguments
    from ganeum.errors import ConfigError
    from ganeum.hardware.machine import look
    from ganeum.plan.closed_form import plan
    from ganeum.plan.corpus import size_of
    from ganeum.record.files import write_json

    files, overrides = split_arguments(words)
    if len(files) != 1:
        raise ConfigError(
            "no config is named" if not files else f"one config is planned at a time, but {len(files)} are named",
            where=" ".join(["ganeum plan", *files]),
            suggestion="ganeum plan configs/demo.yaml",
        )
    config = load(files[0], overrides, section=section, say=lambda text: print(text + "\n", file=sys.stderr))
    size = size_of(config.data.directory)
    found = plan(
        config,
        device=look(config.device),
        tokens=tokens or (size.tokens if size else None),
        vocab_size=size.vocab_size if size else None,
    )
    if out is not None:
        try:
            write_json(out, found)
        except OSError as error:
            raise ConfigError(f"the plan cannot be written: {error.strerror}", where=str(out)) from None
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return
    from rich.console import Console

    from ganeum.plan.explain import explain as derive
    from ganeum.plan.render import show

    console = Console(highlight=False)
    console.print(show(found))
    if explain:
        console.print()
        console.print(derive(config, found), soft_wrap=True, markup=False)
