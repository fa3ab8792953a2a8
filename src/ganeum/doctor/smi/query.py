"""What `nvidia-smi -q` prints, or a piece of it, however it is indented and whoever wrote remarks into it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ganeum.doctor.smi.gather import Gatherer
from ganeum.doctor.smi.labels import QUERY, REASON_OF, SECTIONS
from ganeum.doctor.smi.sample import Process, Sample
from ganeum.doctor.smi.values import value

LINE = re.compile(r"\s*([A-Za-z][A-Za-z0-9 .\-/]{0,60}?)\s*:\s*(.*)")
ADDRESS = re.compile(r"\s*GPU\s+([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f])")
REMARK = re.compile(r"\s*(#|<-|//|\(|←|⇐).*")
BEGINS = "NVSMI LOG"


def read(lines: Iterable[str]) -> list[Sample]:
    """The samples in order."""
    found, section = Gatherer(), ""
    process: dict[str, str] = {}
    for line in lines:
        if BEGINS in line:
            found.snapshot()
            section = ""
            continue
        if match := ADDRESS.match(line):
            found.gpu(match[1])
            section = ""
            continue
        match = LINE.match(line)
        label = _plain(match[1] if match else REMARK.sub("", line))
        said = match[2] if match else ""
        if label in SECTIONS and (not said or REMARK.fullmatch(said)):
            section = label
            continue
        if match is None:
            continue
        if label == "timestamp":
            found.snapshot()
        if label in REASON_OF and not _other(section):
            reason = REASON_OF[label]
            if (flag := value("active", said)) is not None:
                found.put(f"reason:{reason}", flag)
            elif (seconds := value("s", said)) is not None:
                found.put(f"counter:{reason}", seconds)
            continue
        if known := QUERY.get((section, label)) or QUERY.get(("", label)):
            found.put(known[0], value(known[1], said))
        elif label in ("process id", "type", "name", "used gpu memory"):
            _process(found, process, label, said)
    return found.samples()


def _other(section: str) -> bool:
    """Sections that have a line called like a reason and mean something else: `Idle` of the power smoothing."""
    return section in ("power smoothing", "workload power profiles", "fabric", "voltage")


def _process(found: Gatherer, process: dict[str, str], label: str, said: str) -> None:
    if label == "process id":
        process.clear()
    elif "process id" not in process:
        return
    process[label] = said.strip()
    if label == "used gpu memory" and process["process id"].split()[:1] and process["process id"].split()[0].isdigit():
        found.process(
            Process(
                pid=int(process["process id"].split()[0]),
                kind=process.get("type", ""),
                name=process.get("name", ""),
                memory_mib=value("MiB", said),
            )
        )


def _plain(label: str) -> str:
    return " ".join(label.lower().split())
