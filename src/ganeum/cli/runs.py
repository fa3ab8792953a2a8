"""`ganeum runs`: the runs there are, as a table or as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ganeum.config import Config
    from ganeum.record.overview import Row

COLUMNS = {  # heading → the row's field
    "run": "name",
    "state": "state",
    "step": "step",
    "loss": "loss",
    "val loss": "val_loss",
    "val bpb": "val_bpb",
    "tokens/s": "tokens_per_second",
    "time": "hours",
    "params": "parameters",
    "modified": "modified",
}


def command(
    sort: Annotated[
        str,
        typer.Option(metavar="FIELD", help="What to sort by: name, val_loss, modified, …; -FIELD for falling order."),
    ] = "name",
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="Only runs where it is so: state=finished, n_layer=12."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, unrounded.")] = False,
) -> None:
    """List the runs: what each is doing, how far it is, how good it is.

    They lie under results/, or $GANEUM_RESULTS. One that never ended although
    its process is gone has `died`; the same `ganeum train` goes on with it.
    """
    import json
    from dataclasses import asdict

    from ganeum.record import results_dir, runs
    from ganeum.record.overview import overview

    rows = [overview(run) for run in runs()]
    for text in filters or ():
        rows = _filtered(rows, text)
    shown = _sorted([row for row, _ in rows], sort)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in shown], indent=2))
    elif shown:
        _table(shown)
    else:
        what = "no run is so" if filters else "there are no runs yet"
        typer.echo(f"{what} in {results_dir()}" + ("" if filters else "; `ganeum demo` makes one"))


def _table(rows: list[Row]) -> None:
    """Every column that says something; on a terminal too narrow for all of them, the least important ones go."""
    import sys

    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 1_000)
    texts = dict(zip(COLUMNS, zip(*map(_cells, rows), strict=True), strict=True))
    headings = [heading for heading in COLUMNS if any(texts[heading])]
    for dispensable in (None, "params", "tokens/s", "time", "val bpb", "modified"):
        headings = [heading for heading in headings if heading != dispensable]
        table = Table(box=None, header_style="bold", pad_edge=False)
        for heading in headings:
            words = heading in ("run", "state", "modified")
            table.add_column(heading, justify="left" if words else "right", no_wrap=heading != "run", overflow="fold")
        for cells in zip(*(texts[heading] for heading in headings), strict=True):
            table.add_row(*cells)
        if console.measure(table, options=console.options.update(max_width=1_000)).maximum <= console.width:
            break
    console.print(table)


def _cells(row: Row) -> list[str]:
    from datetime import datetime

    from ganeum import units

    def number(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    return [
        row.name,
        row.state,
        f"{row.step:,}" + (f"/{row.max_iters:,}" if row.max_iters else ""),
        number(row.loss, ".4f"),
        number(row.val_loss, ".4f"),
        number(row.val_bpb, ".3f"),
        number(row.tokens_per_second, ",.0f"),
        "" if row.hours is None else units.duration(row.hours * 3600),
        "" if row.parameters is None else units.count(row.parameters),
        "" if row.modified is None else datetime.fromtimestamp(row.modified).strftime("%m-%d %H:%M"),
    ]


def _sorted(rows: list[Row], field: str) -> list[Row]:
    from ganeum.errors import RunError

    falling, field = field.startswith("-"), field.removeprefix("-").replace("-", "_")
    if field not in COLUMNS.values():
        raise RunError(f"runs cannot be sorted by {field}", where="--sort", suggestion=", ".join(COLUMNS.values()))
    known = [row for row in rows if getattr(row, field) is not None]
    unknown = [row for row in rows if getattr(row, field) is None]
    return sorted(known, key=lambda row: getattr(row, field), reverse=falling) + unknown


def _filtered(rows: list[tuple[Row, Config | None]], text: str) -> list[tuple[Row, Config | None]]:
    from dataclasses import fields

    from ganeum.config.keys import matching, value_of
    from ganeum.config.source import scalar
    from ganeum.errors import RunError
    from ganeum.record.overview import Row

    name, equals, wanted = text.partition("=")
    found = matching(name)
    if not equals or (name not in {field.name for field in fields(Row)} and len(found) != 1):
        raise RunError(
            f"{text!r} is no filter",
            where="--filter",
            why="it reads KEY=VALUE; KEY is a column of the table or a key of the config",
            suggestion=" or ".join(f"{key}={wanted}" for key in found) or "state=finished, train.batch_size=64",
        )

    def agrees(row: Row, config: Config | None) -> bool:
        if name in {field.name for field in fields(Row)}:
            value: object = getattr(row, name)
        else:
            value = None if config is None else value_of(config, found[0])
        return value == scalar(wanted) or value == wanted

    return [(row, config) for row, config in rows if agrees(row, config)]
