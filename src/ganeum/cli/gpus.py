"""`ganeum gpus`: the GPUs that a plan can be made for, and what is in this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ganeum.hardware.catalogue import Figure, Gpu
    from ganeum.hardware.here import Here, Seen
    from ganeum.plan.page.table import Table

UNITS = {  # figure → what it is, and its unit
    "sm_count": ("streaming multiprocessors", ""),
    "boost_mhz": ("clock of these peaks", "MHz"),
    "memory_mib": ("memory, says the driver", "MiB"),
    "reserved_mib": ("of it kept by the driver", "MiB"),
    "memory_bandwidth_gb_s": ("memory bandwidth", "GB/s"),
    "power_w": ("power", "W"),
}
ASK = "± nobody vouches for it: where you have that card, `ganeum gpus --measure` says what it does"


def command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="one card, or several: RTX 4090, V100")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="measure how fast this machine computes, half a minute, and remember it")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON, with the source of every number")] = False,
) -> None:
    """List the GPUs that are known, and what is in this machine.

    With a name: every figure of that card and where it is from. Memory is what the driver shows and what of it is left
    for tensors; TFLOPS are dense, with sums in fp32. Plans take rates that were measured here before those listed.
    """
    import json

    from rich.console import Console

    from ganeum.hardware.catalogue import gpus
    from ganeum.hardware.here import here

    if measure:
        _measure()
    chosen = _named(names) if names else gpus()
    if as_json:
        found: dict[str, Any] = {"gpus": [_as_dict(gpu) for gpu in chosen]}
        if not names:
            found["here"] = _here_as_dict(here())
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, markup=False)
    if names:
        for gpu in chosen:
            console.print(_details(gpu), soft_wrap=True)
        return
    if not measure:
        console.print(_table(chosen).text())
        console.print(ASK + "\n")
    console.print(_here(here(), console.width), soft_wrap=True)


def _named(names: list[str]) -> tuple[Gpu, ...]:
    """The words together are one name where there is such a card (``gpus rtx 4090``), else each is one."""
    from ganeum.errors import DeviceError
    from ganeum.hardware.card import cards

    try:
        return tuple(cards(" ".join(names)))
    except DeviceError:
        if len(names) == 1:
            raise
    return tuple(dict.fromkeys(gpu for name in names for gpu in cards(name)))


def _measure() -> None:
    from ganeum.hardware import detect
    from ganeum.plan.time import BUSY
    from ganeum.train import operation_rates
    from ganeum.train.calibrate import SECONDS, calibrate

    device = detect()
    seconds = SECONDS + (operation_rates.SECONDS if device.kind == "cpu" else 0)
    typer.echo(
        f"measuring {device.name} for about {seconds:.0f} s; other work on it now would make it look slow", err=True
    )
    found = calibrate(device)
    if device.kind == "cpu":
        operation_rates.measure(device)
    told = f"remembered; what was measured is reproduced within {found.misfit:.0%}"
    if found.misfit > BUSY:
        told += ", which other work on it explains: measure again when there is none"
    typer.echo(told + "\n", err=True)


def _table(chosen: tuple[Gpu, ...]) -> Table:
    from ganeum.hardware.card import as_device
    from ganeum.plan.page.table import Column, Table

    rows = []
    for gpu in chosen:
        size = gpu.memory_gib[-1]
        half = "bf16" if "bf16" in gpu.tflops else "fp16" if "fp16" in gpu.tflops else None
        rows.append(
            {
                "name": gpu.name.removeprefix("GeForce ").removeprefix("Tesla "),
                "memory_gib": gpu.total_gib(size),
                "usable_gib": as_device(gpu, size).usable_gib,
                "half": gpu.tflops[half] if half else None,
                "format": half,
                "fp32": gpu.tflops["fp32"],
                "memory_bandwidth_gb_s": gpu.figures["memory_bandwidth_gb_s"],
                "power_w": gpu.figures.get("power_w"),
            }
        )
    columns = (
        Column("name", "GPU", left=True),
        Column("memory_gib", "GiB", "{:.1f}".format),
        Column("usable_gib", "for tensors", "{:.1f}".format),
        Column("half", "TFLOPS"),
        Column("format", "in", left=True),
        Column("fp32", "fp32"),
        Column("memory_bandwidth_gb_s", "GB/s"),
        Column("power_w", "W", _range),
    )
    return Table(columns, rows)


def _details(gpu: Gpu) -> RenderableType:
    """Every figure, and where it is from."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from ganeum.hardware.card import as_device

    sources: dict[str, int] = {}
    table = Table.grid(padding=(0, 2))
    for style in ("", "bold", "dim"):
        table.add_column(style=style, justify="right" if style == "bold" else "left")

    def row(what: str, figure: Figure, unit: str) -> None:
        numbers = [sources.setdefault(source, len(sources) + 1) for source in figure.source.split("; ")]
        table.add_row(what, f"{_range(figure)} {unit}".rstrip(), "".join(f"[{number}]" for number in numbers))

    taken = "the rest: driver, CUDA" if gpu.kind == "cuda" else "the rest: the machine"
    for size in gpu.memory_gib:
        device = as_device(gpu, size)
        table.add_row("for tensors", f"{device.usable_gib:.1f} GiB", f"of {device.memory_gib:.1f}; {taken}")
    for precision, figure in gpu.tflops.items():
        row(f"dense peak in {precision}", figure, "TFLOPS")
    for key, figure in gpu.figures.items():
        row(UNITS[key][0], figure, UNITS[key][1])
    if gpu.capability:
        table.add_row("compute capability", ".".join(map(str, gpu.capability)), "")
    parts: list[RenderableType] = [Text(gpu.name, style="bold"), table]
    parts += [Text(text, style="yellow") for text in (gpu.note, ASK if gpu.uncertain else "") if text]
    parts += [Text(f"[{number}] {source}", style="dim") for source, number in sources.items()]
    return Group(*parts, "")


