"""The memory of somebody's own training step, from a function in a file: what ``ganeum plan --script`` answers."""

from __future__ import annotations

import csv
import io
import json
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding

import ganeum
from ganeum.errors import TraceError
from ganeum.hardware.device import Device
from ganeum.hardware.peaks import torch_version
from ganeum.plan import sections
from ganeum.plan.page import render
from ganeum.plan.trace import exact
from ganeum.plan.trace.child import Child, NotTraced
from ganeum.plan.trace.script import split
from ganeum.plan.trace.section import section


@dataclass(frozen=True)
class Script:
    """What was found, as in plan.json as far as a step alone says it: name, method, device, memory_gib."""

    found: dict[str, Any]

    def text(self) -> RenderableType:
        """For a terminal: the peak, its picture, what is there."""
        groups = (("Memory", render.memory_rows(self.found)), ("Device", render.device_rows(self.found)))
        return Group(
            render.title(self.found["name"], "two steps, traced"), Padding(render.figures(groups), (1, 0, 0, 2))
        )

    def json(self) -> str:
        """For a program."""
        return json.dumps(self.found, indent=2, ensure_ascii=False)

    def markdown(self) -> str:
        """What is there at the peak, as a table."""
        memory = self.found["memory_gib"]
        lines = ["| GiB | kind | layer | operation |", "| --: | --- | --- | --- |"]
        for part in memory["parts"]:
            lines.append(f"| {part['gib']:.3f} | {part['kind']} | {part['layer']} | `{part['operation']}` |")
        return "\n".join(lines)

    def csv(self) -> str:
        """The same for a spreadsheet."""
        written = io.StringIO()
        rows = self.found["memory_gib"]["parts"]
        table = csv.DictWriter(written, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        return written.getvalue().rstrip("\n")


def script(text: str, device: Device) -> Script:
    """What the step of ``FILE:FUNCTION`` takes on ``device``.

    Raises:
        ConfigError: there is no such file, or no function is named.
        TraceError: the step cannot be traced; with the reason.
    """
    file, function = split(text)
    begun = time.perf_counter()
    with Child() as child:
        try:
            answer = child.script(file, function, device)
        except NotTraced as reason:
            raise TraceError(
                f"the step of {text} cannot be traced: {reason}",
                where=f"the command line: --script {text}",
                why="there is no closed form of a step that only its own code knows",
                suggestion=reason.suggestion,
            ) from None
    taken = exact.found(answer, device, time.perf_counter() - begun)
    return Script(
        {
            "ganeum_version": ganeum.__version__,
            "torch_version": torch_version(),
            "name": text,
            "method": "traced",
            "device": sections.without_none(sections.device(device, device.fast_precision)),
            "memory_gib": section(taken, device),
        }
    )
