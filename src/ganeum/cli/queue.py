"""`ganeum queue`, and `python run_manager.py`: the experiments of a list, one after the other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.queue.sequential import Result


def command(
    experiments: Annotated[
        Path, typer.Argument(metavar="LIST", help="A config a line, key=value after it; # for comments.")
    ] = Path("experiment_list.conf"),
    as_json: Annotated[
        bool, typer.Option("--json", help="What became of each as JSON; everything else goes to standard error.")
    ] = False,
) -> None:
    """Run the experiments of a list, one after the other.

    Each is a process of its own, and every config is checked before the first
    starts: a bad one, or one that fails, does not stop the others. Started again,
    it skips what is finished and goes on with what was interrupted.

    Ctrl-C ends the current experiment with a checkpoint, and the queue with it.

    Exit status: 0 all are finished, 1 some are not, 130 after Ctrl-C.
    """
    import json
    import sys

    from ganeum.queue.experiments import read_list
    from ganeum.queue.sequential import run_all, stopping

    listed = read_list(experiments)
    for experiment in listed:
        if experiment.error is not None:
            print(f"{experiment.error}\n  in     {experiments}, line {experiment.line}\n", file=sys.stderr)
    out = sys.stderr if as_json else sys.stdout
    with stopping() as stop:
        results = run_all(listed, stop, lambda line: print(line, file=out, flush=True), stdout=out if as_json else None)
    if as_json:
        print(json.dumps([_plain(result) for result in results], indent=2))
    else:
        _table(results)
    if stop.signal is not None:
        raise typer.Exit(128 + stop.signal)
    if any(result.state != "finished" for result in results):
        raise typer.Exit(1)


def _plain(result: Result) -> dict[str, object]:
    from dataclasses import asdict

    run = asdict(result.row) if result.row else None
    return {"name": result.experiment.name, "state": result.state, "note": result.note, "run": run}


def _table(results: list[Result]) -> None:
    import sys

    from rich.console import Console
    from rich.table import Table

    from ganeum import units

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("experiment", "state", "step", "loss", "val loss", "time", ""):
        numeric = heading in ("step", "loss", "val loss", "time")
        table.add_column(heading, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    for result in results:
        row = result.row
        numbers = ["", "", "", ""]
        if row is not None:
            numbers = [
                f"{row.step:,}",
                "" if row.loss is None else f"{row.loss:.4f}",
                "" if row.val_loss is None else f"{row.val_loss:.4f}",
                "" if row.hours is None else units.duration(row.hours * 3600),
            ]
        table.add_row(result.experiment.name, result.state, *numbers, result.note)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 200)
    console.print()
    console.print(table)
