"""`ganeum doctor gpu`: what limits a GPU, read through NVML while it works, or off nvidia-smi's output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    context: typer.Context,
    text: Annotated[
        str | None,
        typer.Option(
            "--from-text",
            metavar="FILE|-",
            help="nvidia-smi's output as somebody pasted it, of any driver: -q, CSV, XML, the table, pieces, remarks",
        ),
    ] = None,
    index: Annotated[int, typer.Option("--index", "-i", min=0, help="which card, as CUDA counts them")] = 0,
    seconds: Annotated[float, typer.Option(min=0.5, max=3600, help="how long it is watched")] = 10.0,
    watch: Annotated[
        bool, typer.Option("--watch", help="only watch what runs; else an idle card is kept busy meanwhile")
    ] = False,
    run_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S", min=1e-3, help="how long the run in question took: what counted seconds are a share of"
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON, as in doctor.json.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="also write doctor.json here")] = None,
) -> None:
    """Say what limits a GPU now, and what that costs.

    It reads clocks, power, temperatures, throttle reasons and their counters while the card works, and raises no alarm
    for what an idle card does.
    """
    from ganeum.cli.doctor.answer import show, text_of
    from ganeum.doctor import health, smi
    from ganeum.errors import ConfigError

    if text is not None:
        sources = {name: context.get_parameter_source(name) for name in ("index", "seconds", "watch")}
        said = [f"--{name}" for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        if said:
            raise ConfigError(
                f"{' and '.join(said)}: of a GPU that is here, and --from-text reads what another one said",
                where="the command line",
                suggestion="one of the two",
            )
        pasted = health.report(smi.read(text_of(text)), run_s=run_seconds, subject="pasted nvidia-smi output")
        show(pasted, as_json, out)
        return
    from ganeum.doctor.live import watch as look

    reading, how = look(index, seconds=seconds, load=not watch)
    subject = f"{len(reading.samples)} looks in {seconds:g} s ({how})"
    show(health.report(reading, run_s=run_seconds, subject=subject, live=True), as_json, out)
