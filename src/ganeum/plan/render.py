"""A plan as a person reads it: what it is, how long, what was chosen and why, what to mind."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ganeum import units

SEVERITY = {"error": ("✗", "bold red"), "warning": ("!", "bold yellow"), "note": ("·", "cyan")}


def show(plan: dict[str, Any]) -> RenderableType:
    """The plan, a dict as in plan.json, as something for ``rich.console.Console.print``; fits 80 columns and more."""
    parts: list[RenderableType] = [_title(plan), Padding(_figures(plan), (1, 0, 0, 2))]
    if plan["choices"]:
        parts += [Text("\nChosen", style="bold"), Padding(_choices(plan), (0, 0, 0, 2))]
    if plan["warnings"]:
        parts += [Text("\nTo mind", style="bold"), Padding(_warnings(plan), (0, 0, 0, 2))]
    return Group(*parts)


def _title(plan: dict[str, Any]) -> RenderableType:
    model = plan["model"]
    name = Text(plan.get("name") or "a run", style="bold")
    shape = f"{model['style']}, {model['n_layer']} layers × {model['n_embd']}, context {model['block_size']:,}"
    return Rule(Text.assemble(name, f"  {shape}"), align="left", style="dim")


def _figures(plan: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for title, rows in (
        ("Model", _model(plan)),
        ("Data", _data(plan)),
        ("Batch", _batch(plan)),
        ("Work", _work(plan)),
        ("Time", _time(plan)),
        ("Device", _device(plan)),
    ):
        for row, (figure, meaning) in enumerate(rows):
            table.add_row("" if row else title, figure, meaning)
    return table


Rows = list[tuple[str, RenderableType]]


def _model(plan: dict[str, Any]) -> Rows:
    counted = plan["parameters"]
    rows: Rows = [(units.count(counted["total"]), Text(f"parameters: {counted['total']:,}"))]
    for name, count in counted["by_component"].items():
        if count:
            share = count / counted["total"]
            bar = "█" * round(20 * share) or "▏"
            rows.append((units.count(count), Text.assemble(f"{name:<19}", (f"{bar} ", "dim"), (f"{share:.1%}", "dim"))))
    return rows


def _data(plan: dict[str, Any]) -> Rows:
    data = plan["data"]
    rows: Rows = []
    if "tokens" in data:
        rows.append((units.count(data["tokens"]), Text(f"tokens in {data['directory']}: {data['tokens']:,}")))
        rows.append((f"{data['windows']:,}", Text(f"windows, {data['stride']:,} tokens apart")))
        rows.append((f"{data['steps_per_epoch']:,}", Text("steps in an epoch")))
    else:
        rows.append(("?", Text(f"tokens: {data['directory']} is not prepared")))
    if "steps" in data:
        epochs = f", {data['epochs']:,.4g} epochs" if "epochs" in data else ""
        rows.append((f"{data['steps']:,}", Text(f"steps in all{epochs}")))
        repeats = (
            f"; each token of the text {data['repeats_per_token']:,.4g} times" if "repeats_per_token" in data else ""
        )
        rows.append((units.count(data["tokens_seen"]), Text(f"tokens seen{repeats}")))
    return rows


def _batch(plan: dict[str, Any]) -> Rows:
    batch = plan["batch"]
    split = f"{batch['micro_batch_size']:,} at once × {batch['gradient_accumulation_steps']:,}"
    return [(f"{batch['batch_size']:,}", Text(f"sequences a step = {split}; {batch['tokens_per_step']:,} tokens"))]


def _work(plan: dict[str, Any]) -> Rows:
    flops = plan["flops"]
    attention = flops["attention_per_token"] / flops["per_token"]
    rows: Rows = [
        (_short(flops["per_token"]), Text(f"FLOP a token, forward and backward ({attention:.1%} of it attention)")),
        (_short(flops["per_step"]), Text("FLOP a step")),
    ]
    if "total" in flops:
        rows.append((_short(flops["total"]), Text("FLOP in all")))
    return rows


def _short(flops: float) -> str:
    return units.flops(flops).removesuffix("FLOP")


def _time(plan: dict[str, Any]) -> Rows:
    peak, total = plan["device"].get("peak_flops_per_second"), plan["flops"].get("total")
    rows: Rows = []
    if "time" in plan:
        time = plan["time"]
        mfu = f", MFU {time['mfu']:.1%}" if "mfu" in time else ""
        rows.append((units.duration(time["step_s"]), Text(f"a step: {time['tokens_per_second']:,.0f} tokens/s{mfu}")))
        if "hours" in time:
            rows.append(
                (units.duration(time["hours"] * 3600), Text(f"in all, evaluations included ({time['source']})"))
            )
    if peak and total:
        rows.append((units.duration(total / peak), Text("in all at the device's full peak, which nothing reaches")))
    elif not rows:
        rows.append(("?", Text("not known before a step is measured")))
    return rows


def _device(plan: dict[str, Any]) -> Rows:
    device = plan["device"]
    rows: Rows = [
        (f"{device['usable_gib']:.1f} GiB", Text(f"usable of {device['memory_gib']:.1f} on {device['name']}"))
    ]
    if "peak_flops_per_second" in device:
        peak = f"{_short(device['peak_flops_per_second'])}"
        rows.append((peak, Text(f"FLOP/s at most in {device['precision']} ({device['source']})")))
    return rows


def _choices(plan: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(ratio=1, style="dim")
    for choice in plan["choices"]:
        table.add_row(choice["key"], str(choice["value"]), choice["reason"])
    return table


def _warnings(plan: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for warning in plan["warnings"]:
        mark, style = SEVERITY[warning["severity"]]
        text = Text.assemble((warning["what"], style), f": {warning['figure']}\n", ("try ", "dim"), warning["try"])
        table.add_row(Text(mark, style=style), text)
    return table
