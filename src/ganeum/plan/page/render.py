"""A plan as a person reads it: what it is, what fits, how long it takes, what was chosen and why, what to mind."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ganeum import units
from ganeum.plan.page import memory_picture

SEVERITY = {"error": ("✗", "bold red"), "warning": ("!", "bold yellow"), "note": ("·", "cyan")}
SECTIONS = {"choices": "Chosen", "warnings": "To mind"}
WIDE, SHARE_WIDE = 40, 20  # characters of the bar of a whole device, and of a component's share
SHADES, LACKING = ("█", "▓", "▒"), "×"  # expected, up to high, left; what the device has not

BEYOND = {  # what was traced fits; of more than that
    "traced": ": traced, and more does not",
    "predicted": ": traced, and one more would not, as other traces predict",
    "enough": ": at least, more was not looked for",
    "out of time": ": at least, the time to look for more was over",
}

Rows = list[tuple[str, RenderableType]]


def show(plan: dict[str, Any]) -> RenderableType:
    """The plan, a dict as in plan.json, as something for ``rich.console.Console.print``; fits 80 columns and more."""
    parts: list[RenderableType] = [title(_name(plan), _shape(plan)), Padding(figures(_groups(plan)), (1, 0, 0, 2))]
    if plan["choices"]:
        parts += [Text(f"\n{SECTIONS['choices']}", style="bold"), Padding(_choices(plan), (0, 0, 0, 2))]
    if plan["warnings"]:
        parts += [Text(f"\n{SECTIONS['warnings']}", style="bold"), Padding(_warnings(plan), (0, 0, 0, 2))]
    return Group(*parts)


@dataclass(frozen=True)
class Page:
    """One plan in every form that a :class:`ganeum.plan.page.table.Table` has."""

    plan: dict[str, Any]

    def text(self) -> RenderableType:
        """:func:`show`."""
        return show(self.plan)

    def json(self) -> str:
        """As plan.json."""
        return json.dumps(self.plan, indent=2, ensure_ascii=False)

    def csv(self) -> str:
        """A line for each figure: ``memory_gib.high,6.4``; lists are numbered."""
        written = io.StringIO()
        csv.writer(written, lineterminator="\n").writerows([("key", "value"), *_flat(self.plan)])
        return written.getvalue().rstrip("\n")

    def markdown(self) -> str:
        """The page's figures as a table, and lists of what was chosen and what to mind."""
        lines = [f"## {_name(self.plan)}", "", _shape(self.plan), "", "| | | |", "| --- | --: | --- |"]
        for group, rows in _groups(self.plan):
            for row, (figure, meaning) in enumerate(rows):
                lines.append(f"| {'' if row else f'**{group}**'} | {figure} | {_plain(meaning)} |")
        if self.plan["choices"]:
            lines += ["", f"### {SECTIONS['choices']}", ""]
            lines += [f"- `{one['key']}` **{one['value']}**: {one['reason']}" for one in self.plan["choices"]]
        if self.plan["warnings"]:
            lines += ["", f"### {SECTIONS['warnings']}", ""]
            for one in self.plan["warnings"]:
                advice = one["try"].replace("\n", "; ")
                lines.append(f"- {one['severity']}: **{one['what']}**: {one['figure']}; try {advice}")
        return "\n".join(lines)


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if inside is None:
        yield key, value
        return
    for name, part in inside:
        yield from _flat(part, f"{key}.{name}" if key else str(name))


def _plain(meaning: RenderableType) -> str:
    return " ".join(str(meaning).replace("|", "\\|").split())


def _name(plan: dict[str, Any]) -> str:
    return plan.get("name") or "a run"


def _shape(plan: dict[str, Any]) -> str:
    model = plan["model"]
    if "style" in model:
        return f"{model['style']}, {model['n_layer']} layers × {model['n_embd']}, context {model['block_size']:,}"
    length = units.things(model["length"], "token")
    if "source_length" in model:
        length = f"{units.things(model['source_length'], 'token')} in, {model['length']:,} out"
    purpose = plan.get("purpose", "training")
    return f"{purpose}, {model['family']}, {model['layers']} layers × {model['width']}, {length}"


