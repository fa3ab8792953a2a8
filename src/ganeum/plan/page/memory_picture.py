"""How a step's memory rises and falls, drawn with characters, and what lies there at the peak."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import groupby, pairwise
from typing import Any

from rich.console import RenderableType
from rich.text import Text

EIGHTHS = " ▁▂▃▄▅▆▇█"
RESERVED = "░"
WIDE, HIGH = 46, 8  # characters


Rows = list[tuple[str, RenderableType]]
LAYERS = 8  # kinds of layers that are listed


def rows(memory: Mapping[str, Any]) -> Rows:
    """What a trace adds to a plan's page: the peak's operation, the curve, what is there by layer, what levers save,
    and the closed form beside it; or why there is no trace. Nothing where none was asked for."""
    if "not_traced" in memory:
        return [("", Text(f"not traced: {memory['not_traced']}; this is the closed form", style="yellow"))]
    if memory.get("source") != "traced":
        return []
    return [*_peak(memory), *(("", line) for line in curve(memory["curve"])), *_layers(memory), *_levers(memory)]


def _peak(memory: Mapping[str, Any]) -> Rows:
    at, closed = memory["source_line"], memory.get("closed_form")
    where = f" ({at})" if at else ""
    found: Rows = []
    if "peak_reserved" in memory:
        said = f"reserved at most: {memory['fragmentation']:.1%} of it is free at the fullest moment"
        found.append((_gib(memory["peak_reserved"]), Text(said)))
    found.append(("", Text(f"fullest in {memory['operation']}{where}, traced in {memory['traced_s']:.1f} s")))
    if closed is not None:
        bounds = f": {closed['low']:.2f} to {closed['high']:.2f}" if "peak_reserved" in memory else ", tensors alone"
        way = ""  # where it is another than the traced one
        if "micro_batch_size" in closed:
            way = f" with {closed['micro_batch_size']:,} at once, checkpointing {closed['activation_checkpointing']}"
        found.append((_gib(closed["tensors"]), Text(f"by the closed form{way}{bounds}")))
    if probe := memory.get("probe"):
        found.append(_probe(probe))
    if learned := memory.get("correction"):
        said = f"× {learned['factor']:.4f}: as {learned['configs']} configs came to on this machine"
        found.append(("", Text(said, style="dim")))
    for doubt in memory["uncertain"]:
        found.append(("", Text(f"uncertain: {doubt}", style="yellow")))
    return found


def _probe(probe: Mapping[str, Any]) -> tuple[str, RenderableType]:
    if "out_of_memory" in probe:
        return "", Text(f"two real steps ran out of memory: {probe['out_of_memory']}", style="yellow")
    what = "reserved" if "reserved" in probe else "allocated"
    off = probe["traced_by_measured"]
    return _gib(probe[what]), Text(f"{what} in two real steps here: the trace is off by {off:+.2%}")


def _layers(memory: Mapping[str, Any]) -> Rows:
    """Activations by the kind of layer that keeps them."""
    sizes: Counter[str] = Counter()
    for part in memory["parts"]:
        if part["kind"] == "activations":
            sizes[part["layer"] or "outside of blocks"] += part["gib"]
    found: Rows = [(_gib(size), Text(layer)) for layer, size in sizes.most_common(LAYERS) if size >= 0.005]
    return [("", Text("of the activations:", style="dim")), *found] if found else []


def _levers(memory: Mapping[str, Any]) -> Rows:
    saving = [lever for lever in memory.get("levers", []) if lever["saves"] >= 0.005]
    found: Rows = [
        (f"-{_gib(lever['saves'])}", Text(f"{lever['key']}={_typed(lever['value'])}: {lever['cost']}"))
        for lever in saving
    ]
    return [("", Text("what would save:", style="dim")), *found] if found else []


def _typed(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gib(value: float) -> str:
    return f"{value:.2f} GiB"


def curve(drawn: Mapping[str, Any], wide: int = WIDE, high: int = HIGH) -> list[Text]:
    """Lines of a chart of ``memory_gib.curve``: allocated filled, what is reserved above it dotted; phases below.

    Time runs by operations, not by seconds.
    """
    allocated = _columns(drawn["allocated_gib"], wide)
    reserved = _columns(drawn["reserved_gib"], wide)
    top = max(*allocated, *reserved, 1e-9)
    lines = []
    for row in range(high - 1, -1, -1):
        said = {high - 1: f"{top:6.2f}", 0: f"{0:6.2f}", high // 2: f"{top * (high // 2 + 1) / high:6.2f}"}
        line = Text(no_wrap=True, overflow="ignore")
        line.append(said.get(row, " " * 6) + " ", "dim")
        for used, held in zip(allocated, reserved, strict=True):
            eighths = round(used / top * high * 8) - 8 * row
            if eighths > 0:
                line.append(EIGHTHS[min(eighths, 8)])
            else:
                line.append(RESERVED if held / top * high > row + 0.5 else " ", "dim")
        lines.append(line)
    below = " " * 7 + _phases(drawn["phase"], len(allocated))
    return [*lines, Text(below, style="dim", no_wrap=True, overflow="ignore")]


def _columns(values: list[float], wide: int) -> list[float]:
    """The highest of each of as many stretches as there is room for."""
    wide = min(wide, len(values))
    ends = [round(len(values) * column / wide) for column in range(wide + 1)]
    return [max(values[begin:end]) for begin, end in pairwise(ends)]


def _phases(phases: list[str], wide: int) -> str:
    """Each where it begins, those with room for their names."""
    line, at = "", 0
    for phase, same in groupby(phases):
        begin, at = round(at * wide / len(phases)), at + len(list(same))
        end = round(at * wide / len(phases))
        name = f"|{phase}" if len(phase) < end - begin else "|" * (end > begin)
        line = line.ljust(begin) + name
    return line[:wide]
