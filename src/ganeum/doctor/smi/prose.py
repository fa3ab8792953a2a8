"""Figures in somebody's own sentences: ``power.draw ~588-590 W``, ``SM clock pinned at 210 MHz of max 3105 MHz``."""

from __future__ import annotations

import re
from typing import Any

from ganeum.doctor.smi import gather
from ganeum.doctor.smi.labels import COLUMNS, REASONS
from ganeum.doctor.smi.sample import Sample
from ganeum.doctor.smi.values import NUMBER, number

UNITS = {"W": "W", "MHz": "MHz", "%": "%", "C": r"°?C", "degrees": r"°?C"}
ABOUT = r"[\s:=~≈]{1,4}"
BUSY = re.compile(rf"({NUMBER})\s*% util", re.IGNORECASE)
PINNED = re.compile(rf"SM clock[a-z ]{{0,20}}\s({NUMBER})\s*MHz(?: of max(?:imum)? ({NUMBER})\s*MHz)?", re.IGNORECASE)
MEAN = re.compile(
    rf"power[^.;\n]{{0,8}}\b(?:avg|average|mean)\s+({NUMBER})\s*W\s+max\w*\s+({NUMBER})\s*W", re.IGNORECASE
)
MANY = 10  # samples that an average of somebody's stands for


def read(text: str) -> list[Sample]:
    """One sample of all that is said, or as many alike as an average and a maximum stand for; none if nothing is."""
    said: dict[str, Any] = {}
    for name, (ours, kind) in COLUMNS.items():
        if kind not in UNITS:
            continue
        pattern = rf"(?<![\w.]){re.escape(name)}{ABOUT}({NUMBER})(?:-{NUMBER})?\s*{UNITS[kind]}(?![A-Za-z])"
        if match := re.search(pattern, text):
            said.setdefault(ours, number(match[1]))
    for reason, names in REASONS.items():
        written = "|".join(re.escape(name) for name in names if "_" in name)
        if written and (match := re.search(rf"(?<![a-z_])(?:{written}){ABOUT}(Not Active|Active)(?![A-Za-z])", text)):
            said[f"reason:{reason}"] = match[1] == "Active"
    if match := PINNED.search(text):
        said.setdefault("sm_mhz", number(match[1]))
        if match[2]:
            said.setdefault("sm_max_mhz", number(match[2]))
    if match := BUSY.search(text):
        said.setdefault("utilization_percent", number(match[1]))
    if match := MEAN.search(text):
        mean, most = number(match[1]), number(match[2])
        return [gather.sample({**said, "power_w": power}) for power in [mean] * (MANY - 1) + [most]]
    return [gather.sample(said)] if len(said) >= 2 else []