def title(name: str, shape: str) -> RenderableType:
    """A line across the page."""
    return Rule(Text.assemble(Text(name, style="bold"), f"  {shape}"), align="left", style="dim")


def _groups(plan: dict[str, Any]) -> tuple[tuple[str, Rows], ...]:
    return (
        ("Model", _model(plan)),
        ("Data", _data(plan)),
        ("Batch", _batch(plan)),
        ("Work", _work(plan)),
        ("Memory", memory_rows(plan)),
        ("Time", _time(plan)),
        ("Cost", _cost(plan)),
        ("Loss", _loss(plan)),
        ("Device", device_rows(plan)),
    )


def figures(groups: Sequence[tuple[str, Rows]]) -> Table:
    """Groups of figures with what they mean, each under its name."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for name, rows in groups:
        for row, (figure, meaning) in enumerate(rows):
            table.add_row("" if row else name, figure, meaning)
    return table


def _model(plan: dict[str, Any]) -> Rows:
    counted = plan["parameters"]
    said = f"parameters: {counted['total']:,}"
    if counted["trainable"] != counted["total"]:
        said += f", {units.count(counted['trainable'])} of them trained"
    rows: Rows = [(units.count(counted["total"]), Text(said))]
    width = max(19, *(len(name) + 1 for name in counted["by_component"]))
    for name, count in counted["by_component"].items():
        if count:
            rows.append((units.count(count), _share(name, count / counted["total"], width)))
    if "note" in plan["model"]:
        rows.append(("", Text(plan["model"]["note"])))
    return rows


def _share(name: str, share: float, width: int = 19) -> Text:
    bar = "█" * round(SHARE_WIDE * share) or "▏"
    return Text.assemble(
        f"{name.replace('_', ' ').replace('.', ' '):<{width}}", (f"{bar} ", "dim"), (f"{share:.1%}", "dim")
    )


def _data(plan: dict[str, Any]) -> Rows:
    data = plan["data"]
    rows: Rows = []
    if "train" in data:
        rows += _examples(data)
    elif "tokens" in data:
        rows.append((units.count(data["tokens"]), Text(f"tokens in {data['directory']}: {data['tokens']:,}")))
        rows.append((f"{data['windows']:,}", Text(f"windows, {units.things(data['stride'], 'token')} apart")))
        rows.append((f"{data['steps_per_epoch']:,}", Text("steps in an epoch")))
    elif "directory" in data:
        rows.append(("?", Text(f"tokens: {data['directory']} is not prepared")))
    if "steps" in data:
        epochs = f", {data['epochs']:,.4g} epochs" if "epochs" in data else ""
        rows.append((f"{data['steps']:,}", Text(f"steps in all{epochs}")))
        repeats = (
            f"; each token of the text {data['repeats_per_token']:,.4g} times" if "repeats_per_token" in data else ""
        )
        rows.append((units.count(data["tokens_seen"]), Text(f"tokens seen{repeats}")))
    return rows


def _examples(data: dict[str, Any]) -> Rows:
    files = data["train"] if isinstance(data["train"], str) else ", ".join(data["train"])
    if "examples" not in data:
        return [("?", Text(f"examples: {files} was never opened with these lengths and this tokenizer"))]
    rows: Rows = [
        (f"{data['examples']:,}", Text(f"examples in {files}, and {data['val_examples']:,} held out")),
        (units.count(data["tokens"]), Text(f"tokens to train with: {data['tokens']:,}")),
    ]
    for name, side in data["texts"].items():
        if side["cut"]:
            said = f"{name} longer than {side['limit']:,} tokens are cut; the longest has {side['longest']:,}"
            rows.append((f"{side['cut']:,}", Text(said)))
    usual = [f"{tokens:,}" for tokens in data["usual_row"].values() if tokens]
    said = "tokens in a row as it usually is, padding included" + (" (source × target)" if len(usual) > 1 else "")
    rows += [(" × ".join(usual), Text(said)), (f"{data['steps_per_epoch']:,}", Text("steps in an epoch"))]
    return rows


def _batch(plan: dict[str, Any]) -> Rows:
    batch = plan["batch"]
    sequences, tokens = "sequence" + "s" * (batch["batch_size"] != 1), units.things(batch["tokens_per_step"], "token")
    if "source_tokens_per_step" in batch:
        read = units.things(batch["source_tokens_per_step"], "token")
        tokens = f"{read} in, {batch['tokens_per_step']:,} out"
    if plan.get("purpose", "training") != "training":
        said = f"{sequences} at once; {tokens}"
    else:
        devices = f" × {batch['devices']} GPUs" if "devices" in batch else ""
        split = f"{batch['micro_batch_size']:,} at once × {batch['gradient_accumulation_steps']:,}{devices}"
        said = f"{sequences} a step = {split}; {tokens}"
    rows: Rows = [(f"{batch['batch_size']:,}", Text(said))]
    if (most := batch.get("largest_micro_batch")) and most != batch["micro_batch_size"]:
        known = batch.get("one_more", "")
        rows.append((f"{most:,}", Text(f"would fit at once, were the batch as large{BEYOND.get(known, '')}")))
    if length := batch.get("largest_length"):
        rows.append((f"{length:,}", Text(f"tokens could each have, so many at once{BEYOND[batch['longer']]}")))
    return rows


def _work(plan: dict[str, Any]) -> Rows:
    flops = plan["flops"]
    attention = flops["attention_per_token"] / flops["per_token"]
    both = "forward and backward" if plan.get("purpose", "training") == "training" else "forward"
    again = flops["recomputed_per_token"] / flops["per_token"]
    token = "token out" if "source_tokens_per_step" in plan["batch"] else "token"
    rows: Rows = [(_short(flops["per_token"]), Text(f"FLOP a {token}, {both} ({attention:.1%} of it attention)"))]
    if again:
        rows.append((f"+{again:.0%}", Text("computed twice")))
    rows.append((_short(flops["per_step"]), Text(f"FLOP a {_step(plan)}")))
    if "total" in flops:
        rows.append((_short(flops["total"]), Text("FLOP in all")))
    return rows


def _short(flops: float) -> str:
    return units.flops(flops).removesuffix("FLOP").rstrip()


def memory_rows(plan: dict[str, Any]) -> Rows:
    """``memory_gib`` on ``device``."""
    memory, device = plan["memory_gib"], plan["device"]
    tensors, usable = memory["tensors"], device["usable_gib"]
    expected = memory.get("peak_allocated", tensors + memory.get("framework", 0.0))
    said = Text("at the fullest moment")
    if "at" in memory:  # a run goes on with the plan that it began with, and the first ones had no bounds
        said.append(f", {memory['at']}: {memory['low']:.2f} to {memory['high']:.2f}")
        said.append("" if memory["fits"] else ", which does not fit", "bold red")
    rows: Rows = [(_gib(expected), said), ("", _bar(expected, memory.get("high", expected), usable))]
    for name, part in sorted(memory["by_component"].items(), key=lambda item: -item[1]):
        if part >= 0.005:
            rows.append((_gib(part), _share(name, part / tensors)))
    for key, what in (("framework", "torch itself, beside tensors"), ("before_the_model", "held before the model")):
        if memory.get(key, 0.0) >= 0.005:
            rows.append((_gib(memory[key]), Text(what)))
    return rows + memory_picture.rows(memory)


def _gib(value: float) -> str:
    return f"{value:.2f} GiB"


def _bar(expected: float, high: float, usable: float) -> Text:
    """The device's usable memory: what is expected, what it may come to, what is left; or what it lacks."""
    whole = max(usable, high) or 1.0
    ends = [round(WIDE * part / whole) for part in (min(expected, usable), min(high, usable), usable)]
    bar = Text()
    for shade, (begin, end) in zip(SHADES, zip((0, *ends), ends, strict=False), strict=False):
        bar.append(shade * (end - begin), "dim" if shade == "▒" else "")
    bar.append(LACKING * (WIDE - ends[-1]), "bold red")
    return bar.append(f" {_gib(usable)} usable", "dim")


