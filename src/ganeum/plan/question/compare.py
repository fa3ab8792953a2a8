"""One run on several cards: what fits on each, how, how fast and at what price; and which card is enough."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ganeum import units
from ganeum.hardware import catalogue
from ganeum.hardware.card import as_device
from ganeum.hardware.device import Device
from ganeum.plan import sections
from ganeum.plan.page.table import Column, Table

Plan = dict[str, Any]
Planner = Callable[[Device], Plan]
AS_FAST = 0.05  # a pace that differs by less does not
LISTED = 20  # cards on a terminal


@dataclass(frozen=True)
class Prices:
    """In whatever money they are given: of an hour of the GPU, and of a kilowatt-hour."""

    per_hour: float | None = None
    per_kwh: float | None = None


def _amount(value: float) -> str:
    return f"{value:,.2f}"


def _gib(value: float) -> str:
    return f"{value:.1f}"


def _hours(value: float) -> str:
    return units.duration(value * 3600)


def _times(factor: float) -> str:
    return f"{factor:.2g} times" if factor < 100 else f"{factor:,.0f} times"


def _brief(name: str) -> str:
    return re.sub(r"^(GeForce|Tesla|Quadro|NVIDIA) ", "", name)


COLUMNS = (
    Column("gpu", "GPU", _brief, left=True),
    Column("memory_gib", "GiB", _gib),
    Column("fits", "fits", lambda fits: "yes" if fits else "no", left=True),
    Column("needed_gib", "needs", _gib),
    Column("high_gib", "at most", _gib),
    Column("at_once", "at once"),
    Column("checkpointing", "computed twice", left=True),
    Column("precision", "in", left=True),
    Column("tokens_per_second", "tokens/s", lambda value: f"{value:,.0f}"),
    Column("uncertainty", "±", lambda share: f"{share:.0%}"),
    Column("hours", "takes", _hours),
    Column("kwh", "kWh", units.three),
    Column("energy", "energy", _amount),
    Column("rent", "rent", _amount),
)

MEANING = {  # where a figure has a line of its own
    "memory_gib": "memory, GiB",
    "needed_gib": "needed, GiB",
    "high_gib": "at most, GiB",
    "at_once": "sequences at once",
    "checkpointing": "computed twice",
    "precision": "precision",
    "hours": "the whole training",
    "kwh": "kWh at most",
    "energy": "price of that energy",
}


def row(plan: Plan, prices: Prices) -> dict[str, Any]:
    """A plan as one row: the columns' keys, and what is not known left out."""
    memory, device, time = plan["memory_gib"], plan["device"], plan.get("time", {})
    cost = sections.cost(time.get("hours"), device.get("power_w"), prices.per_hour, prices.per_kwh) or {}
    half = (time["high"] - time["low"]) / 2 / time["step_s"] if "high" in time else None
    found = {
        "gpu": device["name"],
        "memory_gib": device["memory_gib"],
        "fits": memory["fits"],
        "needed_gib": memory["tensors"] + memory.get("framework", 0.0),
        "low_gib": memory["low"],
        "high_gib": memory["high"],
        "at_once": plan["batch"]["micro_batch_size"],
        "accumulation": plan["batch"]["gradient_accumulation_steps"],
        "checkpointing": chosen(plan, "activation_checkpointing"),
        "precision": device["precision"],
        "step_s": time.get("step_s"),
        "tokens_per_second": time.get("tokens_per_second"),
        "uncertainty": half,
        "mfu": time.get("mfu"),
        "hours": time.get("hours"),
        **{key: cost.get(key) for key in ("kwh", "energy", "rent")},
    }
    return {key: value for key, value in found.items() if value is not None}


def chosen(plan: Plan, key: str) -> Any:
    """What the plan chose for ``key``, whatever section that stands in; None: it was set."""
    return next((one["value"] for one in plan["choices"] if one["key"].rpartition(".")[2] == key), None)