def _range(figure: Figure) -> str:
    """``80–150``, or one number."""
    low, high = f"{figure.low:,.6g}", f"{figure.high:,.6g}"
    return low if low == high else f"{low}–{high}"


def _here(found: Here, width: int) -> str:
    """This machine in a few lines."""
    import textwrap

    indent = " " * 10
    lines = [f"In this machine{f', NVIDIA driver {found.driver}' if found.driver else ''}:"]
    for seen in found.devices:
        device = seen.device
        lines.append(
            f"  {device.torch_name:<7} {device.name}: {device.usable_gib:.1f} of {device.memory_gib:.1f} GiB usable"
        )
        lines += textwrap.wrap(_speed(seen), width, initial_indent=indent, subsequent_indent=indent)
    if len(found.devices) == 1:
        lines.append("  no GPU that this process may use")
    return "\n".join(lines)


def _speed(seen: Seen) -> str:
    """How fast it is said to be, and by whom."""
    from ganeum import units

    peaks = ", ".join(
        f"{precision} {units.flops(rate)}/s" for precision, rate in seen.device.peak_flops_per_second.items() if rate
    )
    if seen.measured:
        return f"measured on {seen.measured}" + (f"; {peaks}" if peaks else "")
    if seen.known:
        return f"not measured; the catalogue says {peaks}"
    if peaks:
        return f"matrix products measured ({peaks}), other work not: ganeum gpus --measure"
    return (
        "not in the catalogue, not measured: ganeum gpus --measure"
        if seen.device.kind != "cpu"
        else ("not measured: ganeum gpus --measure")
    )


def _as_dict(gpu: Gpu) -> dict[str, Any]:
    from dataclasses import asdict

    from ganeum.hardware.card import as_device

    return {
        "name": gpu.name,
        "kind": gpu.kind,
        "capability": ".".join(map(str, gpu.capability)) if gpu.capability else None,
        "laptop": gpu.laptop,
        "uncertain": gpu.uncertain,
        "memory": [
            {"box_gib": size, "memory_gib": gpu.total_gib(size), "usable_gib": as_device(gpu, size).usable_gib}
            for size in gpu.memory_gib
        ],
        "tflops": {precision: asdict(figure) for precision, figure in gpu.tflops.items()},
        "figures": {key: asdict(figure) for key, figure in gpu.figures.items()},
        "note": gpu.note,
    }


def _here_as_dict(found: Here) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "driver": found.driver,
        "devices": [
            asdict(seen.device) | {"in_catalogue": seen.known is not None, "measured": seen.measured}
            for seen in found.devices
        ],
    }