def _step(plan: dict[str, Any]) -> str:
    return "step" if plan.get("purpose", "training") == "training" else "batch"


def _time(plan: dict[str, Any]) -> Rows:
    peak, total = plan["device"].get("peak_flops_per_second"), plan["flops"].get("total")
    rows: Rows = []
    if "time" in plan:
        time = plan["time"]
        mfu = f", MFU {time['mfu']:.1%}" if "mfu" in time else ""
        pace = f"{time['tokens_per_second']:,.0f} tokens/s"
        rows.append((units.duration(time["step_s"]), Text(f"a {_step(plan)}: {pace}{mfu}")))
        if "low" in time:
            low, high = units.duration(time["low"]), units.duration(time["high"])
            rows.append(("", Text(f"between {low} and {high} ({time['source']})", style="dim")))
        if "hours" in time:
            said = "in all, evaluations included"
            if "low" in time:
                low, high = (
                    units.duration(time["hours"] * 3600 * time[end] / time["step_s"]) for end in ("low", "high")
                )
                said += f": {low} to {high}"
            else:
                said += f" ({time['source']})"
            rows.append((units.duration(time["hours"] * 3600), Text(said)))
    elif peak and total:
        rows.append((units.duration(total / peak), Text("in all at the device's full peak, which nothing reaches")))
    if not rows and plan.get("purpose") == "generation":
        rows.append(("?", Text("not predicted for generation: its steps are too small for the roofline")))
    elif not rows:
        here = ": ganeum gpus --measure" if plan["device"]["kind"] == "cpu" else ""
        rows.append(("?", Text(f"not known before a step is measured{here}")))
    return rows


