"""`ganeum doctor compare`: where one training's time goes that another's does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.doctor.compare import Side
    from ganeum.record import RunDirectory


def command(
    run: Annotated[
        str, typer.Argument(metavar="RUN|FILE|-", help="the run in question, or its log", show_default=False)
    ],
    baseline: Annotated[
        str, typer.Argument(metavar="BASELINE|FILE", help="the run to hold it against, or its log", show_default=False)
    ],
    step_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="tokens in a step of RUN, padding not counted, where its log does not say (8192, 8k)"
        ),
    ] = None,
    baseline_step_tokens: Annotated[
        str | None, typer.Option(metavar="N", help="the same of BASELINE", show_default=False)
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(metavar="N", help="tokens of RUN's text, where neither its plan nor its data says")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Say where one run's time goes that another's does not, and what of it their records explain.

    Data, forward, backward, update, the rest, and what is beside the steps, for each token (padding not counted); then
    settings, shapes, versions and clocks that differ, and the first loss, the gradient's norm and the loss at equal
    tokens. Nothing is run.
    """
    from dataclasses import replace

    from ganeum.cli.doctor.answer import amount, show
    from ganeum.doctor import compare
    from ganeum.errors import DataError

    if run == baseline == "-":
        raise DataError("standard input cannot be both of them", suggestion="a file for one of the two")
    ours = _side(run, amount("--step-tokens", step_tokens))
    theirs = _side(baseline, amount("--baseline-step-tokens", baseline_step_tokens))
    if ours.path is not None and theirs.path is not None and ours.path.samefile(theirs.path):
        raise DataError(
            f"both are the same: {ours.name}",
            where=str(ours.path),
            why="a training has no difference from itself",
            suggestion="another run; `ganeum runs` lists the runs there are, `ganeum doctor log` looks at one alone",
        )
    if ours.name == theirs.name:
        ours, theirs = replace(ours, name=run), replace(theirs, name=baseline)
    show(compare.report(ours, theirs, amount("--tokens", tokens)), as_json, out)


def _side(word: str, tokens: int | None) -> Side:
    """A run by its directory or its name, a metrics.jsonl, or a log.

    Raises:
        DataError: it is none, or says nothing that could be compared.
    """
    from dataclasses import replace
    from difflib import get_close_matches

    from ganeum.cli.doctor.answer import text_of
    from ganeum.doctor import compare
    from ganeum.errors import DataError
    from ganeum.record import results_dir, runs

    if word == "-":
        return compare.of_log(text_of(word), "the log", tokens)
    path = Path(word)
    if (run := _run(word)) is not None:
        return compare.of_run(run)
    if word and path.exists() and not path.is_dir():  # a pipe, too, as of `<(ssh … cat log)`
        if path.name == "metrics.jsonl" and (side := compare.of_metrics(path, word)) is not None:
            return side
        name = path.name if path.is_file() else "the log"
        return replace(compare.of_log(text_of(word), name, tokens), path=path)
    if word and not path.exists():
        near = get_close_matches(path.name, [run.name for run in runs()], n=3, cutoff=0.5)
        raise DataError(
            f"{word} is neither a run nor a file",
            where=str(results_dir()),
            suggestion=" or ".join(near) or "`ganeum runs` lists the runs there are",
        )
    raise DataError(
        f"{word or 'an empty name'} is not a run's directory",
        where=str(path.resolve()),
        why="a run's has config.yaml and logs/metrics.jsonl in it",
        suggestion="the directory of a run, its name, or a log; `ganeum runs` lists the runs there are",
    )


def _run(word: str) -> RunDirectory | None:
    """The run of that name or at that place, also by a directory or a record within it; None: it is none."""
    from ganeum.record import RunDirectory, results_dir

    for path in (Path(word).resolve(), (results_dir() / word).resolve()):
        run = RunDirectory(path)
        if run.exists():
            return run
        for parent in path.parents[:3]:
            run = RunDirectory(parent)
            records = (run.metrics_path, run.console_path, run.config_path, run.summary_path, run.status_path)
            within = (run.logs_dir, run.checkpoints_dir, run.samples_dir)
            if run.exists() and path.exists() and (path in (*records, *within) or run.checkpoints_dir in path.parents):
                return run
    return None