def which(planner: Planner, prices: Prices) -> Table:
    """The catalogue's cards that it fits on, the smallest first, of equally large ones the fastest first."""
    plans = [planner(device) for device in every_card()]
    rows = [row(plan, prices) for plan in plans if plan["memory_gib"]["fits"]]
    rows.sort(key=lambda one: (round(one["memory_gib"]), -one.get("tokens_per_second", 0.0)))
    shown = ("gpu", "memory_gib", "needed_gib", "at_once", "checkpointing", "tokens_per_second", "uncertainty", "hours")
    columns = tuple(column for column in COLUMNS if column.key in (*shown, "kwh", "energy", "rent"))
    return Table(columns, rows, f"Fits on {len(rows)} of {len(plans)} cards, the smallest first", most=LISTED)


def every_card() -> Iterator[Device]:
    """Each card of the catalogue in each of its sizes."""
    for gpu in catalogue.gpus():
        for size in gpu.memory_gib:
            yield as_device(gpu, size)


@dataclass(frozen=True)
class Beside:
    """Several plans of one thing, each on another device."""

    plans: Sequence[Plan]
    prices: Prices

    def table(self) -> Table:
        """A row for each."""
        return Table(COLUMNS, [row(plan, self.prices) for plan in self.plans])

    def text(self) -> RenderableType:
        """A column for each, and what changes."""
        rows, shown = [row(plan, self.prices) for plan in self.plans], RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
        name, *figures = self.table().used()
        shown.add_column("")
        for one in rows:
            shown.add_column(name.cell(one), justify="right")
        for figure in figures:
            shown.add_row(MEANING.get(figure.key, figure.title), *(figure.cell(one) for one in rows))
        return Group(shown, *(Text(sentence) for sentence in self.sentences()))

    def sentences(self) -> list[str]:
        """What changes from the first to each of the others."""
        return [changes(self.plans[0], other) for other in self.plans[1:]]

    def markdown(self) -> str:
        """The table, and what changes."""
        return "\n\n".join([self.table().markdown(), *self.sentences()])

    def csv(self) -> str:
        """The table."""
        return self.table().csv()

    def json(self) -> str:
        """The plans, whole."""
        return json.dumps(list(self.plans), indent=2, ensure_ascii=False)


def changes(first: Plan, other: Plan) -> str:
    """What is different on the other card, in a sentence: ``with NVIDIA GeForce RTX 4090: 32 at once instead of 8; …``.

    Everything that the cards have in common is left out.
    """
    one, two = row(first, Prices()), row(other, Prices())
    said: list[str] = []
    if one["fits"] != two["fits"]:
        said.append("it fits" if two["fits"] else "it does not fit")
    if one["at_once"] != two["at_once"]:
        said.append(f"{two['at_once']:,} at once instead of {one['at_once']:,}")
    before, after = one.get("checkpointing"), two.get("checkpointing")
    if before != after:
        said.append("nothing is computed twice" if after == "none" else f"checkpointing {after} instead of {before}")
    if one["precision"] != two["precision"]:
        said.append(f"{two['precision']} instead of {one['precision']}")
    pace, faster = one.get("tokens_per_second"), two.get("tokens_per_second")
    if pace and faster and abs(faster / pace - 1) > AS_FAST:
        times = faster / pace
        said.append(f"{_times(times)} as fast" if times > 1 else f"it takes {_times(1 / times)} as long")
        if "hours" in one and "hours" in two:
            said.append(f"{_hours(two['hours'])} instead of {_hours(one['hours'])}")
    room = other["batch"]["largest_micro_batch"], first["batch"]["largest_micro_batch"]
    if room[0] != room[1]:
        said.append(f"room for {units.things(room[0], 'sequence')} instead of {room[1]:,}")
    return f"With {two['gpu']}: " + ("; ".join(said) or "nothing changes") + "."