def _cost(plan: dict[str, Any]) -> Rows:
    cost = plan.get("cost", {})
    rows: Rows = []
    if "kwh" in cost:
        money = f": {cost['energy']:,.2f}" if "energy" in cost else ""
        rows.append(
            (f"{units.three(cost['kwh'])} kWh", Text(f"at most, of the GPU alone ({cost['power_w']:,.0f} W){money}"))
        )
    if "rent" in cost:
        rows.append((f"{cost['rent']:,.2f}", Text("rent for its hours")))
    return rows


def _loss(plan: dict[str, Any]) -> Rows:
    if (loss := plan.get("loss")) is None:
        return []
    said = f"nats a token of held-out web text: {loss['low']:.2f} to {loss['high']:.2f}"
    return [(f"{loss['expected']:.2f}", Text(f"{said} ({loss['law']})"))]


def device_rows(plan: dict[str, Any]) -> Rows:
    """``device``: what is usable, and how fast it is at most."""
    device = plan["device"]
    rows: Rows = [
        (f"{device['usable_gib']:.1f} GiB", Text(f"usable of {device['memory_gib']:.1f} on {device['name']}"))
    ]
    if "peak_flops_per_second" in device:
        peak = _short(device["peak_flops_per_second"])
        doubt = ""
        if "peak_uncertainty" in device:
            doubt = f" ±{device['peak_uncertainty']:.0%}; ganeum gpus --measure says what yours does"
        rows.append((peak, Text(f"FLOP/s at most in {device['precision']}{doubt} ({device['source']})")))
    return rows


def _choices(plan: dict[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(ratio=1, style="dim")
    for choice in plan["choices"]:
        table.add_row(choice["key"].removeprefix("train."), str(choice["value"]), choice["reason"])
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
